"""Snapshots of training, as flat vectors: what gradients are measured on."""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.errors import DataError
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import model as models
from diffmbrl.rpg.arm import plain
from diffmbrl.rpg.learner import Learner
from diffmbrl.rpg.schedule import Schedule
from diffmbrl.tables import read_parquet, write_parquet

PyTree = Any
MEASURED = "rp_dp"  # the estimator whose snapshots are measured and drawn
NONE = np.zeros((0, 1, 0), np.float32)


class Snapshot(NamedTuple):
    """The learner without its buffer and optimisers, and real segments to start from."""

    learner: learning.State
    segments: models.Segments


def take(
    learner: Learner, schedule: Schedule, state: learning.State, key: PRNGKeyArray
) -> Snapshot:
    """The snapshot of a state."""
    segments = learner.segments(
        state, keys.fold(key, "snapshot"), schedule.stored_segments, schedule.stored_steps
    )
    nothing: Any = ()
    agent = state.agent._replace(optimisers=nothing, targets=nothing)
    return Snapshot(state._replace(agent=agent, model_optimiser=nothing, buffer=nothing), segments)


def flatten(tree: PyTree) -> Float[Array, " p"]:
    """A pytree as one float32 vector."""
    return ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree))[0]


def unflatten(learner: Learner, schedule: Schedule, vector: Float[Array, " p"]) -> Snapshot:
    """The snapshot that a vector holds.

    Raises:
        ValueError: the vector has another length.
    """

    def blank():
        key = jax.random.PRNGKey(0)
        return take(learner, schedule, learner.init(key, plain()), key)

    template = eqx.filter_eval_shape(blank)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), template)
    flat, restore = ravel_pytree(zeros)
    if flat.shape != vector.shape:
        raise ValueError(f"a snapshot has {flat.shape[0]} numbers, the vector {vector.shape[0]}")
    parts = restore(jnp.asarray(vector))
    return jax.tree.map(lambda part, leaf: part.astype(leaf.dtype), parts, template)


def write(values: Float[np.ndarray, "runs snapshots p"], path: Path) -> None:
    """Writes the flat snapshots of every run: one row per number, byte plane by byte plane."""
    runs, each, numbers = values.shape
    index = np.arange(runs * each).repeat(numbers)
    columns = {"run": index // each, "snapshot": index % each, "value": values.ravel()}
    write_parquet(pd.DataFrame(columns), path)


def read(path: Path, schedule: Schedule) -> Float[np.ndarray, "runs snapshots p"]:
    """The flat snapshots of every run of an estimator.

    Raises:
        DataError: the file is damaged, holds none, or is of another schedule.
    """
    frame = read_parquet(path, ("run", "snapshot", "value"))
    if frame.empty:
        raise DataError(f"{path}: holds no snapshots; schedule.snapshots must be at least 1")
    found, expected = frame["snapshot"].max() + 1, len(schedule.snapshot_steps)
    if found != expected:
        raise DataError(f"{path}: has {found} snapshots per run; expected {expected}")
    return frame["value"].to_numpy().reshape(frame["run"].max() + 1, expected, -1)
