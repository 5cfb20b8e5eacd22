"""Stage: variance and bias of gradients, on snapshots of training and on linear-quadratic systems.

Each row holds tr(Sigma), |mean|^2 and their ratio of one estimator at one horizon, from
independent gradients at fixed states (policy and model noise only; averaged over the states) or
at resampled stored states; and the squared distance of its mean from a reference.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.envs.functional import Environment
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import estimators, probe, setup, training
from diffmbrl.rpg.learner import Learner
from diffmbrl.rpg.model import TrueWorld
from diffmbrl.rpg.probe import Moments

Rows = Iterator[dict[str, Any]]


def run(job: Job) -> None:
    """Settings: task, horizon, learner, schedule, runs, gradients."""
    s = job.settings
    env, schedule = setup.environment(s["task"]), setup.schedule(s["schedule"])
    learner = setup.learner(s["learner"], "rp_dp", s["horizon"], env, schedule.steps)
    runs = setup.runs(s["runs"], s["learner"]["sn_target"])
    for h in (*s["gradients"]["horizons"], *s["gradients"]["other_horizons"]):
        estimators.check_horizon(h, schedule.stored_steps)
    snapshots = training.read_snapshots(job.input("snapshots"), schedule)
    rows = list(linear_quadratic(s["gradients"], s["learner"]["gamma"]))
    rows += learned(learner, env, schedule, runs, snapshots, s["task"], s["gradients"], job.threads)
    pd.DataFrame(rows).to_parquet(job.outputs["gradients"], index=False)


def learned(
    learner: Learner, env: Environment, schedule: training.Schedule, runs: list[dict[str, Any]],
    snapshots: np.ndarray, task: str, plan: Mapping[str, Any], threads: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of the learned models: every run of the first seeds, snapshot, estimator, horizon."""
    steps = schedule.snapshot_steps
    chosen = [(i, one) for i, one in enumerate(runs) if one["seed"] < plan["seeds"]]
    cases = [(i, one, j) for i, one in chosen for j in range(len(steps))]
    reference = jax.jit(partial(_reference, learner, env, schedule, plan))
    far = {(i, j): reference(snapshots[i, j]) for i, _, j in tqdm(cases, desc="rpg reference")}

    def rows(task_of: tuple[str, int]) -> list[dict[str, Any]]:
        kind, h = task_of
        estimator = estimators.Estimator(kind, h, learner.agent.gamma)
        measure = jax.jit(partial(_measure, learner, env, schedule, plan, estimator))
        return [
            {"task": task, "estimator": kind, "horizon": h, **one, "snapshot": steps[j],
             "starts": starts, **_finish(values)}
            for i, one, j in cases
            if kind == "rp_dp" or j == len(steps) - 1
            for starts, values in jax.device_get(measure(snapshots[i, j], far[i, j])).items()
        ]  # fmt: skip

    todo = [(kind, h) for kind in estimators.KINDS for h in _horizons(plan, kind)]
    with ThreadPoolExecutor(threads) as pool:
        parts = tqdm(pool.map(rows, todo), desc="rpg gradients", total=len(todo))
        return [row for part in parts for row in part]


def _horizons(plan: Mapping[str, Any], kind: str) -> list[int]:
    return plan["horizons"] if kind == "rp_dp" else plan["other_horizons"]


def linear_quadratic(plan: Mapping[str, Any], gamma: float) -> Rows:
    """Rows of the exact problem: distance from the closed-form gradient, in standard errors too."""
    n, key = plan["exact_samples"], keys.fold(jax.random.PRNGKey(0), "linear quadratic")
    system, policy = lq.random_system(key, 3, 2, radius=0.95, noise=0.1)
    critic = lq.true_critic(system, policy, gamma)
    for kind in estimators.KINDS:
        for h in _horizons(plan, kind):
            estimator = estimators.Estimator(kind, h, gamma)
            exact = lq.gradient(system, policy, critic, jnp.eye(3), h=h, gamma=gamma)
            target = ravel_pytree(exact)[0]
            draw = jax.jit(partial(_exact_moments, estimator, n))
            total, squares, coordinates = draw(key, system, policy, critic)
            found = Moments(jnp.asarray(float(n)), total, squares)
            errors = jnp.sqrt((coordinates / n - found.mean**2) / (n - 1))
            values = {
                "trace": found.trace, "mean_square": found.mean_square, "samples": found.n,
                "bias_reference": jnp.sum((found.mean - target) ** 2) - found.trace / n,
                "reference_square": jnp.sum(target**2),
                "worst_z": jnp.max(jnp.abs(found.mean - target) / errors),
            }  # fmt: skip
            yield {"task": "linear_quadratic", "estimator": kind, "horizon": h, "sn": "none",
                   "init": "exact", "seed": 0, "snapshot": 0, "starts": "resampled",
                   **_finish(jax.device_get(values))}  # fmt: skip


def _exact_moments(estimator, n, key, system, policy, critic):
    def segment(key):
        s0 = jax.random.normal(keys.fold(key, "start"), (3,))

        def step(s, key):
            a, _ = policy.sample(s, jax.random.normal(keys.fold(key, "policy"), (2,)))
            noise = system.noise_scale * jax.random.normal(keys.fold(key, "noise"), (3,))
            s_next = system.step(s, a, noise)
            return s_next, (s_next, a)

        steps = jax.random.split(keys.fold(key, "steps"), max(estimator.h, 1))
        _, (states, actions) = jax.lax.scan(step, s0, steps)
        return estimators.Segment(jnp.concatenate([s0[None], states]), actions)

    def one(key):
        gradient = estimator.gradient(policy, system, critic, segment(key), keys.fold(key, "use"))
        return ravel_pytree(gradient)[0]

    def chunk(chunk_keys):
        samples = jax.vmap(one)(chunk_keys)
        return samples.sum(0), jnp.sum(samples**2), jnp.sum(samples**2, 0)

    parts = jax.lax.map(chunk, jax.random.split(key, (10, n // 10)))
    return jax.tree.map(lambda x: x.sum(0), parts)


def _pieces(learner, schedule, vector):
    snapshot = training.unflatten(learner, schedule, vector)
    state = snapshot.learner
    segments = estimators.Segment(snapshot.segments.states, snapshot.segments.actions)
    return state, learner.world(state), segments


def _gradient(learner, state, world, estimator):
    """One sample, by the policy's raw weights, so that normalisation is differentiated too."""

    def one(segment, key):
        def surrogate(raw):
            policy = learner.policy(state, raw)
            alpha = jnp.exp(state.agent.log_alpha)
            return estimator.surrogate(policy, world, state.agent.critics, segment, key, alpha)

        return jax.grad(surrogate)(state.agent.policy)

    return one


def _fixed(plan, segments):
    """Each of the first states, repeated, with a key of its own for every sample."""
    m, n = plan["states"], plan["samples"]
    repeated = jax.tree.map(lambda x: jnp.repeat(x[:m, None], n, axis=1), segments)
    return repeated, jax.random.split(keys.fold(jax.random.PRNGKey(1), "fixed"), (m, n))


def _reference(learner, env, schedule, plan, vector):
    """Moments through the true dynamics for many steps, over the same fixed states."""
    state, _, segments = _pieces(learner, schedule, vector)
    estimator = estimators.Estimator("rp_dp", plan["reference_horizon"], learner.agent.gamma)
    world = TrueWorld(env, state.normaliser, learner.world(state).noise_scale)
    repeated, sample_keys = _fixed(plan, segments)
    sample_keys = jax.vmap(jax.vmap(lambda key: keys.fold(key, "reference")))(sample_keys)
    return probe.measure(_gradient(learner, state, world, estimator), repeated, sample_keys)


def _measure(learner, env, schedule, plan, estimator, vector, far):
    state, world, segments = _pieces(learner, schedule, vector)
    true = TrueWorld(env, state.normaliser, world.noise_scale)
    ours, real = (_gradient(learner, state, w, estimator) for w in (world, true))
    fixed, fixed_keys = _fixed(plan, segments)
    other = jax.vmap(jax.vmap(lambda key: keys.fold(key, "resampled")))(fixed_keys)
    n = segments.states.shape[0]
    index = jax.random.randint(keys.fold(jax.random.PRNGKey(2), "index"), other.shape[:2], 0, n)
    groups = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]),
        (fixed, fixed_keys),
        (jax.tree.map(lambda x: x[index], segments), other),
    )
    both = probe.measure_pairs(ours, real, *groups)
    each, there, pairs = jax.tree.map(lambda x: x[: plan["states"]], both)
    together = probe.pool(jax.tree.map(lambda x: x[plan["states"] :], both[0]))
    return {
        "fixed": {
            "trace": jnp.mean(each.trace),
            "mean_square": jnp.mean(each.mean_square),
            "samples": jnp.sum(each.n),
            "bias_model": _stratified_square(pairs),
            "true_trace": jnp.mean(there.trace),
            "true_square": _stratified_square(there),
            "bias_reference": _stratified_distance(each, far),
            "reference_square": _stratified_square(far),
        },
        "resampled": {
            "trace": together.trace,
            "mean_square": together.mean_square,
            "samples": together.n,
        },
    }


def _stratified_square(each: Moments):
    """|mean over states of E g|^2, unbiased, from moments of each state."""
    mean = jnp.mean(each.mean, 0)
    return jnp.sum(mean**2) - jnp.sum(each.trace / each.n) / each.n.shape[0] ** 2


def _stratified_distance(one: Moments, other: Moments):
    mean = jnp.mean(one.mean - other.mean, 0)
    noise = jnp.sum(one.trace / one.n + other.trace / other.n) / one.n.shape[0] ** 2
    return jnp.sum(mean**2) - noise


def _finish(values: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: float(value) for name, value in values.items()}
    row["ratio"] = row["trace"] / row["mean_square"] if row["mean_square"] > 0 else np.nan
    row["diverged"] = not np.isfinite(row["trace"])
    return row
