"""Stage: the objective of a long unroll along two random directions of the policy's weights."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl import keys
from diffmbrl.nets import spectral
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import counts, setup, snapshots
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg.objective import Objective, unroll
from diffmbrl.rpg.training import Training
from diffmbrl.tables import write_parquet

PyTree = Any
USES = {"=rp_dp": "rpg.estimators", "task": "rpg.tasks"}


def run(job: Job) -> None:
    """Settings: task, horizon, learner, schedule, arms, landscape."""
    s, plan = job.settings, job.settings["landscape"]
    training = setup.training(s, snapshots.MEASURED)
    stored = training.schedule.stored_segments
    counts.check_stored("landscape.states", plan["states"], stored)
    runs = setup.runs(s["arms"])
    vectors = snapshots.read(job.input("snapshots"), training.schedule)
    grid = np.linspace(-plan["radius"], plan["radius"], plan["points"])
    x, y = (axis.reshape(-1) for axis in np.meshgrid(grid, grid, indexing="ij"))
    compute = jax.jit(lambda vector: surface(training, plan, vector, x, y))
    what = {"task": s["task"], "estimator": snapshots.MEASURED, "horizon": training.learner.h}
    parts = []
    for one, vector in zip(runs, vectors[:, -1], strict=True):
        found = {"x": x, "y": y, "objective": np.asarray(compute(vector))}
        parts.append(pd.DataFrame({**what, **one, **found}))
    table = pd.concat(parts, ignore_index=True)
    table["diverged"] = ~np.isfinite(table["objective"])
    write_parquet(table, job.outputs["landscape"])


def surface(
    training: Training,
    plan: Mapping[str, Any],
    vector: Float[Array, " p"],
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
) -> Float[Array, " n"]:
    """J at theta + x d1 + y d2, over the same states and noises at every point.

    Each direction's part for an array has the norm of that array, so that a unit step means
    the same for plain and for normalised weights, whose scale is free.
    """
    learner = training.learner
    snapshot = snapshots.unflatten(learner, training.schedule, vector)
    state, agent = snapshot.learner, snapshot.learner.agent
    n, h, key = plan["states"], learner.h, jax.random.PRNGKey(3)
    shape = (n, h + 1, learner.agent.action_dim)
    eps = jax.random.normal(keys.fold(key, "eps"), shape, jnp.float32)
    xi = jnp.zeros((n, h, learner.agent.obs_dim), jnp.float32)
    starts = snapshot.segments.states[:n, 0]
    world, alpha = learner.world(state), jnp.exp(agent.log_alpha)
    one, two = (direction(agent.policy, keys.fold(key, name)) for name in ("d1", "d2"))

    def at(point):
        raw = jax.tree.map(lambda w, a, b: w + point[0] * a + point[1] * b, agent.policy, one, two)
        policy = learner.policy(renew(state, raw), raw)
        objective = Objective(policy, world, agent.critics, learner.agent.gamma, alpha)
        return jnp.mean(jax.vmap(partial(unroll, objective))(starts, eps, xi))

    return jax.lax.map(at, jnp.stack([x, y], axis=1).astype(jnp.float32), batch_size=16)


def renew(state: learning.State, raw: PyTree) -> learning.State:
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
