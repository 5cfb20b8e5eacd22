"""Stage: the objective of a long unroll along two random directions of the policy's weights."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl import keys
from diffmbrl.nets import spectral
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import estimators, setup, training
from diffmbrl.rpg.learner import Learner

PyTree = Any


def run(job: Job) -> None:
    """Settings: task, horizon, learner, schedule, runs, landscape."""
    s, plan = job.settings, job.settings["landscape"]
    env, schedule = setup.environment(s["task"]), setup.schedule(s["schedule"])
    estimators.check_horizon(plan["horizon"], schedule.stored_steps)
    learner = setup.learner(s["learner"], "rp_dp", s["horizon"], env, schedule.steps)
    runs = setup.runs(s["runs"], s["learner"]["sn_target"])
    snapshots = training.read_snapshots(job.input("snapshots"), schedule)
    grid = np.linspace(-plan["radius"], plan["radius"], plan["points"])
    x, y = (axis.reshape(-1) for axis in np.meshgrid(grid, grid, indexing="ij"))
    compute = jax.jit(lambda vector: surface(learner, schedule, plan, vector, x, y))
    rows = []
    for i, one in enumerate(runs):
        if one["seed"] >= plan["seeds"]:
            continue
        rows.append(pd.DataFrame({
            "task": s["task"], "estimator": "rp_dp", "horizon": plan["horizon"], **one,
            "snapshot": schedule.steps, "x": x, "y": y,
            "objective": np.asarray(compute(snapshots[i, -1])),
        }))  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    table["diverged"] = ~np.isfinite(table["objective"])
    table.to_parquet(job.outputs["landscape"], index=False)


def surface(
    learner: Learner, schedule: training.Schedule, plan: Mapping[str, Any],
    vector: Float[Array, " p"], x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"],
) -> Float[Array, " n"]:  # fmt: skip
    """J at theta + x d1 + y d2, over the same states and noises at every point.

    Each direction's part for an array has the norm of that array, so that a unit step means
    the same for plain and for normalised weights, whose scale is free.
    """
    snapshot = training.unflatten(learner, schedule, vector)
    state, h = snapshot.learner, plan["horizon"]
    world, alpha = learner.world(state), jnp.exp(state.agent.log_alpha)
    n, key = plan["states"], jax.random.PRNGKey(3)
    starts = snapshot.segments.states[:n, 0]
    eps = jax.random.normal(
        keys.fold(key, "eps"), (n, h + 1, learner.agent.action_dim), jnp.float32
    )
    xi = jnp.zeros((n, h, learner.agent.obs_dim), jnp.float32)
    one, two = (direction(state.agent.policy, keys.fold(key, name)) for name in ("d1", "d2"))

    def at(point):
        raw = jax.tree.map(lambda w, a, b: w + point[0] * a + point[1] * b,
                           state.agent.policy, one, two)  # fmt: skip
        policy = learner.policy(renew(learner, state, raw), raw)
        each = jax.vmap(
            lambda s, e, m: estimators.unroll(
                policy, world, state.agent.critics, s, e, m, learner.agent.gamma, alpha
            )
        )
        return jnp.mean(each(starts, eps, xi))

    return jax.lax.map(at, jnp.stack([x, y], axis=1).astype(jnp.float32), batch_size=16)


def renew(learner: Learner, state, raw):
    """The state with power iteration brought up to date for other weights."""
    return state._replace(policy_vectors=spectral.iterate(raw.net, state.policy_vectors, 30))


def direction(params: PyTree, key: Array) -> PyTree:
    """A random direction, each array's part scaled to the array's norm."""
    leaves, structure = jax.tree.flatten(params)
    parts = []
    for i, leaf in enumerate(leaves):
        draw = jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        parts.append(draw * jnp.linalg.norm(leaf) / jnp.linalg.norm(draw))
    return jax.tree.unflatten(structure, parts)
