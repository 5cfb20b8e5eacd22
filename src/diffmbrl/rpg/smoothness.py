"""Stage: where spectral normalisation starts to hurt, on a dial from smooth to contact-like.

For each stiffness of the wall a model is fitted to random data, plain or with its layers
normalised to one of several targets. Then, on the true system as reference: the model's error and
its Jacobian's; variance and bias of the gradient of a fixed policy through a long unroll; and
the return of a policy that is trained in the model alone.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl import keys
from diffmbrl.agents.sac import TanhGaussian
from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.nets import mlp as nets
from diffmbrl.nets import spectral
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import estimators, probe
from diffmbrl.rpg import model as models
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid

PyTree = Any


class Fit(NamedTuple):
    """A model's raw weights, their power-iteration state, and what its data looked like."""

    model: models.Model
    vectors: tuple[spectral.Vectors, ...]
    normaliser: models.Normaliser


class TrueRewards(models.LearnedWorld):
    """Learned dynamics with the environment's own reward, so that only dynamics are compared."""

    env: Hybrid
    normaliser: models.Normaliser

    def reward(self, s, a):
        """True reward."""
        return self.env.step(self.normaliser.undo(s), a)[1]


def run(job: Job) -> None:
    """Settings: smoothness. Target 0 stands for the plain model, -1 for the true system."""
    plan = job.settings["smoothness"]
    estimators.check_horizon(plan["horizon"])
    axes = grid(
        {
            "stiffness": plan["stiffness"],
            "target": [-1.0, 0.0, *plan["targets"]],
            "seed": range(plan["seeds"]),
        }
    )
    configs = {
        "stiffness": axes["stiffness"].astype(np.float32),
        "target": axes["target"].astype(np.float32),
        "seed": axes["seed"].astype(np.uint32),
    }
    program = engine.Program(lambda config, _: config, partial(_advance, plan), segments=1, lanes=1)
    metrics = engine.run(program, configs, {}, threads=job.threads, label="rpg smoothness")
    names = {-1.0: "true system", 0.0: "none"}
    table = pd.DataFrame(
        {
            "task": "hybrid",
            "estimator": "rp_dp",
            "horizon": plan["horizon"],
            "sn": [names.get(float(t), "model") for t in axes["target"]],
            "init": "orthogonal",
            **axes,
            "step": plan["model_updates"],
            **{name: value[:, 0] for name, value in metrics.items()},
        }
    )
    table["diverged"] = ~np.isfinite(table[["trace", "return_trained"]]).all(axis=1)
    table.to_parquet(job.outputs["smoothness"], index=False)


def _advance(plan, config, _, state):
    return state, study(plan, config["stiffness"], config["target"], config["seed"])


def study(plan: Mapping[str, Any], stiffness, target, seed) -> dict[str, Array]:
    """Every metric of one stiffness, target and seed."""
    key = keys.fold(jax.random.PRNGKey(seed), "smoothness")
    env, h = Hybrid(stiffness), plan["horizon"]
    data = collect(env, keys.fold(key, "data"), plan["transitions"])
    fitted = fit(plan, data, target, keys.fold(key, "fit"))
    quiet = jnp.zeros(2, jnp.float32)
    learned = TrueRewards(used(fitted, target), quiet, env, fitted.normaliser)
    true = models.TrueWorld(env, fitted.normaliser, quiet)
    errors = model_errors(
        learned, true, collect(env, keys.fold(key, "test"), 500), fitted.normaliser
    )
    policy = TanhGaussian(
        nets.mlp(
            keys.fold(key, "policy"),
            [2, 32, 2],
            activation="tanh",
            gain=1.0,
            last_gain=0.5,
            dtype=jnp.float32,
        ),
        low=-3.0,
        high=0.0,
    )

    def world_of(which):
        return lambda policy, s, eps: estimators.unroll(
            policy, which, _nothing, s, eps, jnp.zeros((h, 2), jnp.float32), 1.0, 0.0
        )

    def pick(on_true, on_learned):
        return jax.tree.map(lambda a, b: jnp.where(target < 0, a, b), on_true, on_learned)

    def value(policy, s, eps):
        return pick(world_of(true)(policy, s, eps), world_of(learned)(policy, s, eps))

    n = plan["samples"]
    starts = _starts(env, fitted.normaliser, keys.fold(key, "starts"), n)
    eps = jax.random.normal(keys.fold(key, "eps"), (n, h + 1, 1), jnp.float32)
    shape = (n // 64, 64)
    groups = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (starts, eps))
    ours = probe.pool(probe.measure(lambda s, e: jax.grad(value)(policy, s, e), *groups))
    there = probe.pool(probe.measure(lambda s, e: jax.grad(world_of(true))(policy, s, e), *groups))
    pairs = probe.pool(
        probe.measure(
            lambda s, e: jax.tree.map(
                jnp.subtract, jax.grad(value)(policy, s, e), jax.grad(world_of(true))(policy, s, e)
            ),
            *groups,
        )
    )
    trained = train_policy(plan, env, value, policy, fitted.normaliser, keys.fold(key, "train"))
    test = _starts(env, fitted.normaliser, keys.fold(key, "test starts"), 256)
    still = jnp.zeros((256, h + 1, 1), jnp.float32)
    score = {
        f"return_{name}": jnp.mean(jax.vmap(partial(world_of(true), p))(test, still))
        for name, p in (("untrained", policy), ("trained", trained))
    }
    return {
        **errors,
        "trace": ours.trace,
        "mean_square": ours.mean_square,
        "samples": ours.n,
        "true_trace": there.trace,
        "true_square": there.mean_square,
        "bias_model": pairs.mean_square,
        **score,
    }


def collect(env: Hybrid, key: Array, n: int) -> models.Segments:
    """`n` segments of 4 steps with uniform actions, from restarts and further along."""

    def one(key):
        actions = jax.random.uniform(keys.fold(key, "actions"), (24, 1), jnp.float32, -1, 1)

        def step(obs, action):
            following, reward, _ = env.step(obs, action)
            return following, (obs, reward)

        last, (states, rewards) = jax.lax.scan(step, env.reset(keys.fold(key, "reset")), actions)
        states = jnp.concatenate([states, last[None]])
        first = jax.random.randint(keys.fold(key, "first"), (), 0, 21)
        states, actions, rewards = (
            jax.lax.dynamic_slice_in_dim(x, first, k)
            for x, k in ((states, 5), (actions, 4), (rewards, 4))
        )
        zeros, valid = jnp.zeros(4, jnp.float32), jnp.ones((), jnp.float32)
        return models.Segments(states, actions, rewards, zeros, valid)

    return jax.vmap(one)(jax.random.split(key, n))


def fit(plan: Mapping[str, Any], data: models.Segments, target, key: Array) -> Fit:
    """A model of the data; its dynamics' layers are normalised to `target` where above 0."""
    flat = data.states.reshape(-1, 2)
    normaliser = models.Normaliser(jnp.float32(len(flat)), flat.mean(0), flat.var(0) * len(flat))
    data = data._replace(states=normaliser.apply(data.states))
    raw = models.init(keys.fold(key, "init"), 2, 1, False, plan["width"], plan["depth"])
    vectors = spectral.start(raw.dynamics, keys.fold(key, "vectors"))
    rate = optax.cosine_decay_schedule(plan["learning_rate"], plan["model_updates"])
    optimiser = optax.adam(rate)

    def update(carry, key):
        fitted, state = carry
        rows = jax.random.randint(key, (plan["batch"],), 0, data.states.shape[0])
        batch = jax.tree.map(lambda x: x[rows], data)
        grads = jax.grad(lambda raw: models.loss(used(fitted._replace(model=raw), target), batch))(
            fitted.model
        )
        updates, state = optimiser.update(grads, state)
        model = optax.apply_updates(fitted.model, updates)
        vectors = spectral.iterate(model.dynamics, fitted.vectors, 5)
        return (Fit(model, vectors, normaliser), state), None

    start = (Fit(raw, vectors, normaliser), optimiser.init(raw))
    steps = jax.random.split(keys.fold(key, "batches"), plan["model_updates"])
    return jax.lax.scan(update, start, steps)[0][0]


def used(fitted: Fit, target) -> models.Model:
    """The model in use."""
    net = spectral.normalise(
        fitted.model.dynamics,
        fitted.vectors,
        (True,) * len(fitted.model.dynamics.layers),
        jnp.where(target > 0, target, 1.0),
        on=target > 0,
    )
    return models.Model(net, fitted.model.reward, fitted.model.ends)


def model_errors(learned, true, data: models.Segments, normaliser) -> dict[str, Array]:
    """Root mean squares over test data: of the next state's error, and of its Jacobian's."""
    s, a = normaliser.apply(data.states[:, 0]), data.actions[:, 0]
    quiet = jnp.zeros(2, jnp.float32)

    def jacobian(world):
        return jax.vmap(jax.jacfwd(lambda s, a: world.step(s, a, quiet), (0, 1)))(s, a)

    off = jax.vmap(lambda s, a: learned.step(s, a, quiet) - true.step(s, a, quiet))(s, a)
    ours, real = (jnp.concatenate(jacobian(world), axis=-1) for world in (learned, true))
    return {
        "model_error": jnp.sqrt(jnp.mean(jnp.sum(off**2, -1))),
        "jacobian_error": jnp.sqrt(jnp.mean(jnp.sum((ours - real) ** 2, (-2, -1)))),
        "lipschitz": jnp.max(jnp.linalg.norm(ours, 2, axis=(1, 2))),
        "true_lipschitz": jnp.max(jnp.linalg.norm(real, 2, axis=(1, 2))),
    }


def train_policy(plan, env, value, policy, normaliser, key):
    """The policy after Adam on the unrolls' mean value alone; gradients clipped to norm 1."""
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(plan["policy_learning_rate"])
    )

    def update(carry, key):
        policy, state = carry
        n = plan["policy_batch"]
        starts = _starts(env, normaliser, keys.fold(key, "starts"), n)
        eps = jax.random.normal(keys.fold(key, "eps"), (n, plan["horizon"] + 1, 1), jnp.float32)
        grads = jax.grad(lambda p: -jnp.mean(jax.vmap(partial(value, p))(starts, eps)))(policy)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(policy, updates), state), None

    steps = jax.random.split(key, plan["policy_updates"])
    return jax.lax.scan(update, (policy, optimiser.init(policy)), steps)[0][0]


def _starts(env: Hybrid, normaliser, key: Array, n: int) -> Float[Array, "n s"]:
    return normaliser.apply(jax.vmap(env.reset)(jax.random.split(key, n)))


def _nothing(s, a):
    return jnp.zeros((), s.dtype)
