"""Training of one run in a functional environment, as pure functions for the sweep engine."""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.agents import sac
from diffmbrl.envs.functional import Environment
from diffmbrl.errors import ConfigError, DataError
from diffmbrl.nets import spectral
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import model as models
from diffmbrl.rpg.learner import Learner
from diffmbrl.sweep.engine import Program

PyTree = Any


class Schedule(NamedTuple):
    """How long a run is, in environment steps; all counts are static.

    Attributes:
        steps: of the whole run.
        random_steps: taken first, with uniform actions.
        update_every: steps between two updates.
        evaluate_every: steps between two evaluations.
        episodes: of an evaluation.
        snapshots: how many snapshots follow the first one, evenly spaced.
        stored_segments: how many real segments a snapshot holds.
        stored_steps: their length.
    """

    steps: int
    random_steps: int
    update_every: int
    evaluate_every: int
    episodes: int
    snapshots: int
    stored_segments: int
    stored_steps: int

    @property
    def snapshot_steps(self) -> list[int]:
        """Environment steps at which snapshots are taken."""
        every = (self.steps - self.random_steps) // self.snapshots
        return [self.random_steps + i * every for i in range(self.snapshots + 1)]

    def check(self, time_limit: int) -> None:
        """Refuses schedules that do not fit together.

        Raises:
            ConfigError: the first count that does not fit.
        """
        learning_steps = self.steps - self.random_steps
        whole = [
            ("evaluate_every", self.evaluate_every, self.update_every, "update_every"),
            ("steps - random_steps", learning_steps, self.evaluate_every * self.snapshots,
             "evaluate_every * snapshots"),
        ]  # fmt: skip
        for name, value, unit, what in whole:
            if value <= 0 or value % unit:
                raise ConfigError(
                    f"{name} = {value}: must be a positive multiple of {what} = {unit}"
                )
        least = time_limit + self.stored_steps
        if self.random_steps < least:
            raise ConfigError(
                f"random_steps = {self.random_steps}: must be at least {least}, an episode and a "
                "stored segment"
            )


class Loop(NamedTuple):
    """Learner and environment between two steps."""

    learner: learning.State
    obs: Float[Array, " s"]
    age: Int[Array, ""]
    key: Array


class Snapshot(NamedTuple):
    """What gradients are measured on: the networks, and real segments to start from."""

    learner: learning.State
    segments: models.Segments


def program(
    learner: Learner, env: Environment, schedule: Schedule, lanes: int, calls: int = 1
) -> Program:
    """The training program of one learner.

    Configs hold `seed` (uint32), `sn_model`, `sn_policy`, `uniform` (bool) and `target` (float32).
    Metrics, at the start of a segment and after each block of `evaluate_every` steps (so that a
    segment's first entry is the one before it's last): `returns` (entry, episode), the logs of
    the last update and the diagnostics of `diagnose`; and `snapshot` at its start and end.
    """
    schedule.check(env.time_limit)
    blocks = (schedule.steps - schedule.random_steps) // schedule.evaluate_every
    blocks //= schedule.snapshots

    def init(config: PyTree, _) -> Loop:
        key = jax.random.PRNGKey(config["seed"])
        sn = learning.Normalisation(
            config["sn_model"], config["sn_policy"], config["target"], config["uniform"]
        )
        start = Loop(
            learner.init(keys.fold(key, "init"), sn), env.reset(keys.fold(key, "first")),
            jnp.zeros((), jnp.int32), keys.fold(key, "loop"),
        )  # fmt: skip

        def step(loop, _):
            draw = jax.random.uniform(
                keys.fold(loop.key, "random"), (env.action_dim,), jnp.float32, -1, 1
            )
            return interact(learner, env, loop, draw), None

        return jax.lax.scan(step, start, None, schedule.random_steps)[0]

    def train(_, carry):
        loop, _ = carry

        def step(loop, _):
            noise = jax.random.normal(keys.fold(loop.key, "act"), (env.action_dim,), jnp.float32)
            action = learner.act(loop.learner, loop.obs, noise)
            return interact(learner, env, loop, action), None

        loop = jax.lax.scan(step, loop, None, schedule.update_every)[0]
        state, logs = learner.update(loop.learner, keys.fold(loop.key, "update"))
        return loop._replace(learner=state), logs

    def block(carry, index):
        loop, logs = carry
        metrics = {
            "returns": evaluate(
                learner, env, loop.learner, keys.fold(loop.key, "eval"), schedule.episodes
            ),
            **logs,
            **diagnose(learner, loop),
        }
        rounds = jnp.where(index < blocks, schedule.evaluate_every // schedule.update_every, 0)
        loop, logs = jax.lax.fori_loop(0, rounds, train, (loop, logs))
        return (loop, logs), metrics

    def advance(config, _, loop: Loop):
        first = flatten(snapshot(learner, loop, schedule))
        (loop, _), metrics = jax.lax.scan(block, (loop, learner.no_logs()), jnp.arange(blocks + 1))
        metrics["snapshot"] = jnp.stack([first, flatten(snapshot(learner, loop, schedule))])
        return loop, metrics

    return Program(init, advance, schedule.snapshots, lanes=lanes, segments_per_call=calls)


def read_snapshots(path: Path, schedule: Schedule) -> Float[np.ndarray, "runs snapshots p"]:
    """The flat snapshots of every run of an estimator.

    Raises:
        DataError: the file is damaged, or is of another schedule.
    """
    try:
        snapshots = np.load(path, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise DataError(
            f"{path}: not a whole array file ({error}); delete it and run again to rebuild it"
        ) from None
    expected = len(schedule.snapshot_steps)
    if snapshots.ndim != 3 or snapshots.shape[1] != expected:
        raise DataError(
            f"{path}: has shape {snapshots.shape}; expected (runs, {expected}, numbers)"
        )
    return snapshots


def interact(learner: Learner, env: Environment, loop: Loop, action: Float[Array, " a"]) -> Loop:
    """One environment step, stored; a new episode where one ended or reached its time limit."""
    obs, reward, terminated = env.step(loop.obs, action)
    transition = sac.Transition(
        loop.obs, action, (env.reward_scale * reward).astype(jnp.float32),
        obs.astype(jnp.float32), terminated.astype(jnp.float32),
    )  # fmt: skip
    state = learner.observe(loop.learner, transition, loop.age)
    age = loop.age + 1
    over = (terminated > 0) | (age >= env.time_limit)
    fresh = env.reset(keys.fold(loop.key, "reset"))
    return Loop(
        state, jnp.where(over, fresh, transition.obs_next), jnp.where(over, 0, age),
        keys.fold(loop.key, "next"),
    )  # fmt: skip


def evaluate(
    learner: Learner, env: Environment, state: learning.State, key: PRNGKeyArray, episodes: int
) -> Float[Array, " episodes"]:
    """Undiscounted returns of the mean action, in the environment's own reward."""
    still = jnp.zeros(env.action_dim, jnp.float32)
    policy = learner.policy(state)

    def episode(key):
        def step(carry, _):
            obs, going, total = carry
            action = policy.sample(state.normaliser.apply(obs), still)[0]
            obs, reward, terminated = env.step(obs, action)
            total = total + going * reward
            return (obs.astype(jnp.float32), going * (1 - terminated), total), None

        start = (env.reset(key), jnp.ones(()), jnp.zeros(()))
        return jax.lax.scan(step, start, None, env.time_limit)[0][2]

    return jax.vmap(episode)(jax.random.split(key, episodes))


def diagnose(learner: Learner, loop: Loop) -> dict[str, Array]:
    """Lipschitz constants of model and policy, and how well normalisation holds.

    Bounds are products of the layers' largest singular values, 1 added for the model's residual;
    local ones the largest and the mean spectral norm of the Jacobian by the state at stored
    states; `sn_error` is the largest |sigma / target - 1| of a normalised layer.
    """
    state = loop.learner
    policy, world, sn = learner.policy(state), learner.world(state), state.normalisation
    batch = learner.segments(state, keys.fold(loop.key, "diagnose"), 64, 1)
    s, a = batch.states[:, 0], batch.actions[:, 0]
    still = jnp.zeros(learner.agent.action_dim, jnp.float32)
    quiet = jnp.zeros(learner.agent.obs_dim, jnp.float32)
    by_model = jax.vmap(jax.jacfwd(lambda s, a: world.step(s, a, quiet)))(s, a)
    by_policy = jax.vmap(jax.jacfwd(lambda s: policy.sample(s, still)[0]))(s)
    local = {
        "model": jnp.linalg.norm(by_model, 2, axis=(1, 2)),
        "policy": jnp.linalg.norm(by_policy, 2, axis=(1, 2)),
    }
    used = {"model": spectral.exact(world.model.dynamics), "policy": spectral.exact(policy.net)}
    errors = [
        jnp.where(on, jnp.max(jnp.abs(used[part] / sn.target - 1) * jnp.asarray(
            spectral.chosen(net, part, learner.sn_layers))), 0.0)
        for part, on, net in (("model", sn.model, world.model.dynamics),
                              ("policy", sn.policy, policy.net))
    ]  # fmt: skip
    return {
        "sn_error": jnp.maximum(*errors),
        "bound_model": 1 + jnp.prod(used["model"]),
        "bound_policy": jnp.prod(used["policy"]),
        **{f"local_{part}": jnp.mean(value) for part, value in local.items()},
        **{f"local_max_{part}": jnp.max(value) for part, value in local.items()},
        "alpha": jnp.exp(state.agent.log_alpha),
    }


def snapshot(learner: Learner, loop: Loop, schedule: Schedule) -> Snapshot:
    """The learner without its buffer and optimisers, and stored segments."""
    state = loop.learner
    segments = learner.segments(
        state, keys.fold(loop.key, "snapshot"), schedule.stored_segments, schedule.stored_steps
    )
    nothing: Any = ()
    agent = state.agent._replace(optimisers=nothing, targets=nothing)
    return Snapshot(state._replace(agent=agent, model_optimiser=nothing, buffer=nothing), segments)


def flatten(tree: PyTree) -> Float[Array, " p"]:
    """A pytree as one float32 vector."""
    return ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree))[0]


def unflatten(learner: Learner, schedule: Schedule, vector: Float[Array, " p"]) -> Snapshot:
    """The snapshot that a vector holds."""

    def blank():
        sn = learning.Normalisation(
            jnp.asarray(False), jnp.asarray(False), jnp.float32(1), jnp.asarray(False)
        )
        state = learner.init(jax.random.PRNGKey(0), sn)
        zero, key = jnp.zeros((), jnp.int32), jax.random.PRNGKey(0)
        loop = Loop(state, jnp.zeros(learner.agent.obs_dim), zero, key)
        return snapshot(learner, loop, schedule)

    template = eqx.filter_eval_shape(blank)
    leaves, structure = jax.tree.flatten(template)
    sizes = [leaf.size for leaf in leaves]
    if sum(sizes) != vector.shape[0]:
        raise ValueError(f"a snapshot has {sum(sizes)} numbers, the vector {vector.shape[0]}")
    parts = jnp.split(jnp.asarray(vector), [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])
    return jax.tree.unflatten(
        structure,
        [
            part.reshape(leaf.shape).astype(leaf.dtype)
            for part, leaf in zip(parts, leaves, strict=True)
        ],
    )
