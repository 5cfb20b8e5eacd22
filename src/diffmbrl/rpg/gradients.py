"""Stage: gradients through training, measured on its snapshots, at the horizon of the training.

One row per run, snapshot and estimator, from independent gradients at resampled stored states:
tr(Sigma) and |mean|^2 by the policy's raw weights; the same of the gradient by the actions before
the tanh, which does not depend on how weights are scaled; bias against the true dynamics with the
same critic and noises, and the cosine between a batch's mean gradient and the true one.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from tqdm import tqdm

from diffmbrl import keys
from diffmbrl.agents.sac import TanhGaussian
from diffmbrl.envs import callback
from diffmbrl.errors import ConfigError
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import counts, probe, setup, snapshots
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import model as models
from diffmbrl.rpg.model import TrueWorld
from diffmbrl.rpg.objective import Ends, Estimator, Objective, Segment, unroll
from diffmbrl.rpg.training import Training
from diffmbrl.tables import write_parquet

PyTree = Any
USES = {
    "=rp_dp": "rpg.estimators",
    "gradients.estimators": "rpg.estimators",
    "task": "rpg.tasks",
}


def run(job: Job) -> None:
    """Settings: task, horizon, learner, schedule, arms, gradients."""
    s, plan = job.settings, job.settings["gradients"]
    study = Study(setup.training(s, snapshots.MEASURED), plan)
    check(plan)
    runs = setup.runs(s["arms"])
    vectors = snapshots.read(job.input("snapshots"), study.training.schedule)
    what = {"task": s["task"], "horizon": study.training.learner.h}
    with callback.one_line():
        rows = measured(study, runs, vectors)
    write_parquet(pd.DataFrame([{**what, **row} for row in rows]), job.outputs["gradients"])


def check(plan: Mapping[str, Any]) -> None:
    """Refuses counts that do not divide.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    counts.check_multiple("gradients.samples", plan["samples"], plan["batch"])


def measured(
    study: "Study", runs: Sequence[setup.Run], vectors: Float[np.ndarray, "runs snapshots p"]
) -> list[dict[str, Any]]:
    """The rows of every run and snapshot; other estimators at the last snapshot only."""

    def look(name, vector):
        snapshot = study.read(vector)
        world = study.training.learner.world(snapshot.learner)
        found = study.look(setup.estimator(name), snapshot, world)
        if name == snapshots.MEASURED:
            found |= study.compare(snapshot, world)
        return found

    looks = {name: jax.jit(partial(look, name)) for name in study.plan["estimators"]}
    steps, rows = study.training.schedule.snapshot_steps, []
    for one, vector in tqdm(zip(runs, vectors, strict=True), desc="rpg gradients", total=len(runs)):
        for j, step in enumerate(steps):
            for name, compute in looks.items():
                if name == snapshots.MEASURED or j == len(steps) - 1:
                    values = jax.device_get(compute(vector[j]))
                    _check_fits(values.pop("fits"), study.training.learner.h)
                    what = {"estimator": name, **one, "snapshot": step}
                    rows.append({**what, **probe.finish(values)})
    return rows


def _check_fits(fits: Float[np.ndarray, ""], h: int) -> None:
    """Refuses to infer noises where no stored segment is long enough.

    Raises:
        ConfigError: names the horizon.
    """
    if not fits:
        raise ConfigError(f"horizon = {h}: longer than any segment that a run stored; lower it")


class Nudged(eqx.Module):
    """A policy whose noises have a second half, which is added to the action before the tanh."""

    policy: TanhGaussian

    def sample(self, s, noise):
        """The action, and 0 for its log-probability, which an objective without alpha ignores."""
        eps, nudge = jnp.split(noise, 2)
        mu, log_std = self.policy.moments(s)
        return jnp.tanh(mu + jnp.exp(log_std) * eps + nudge), jnp.zeros((), mu.dtype)


class Study(NamedTuple):
    """What gradients are measured on, and how many of them."""

    training: Training
    plan: Mapping[str, Any]

    def read(self, vector: Float[Array, " p"]) -> snapshots.Snapshot:
        """The snapshot that a vector holds."""
        return snapshots.unflatten(self.training.learner, self.training.schedule, vector)

    def look(self, estimator: Estimator, snapshot: snapshots.Snapshot, world) -> dict[str, Array]:
        """Moments of an estimator's gradients through a learned world, and how many fit."""
        h = self.training.learner.h
        segments, fits = self._drawn(snapshot, h if estimator.infers else 0)
        gradient = self._gradient(snapshot.learner, world, estimator)
        together = probe.pool(probe.measure(gradient, *self._groups(segments)))
        return {
            "trace": together.trace,
            "mean_square": together.mean_square,
            "sample_square": jnp.sum(together.mean**2),
            "samples": together.n,
            "fits": fits,
        }

    def compare(self, snapshot: snapshots.Snapshot, learned) -> dict[str, Array]:
        """RP-DP against the true dynamics: bias, cosine; gradients by actions; model errors."""
        state, estimator = snapshot.learner, setup.estimator(snapshots.MEASURED)
        true = self._true_world(snapshot)
        ours, real = (self._gradient(state, world, estimator) for world in (learned, true))
        segments, _ = self._drawn(snapshot, 0)
        groups, batch = self._groups(segments), self.plan["batch"]
        few = jax.tree.map(lambda x: x[: self.plan["true_samples"] // batch], groups)
        mine, there, apart = probe.measure_pairs(ours, real, *few)
        rest = jax.tree.map(lambda x: x[self.plan["true_samples"] // batch :], groups)
        means = probe.measure(ours, *rest).mean
        target = probe.pool(there).mean
        by_action = probe.measure(self._by_actions(state, learned), *groups)
        together, actions = map(probe.pool, (there, by_action))
        return {
            "true_trace": together.trace,
            "true_square": together.mean_square,
            "bias_square": probe.pool(apart).mean_square,
            "cosine": jnp.mean(_cosine(means, target)),
            "true_cosine": _cosine(probe.pool(mine).mean, target),
            "action_trace": actions.trace,
            "action_square": jnp.sum(actions.mean**2),
            **self._model_errors(snapshot, learned),
            "jacobian_error": jacobian_error(learned, true, *self._few_starts(segments)),
        }

    def _few_starts(self, segments: tuple[Segment, Segment]) -> tuple[Array, Array, Array]:
        """First states, as model and true dynamics have them, and first actions."""
        few = slice(self.plan["true_samples"])
        ours, real = segments
        return ours.states[few, 0], real.states[few, 0], real.actions[few, 0]

    def _true_world(self, snapshot: snapshots.Snapshot) -> TrueWorld:
        state = snapshot.learner
        noise_scale = self.training.learner.world(state).noise_scale
        return TrueWorld(self.training.env, state.normaliser, noise_scale)

    def _gradient(self, state: learning.State, world, estimator: Estimator):
        """One sample, by the policy's raw weights, so that normalisation is differentiated too.

        Of a pair of segments, as the model and as the true dynamics have them, it takes its own.
        """
        learner, sample = self.training.learner, estimator.surrogate
        assert sample is not None

        def one(segments, key):
            segment = segments[isinstance(world, TrueWorld)]

            def surrogate(raw):
                policy, alpha = learner.policy(state, raw), jnp.exp(state.agent.log_alpha)
                critics, gamma = state.agent.critics, learner.agent.gamma
                objective = Objective(policy, world, critics, gamma, alpha)
                return sample(objective, learner.h, segment, key)

            return jax.grad(surrogate)(state.agent.policy)

        return one

    def _by_actions(self, state: learning.State, world):
        """One sample of the gradient by each step's action before the tanh, without entropy."""
        learner = self.training.learner
        policy, dims = Nudged(learner.policy(state)), (learner.h + 1, learner.agent.action_dim)
        objective = Objective(policy, world, state.agent.critics, learner.agent.gamma)

        def one(segments, key):
            eps = jax.random.normal(keys.fold(key, "policy"), dims, jnp.float32)
            shape = (learner.h, learner.agent.obs_dim)
            xi = world.noise_scale * jax.random.normal(keys.fold(key, "model"), shape, jnp.float32)

            def value(nudge):
                noises = jnp.concatenate([eps, nudge], axis=1)
                return unroll(objective, segments[0].states[0], noises, xi)

            return jax.grad(value)(jnp.zeros(dims, jnp.float32))

        return one

    def _drawn(self, snapshot: snapshots.Snapshot, h: int):
        """Pairs of stored segments, each drawn by itself, as model and true dynamics have them.

        Returns:
            The segments, and how many there were to draw from: those that go on for `h` steps, or
            that terminate before.
        """
        stored = snapshot.segments
        ends = Ends(stored.terminated, stored.within)
        fits = fitting_segments(ends, h)
        key = keys.fold(jax.random.PRNGKey(2), "index")
        index = jax.random.categorical(key, jnp.log(fits), shape=(self.plan["samples"],))
        states, actions = self._true_world(snapshot).segment(stored)
        pair = learning.for_estimator(stored), Segment(states, actions, ends)
        return jax.tree.map(lambda x: x[index], pair), jnp.sum(fits)

    def _groups(self, segments: PyTree) -> tuple[PyTree, Array]:
        """Segments in groups of a batch, with a key of its own for each."""
        n, batch = self.plan["samples"], self.plan["batch"]
        shape = (n // batch, batch)
        grouped = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), segments)
        return grouped, jax.random.split(keys.fold(jax.random.PRNGKey(1), "samples"), shape)

    def _model_errors(self, snapshot: snapshots.Snapshot, world) -> dict[str, Array]:
        """Root mean squares of the model's error over stored steps: after one, and after h."""
        stored, h = snapshot.segments, max(1, self.training.learner.h)
        return {f"model_error_{name}": open_loop_error(world, stored, steps)
                for name, steps in (("1", 1), ("h", h))}  # fmt: skip


def jacobian_error(
    learned,
    true,
    ours: Float[Array, "b s"],
    real: Float[Array, "b d"],
    actions: Float[Array, "b a"],
) -> Float[Array, ""]:
    """Error of the model's Jacobian of the next normalised observation by the action.

    Root mean square of the Frobenius norm, relative to that of the true Jacobian. By the action,
    since the true state need not be the observation.

    Args:
        learned, true: worlds.
        ours, real: the same states, as either world has them.
        actions: taken there.
    """

    def jacobian(world, s, a):
        quiet = jnp.zeros_like(world.noise_scale)
        return jax.jacrev(lambda a: world.observe(world.step(s, a, quiet)))(a)

    found, there = (
        jax.vmap(partial(jacobian, world))(states, actions)
        for world, states in ((learned, ours), (true, real))
    )
    return jnp.sqrt(jnp.sum((found - there) ** 2) / jnp.sum(there**2))


def open_loop_error(world, stored: models.Segments, steps: int) -> Float[Array, ""]:
    """Root mean square of a model's last state after `steps` stored actions.

    NaN where no stored segment goes on for so long.
    """
    if steps > stored.actions.shape[1]:
        return jnp.full((), jnp.nan)
    quiet = jnp.zeros(stored.states.shape[-1], stored.states.dtype)

    def last(states, actions):
        return jax.lax.scan(lambda s, a: (world.step(s, a, quiet), None), states[0], actions)[0]

    found = jax.vmap(last)(stored.states, stored.actions[:, :steps])
    square = jnp.sum((found - stored.states[:, steps]) ** 2, -1)
    good = jnp.all(stored.within[:, :steps] > 0, 1)
    return jnp.sqrt(jnp.mean(square, where=good))


def fitting_segments(ends: Ends, h: int) -> Float[Array, " segments"]:
    """1 for the segments whose episode goes on for h steps or terminates before, else 0."""
    within, terminated = ends.within[:, :h] > 0, ends.terminated[:, :h] > 0
    return (jnp.all(within, 1) | jnp.any(within & terminated, 1)).astype(jnp.float32)


def _cosine(a: Float[Array, "*b p"], b: Float[Array, " p"]) -> Float[Array, "*b"]:
    return a @ b / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b))
