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
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import counts, probe
from diffmbrl.rpg import model as models
from diffmbrl.rpg.fitting import Target, collect, fit, statistics, used
from diffmbrl.rpg.objective import Objective, check_horizon, unroll
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet

TRUE, PLAIN = -1.0, 0.0  # targets that stand for the true system and for the plain model
TEST_SEGMENTS, TEST_STARTS = 500, 256


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
    check_horizon(plan["horizon"])
    counts.check_multiple("smoothness.samples", plan["samples"], counts.GROUP)
    axes = settings_of(plan)
    types = {"stiffness": np.float32, "target": np.float32, "every": bool, "seed": np.uint32}
    configs = {name: axes[name].astype(dtype) for name, dtype in types.items()}
    program = engine.Program(lambda config, _: config, partial(_advance, plan), segments=1, lanes=1)
    metrics = engine.run(program, configs, {}, threads=job.threads, label="rpg smoothness")
    names = {TRUE: "true system", PLAIN: "none"}
    table = pd.DataFrame(
        {
            "task": "hybrid",
            "estimator": "rp_dp",
            "horizon": plan["horizon"],
            "sn": [names.get(float(t), "model") for t in axes["target"]],
            "layers": np.where(axes.pop("every"), "all", "hidden"),
            "init": "orthogonal",
            **axes,
            "step": plan["model_updates"],
            **{name: value[:, 0] for name, value in metrics.items()},
        }
    )
    table["diverged"] = ~np.isfinite(table[["trace", "return_trained"]]).all(axis=1)
    write_parquet(table, job.outputs["smoothness"])


def settings_of(plan: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Stiffness, target, whether every layer is normalised, and seed of every run."""
    one = {"stiffness": plan["stiffness"], "seed": range(plan["seeds"])}
    normalised = grid({**one, "target": plan["targets"], "every": [False, True]})
    others = grid({**one, "target": [TRUE, PLAIN], "every": [False]})
    return {name: np.concatenate([others[name], normalised[name]]) for name in normalised}


def _advance(plan, config, _, state):
    target = Target(config["target"], config["every"])
    return state, study(plan, config["stiffness"], target, config["seed"])


def study(plan: Mapping[str, Any], stiffness, target: Target, seed) -> dict[str, Array]:
    """Every metric of one stiffness, target and seed."""
    key = keys.fold(jax.random.PRNGKey(seed), "smoothness")
    dial = make(plan, stiffness, target, key)
    test = collect(dial.env, keys.fold(key, "test"), TEST_SEGMENTS)
    policy = first_policy(keys.fold(key, "policy"))
    trained = train_policy(plan, dial, policy, keys.fold(key, "train"))
    starts = dial.starts(keys.fold(key, "test starts"), TEST_STARTS)
    return {
        **model_errors(dial, test),
        **gradient_errors(dial, policy, plan["samples"], key),
        "return_untrained": dial.score(policy, starts),
        "return_trained": dial.score(trained, starts),
    }


class Dial(NamedTuple):
    """One position of the dial: the system, a model of it, and how a policy is valued in either.

    Attributes:
        env: the system.
        learned: the fitted model, with true rewards.
        true: the system as a world, in the model's normalised states.
        target: of the model's layers; where it is `TRUE`, `value` looks at the true system.
        h: steps of an unroll.
    """

    env: Hybrid
    learned: TrueRewards
    true: models.TrueWorld
    target: Target
    h: int

    def starts(self, key: Array, n: int) -> Float[Array, "n s"]:
        """Normalised first states."""
        return self.true.normaliser.apply(jax.vmap(self.env.reset)(jax.random.split(key, n)))

    def true_value(self, policy: TanhGaussian, s, eps) -> Float[Array, ""]:
        """Return of an unroll of the true system, driven by noises `eps` of the policy."""
        return self._value(self.true, policy, s, eps)

    def value(self, policy: TanhGaussian, s, eps) -> Float[Array, ""]:
        """Return of an unroll of what this position of the dial differentiates through."""
        ours = self._value(self.learned, policy, s, eps)
        return jnp.where(self.target.sigma < 0, self.true_value(policy, s, eps), ours)

    def score(self, policy: TanhGaussian, starts: Float[Array, "n s"]) -> Float[Array, ""]:
        """True mean return without noise."""
        still = jnp.zeros((starts.shape[0], self.h + 1, 1), jnp.float32)
        return jnp.mean(jax.vmap(partial(self.true_value, policy))(starts, still))

    def _value(self, world, policy, s, eps):
        quiet = jnp.zeros((self.h, 2), jnp.float32)
        return unroll(Objective(policy, world, nothing, 1.0), s, eps, quiet)


def nothing(s, a):
    """The critic that values nothing."""
    return jnp.zeros((), s.dtype)


def make(plan: Mapping[str, Any], stiffness, target: Target, key: Array) -> Dial:
    """The system of a stiffness and a model fitted to data from it."""
    env, quiet = Hybrid(stiffness), jnp.zeros(2, jnp.float32)
    data = collect(env, keys.fold(key, "data"), plan["transitions"])
    seen = statistics(data.states)
    data = data._replace(states=seen.apply(data.states))
    fitted = fit(plan, data, target, keys.fold(key, "fit"))
    learned = TrueRewards(used(fitted, target), quiet, env, seen)
    true = models.TrueWorld(env, seen, quiet)
    return Dial(env, learned, true, target, plan["horizon"])


def first_policy(key: Array) -> TanhGaussian:
    """The policy whose gradients are measured, and from which training starts."""
    net = nets.mlp(key, [2, 32, 2], activation="tanh", gain=1.0, last_gain=0.5, dtype=jnp.float32)
    return TanhGaussian(net, low=-3.0, high=0.0)


def gradient_errors(dial: Dial, policy: TanhGaussian, n: int, key: Array) -> dict[str, Array]:
    """tr(Sigma) and |mean|^2 of `n` gradients of the policy's value, and their bias.

    Args:
        dial: where they are taken.
        policy: whose they are.
        n: a multiple of `counts.GROUP`.
        key: of starts and noises.
    """
    eps = jax.random.normal(keys.fold(key, "eps"), (n, dial.h + 1, 1), jnp.float32)
    samples = dial.starts(keys.fold(key, "starts"), n), eps
    shape = (n // counts.GROUP, counts.GROUP)
    groups = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), samples)
    ours, true = (partial(jax.grad(f), policy) for f in (dial.value, dial.true_value))
    here, there, apart = map(probe.pool, probe.measure_pairs(ours, true, *groups))
    return {
        "trace": here.trace,
        "mean_square": here.mean_square,
        "samples": here.n,
        "true_trace": there.trace,
        "true_square": there.mean_square,
        "bias_model": apart.mean_square,
    }


def model_errors(dial: Dial, data: models.Segments) -> dict[str, Array]:
    """Root mean squares over test data: of the next state's error, and of its Jacobian's."""
    s, a = dial.true.normaliser.apply(data.states[:, 0]), data.actions[:, 0]
    learned, true, quiet = dial.learned, dial.true, jnp.zeros(2, jnp.float32)

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


def train_policy(
    plan: Mapping[str, Any], dial: Dial, policy: TanhGaussian, key: Array
) -> TanhGaussian:
    """The policy after Adam on the unrolls' mean value alone; gradients clipped to norm 1."""
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(plan["policy_learning_rate"])
    )

    def update(carry, key):
        policy, state = carry
        n = plan["policy_batch"]
        starts = dial.starts(keys.fold(key, "starts"), n)
        eps = jax.random.normal(keys.fold(key, "eps"), (n, dial.h + 1, 1), jnp.float32)
        grads = jax.grad(lambda p: -jnp.mean(jax.vmap(partial(dial.value, p))(starts, eps)))(policy)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(policy, updates), state), None

    steps = jax.random.split(key, plan["policy_updates"])
    return jax.lax.scan(update, (policy, optimiser.init(policy)), steps)[0][0]
