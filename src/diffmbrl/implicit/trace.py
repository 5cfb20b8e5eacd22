"""The training of `implicit.train` for a study: its own data, grid and measures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Int

from diffmbrl.errors import DataError
from diffmbrl.implicit import schedule, train
from diffmbrl.implicit.values import Models
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid

Measure = Callable[[dict, dict, dict], dict[str, Any]]  # (config, data, state) -> scalars


def rate(selected: Path, domain: str, parameterization: str, eta: float) -> float:
    """The published learning rate of a family; where there is none, the selected one.

    Raises:
        DataError: the selection has no such family.
    """
    table = pd.read_csv(selected)
    for name, value in (("domain", domain), ("parameterization", parameterization), ("eta", eta)):
        table = table[table[name] == value]
    if table.empty:
        raise DataError(f"{selected}: has no row of {domain}, {parameterization}, eta {eta:g}")
    family = table.iloc[0]
    return float(family["published_learning_rate" if _stated(family) else "learning_rate"])


def _stated(family: pd.Series) -> bool:
    return bool(np.isfinite(family["published_learning_rate"]))


def axes(
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    etas: Sequence[float],
    reward_offsets: Sequence[float],
) -> dict[str, np.ndarray]:
    """The runs of a grid; a run's seed is its position."""
    values = {"learning_rate": learning_rates, "eta": etas, "reward_offset": reward_offsets}
    return grid({"seed": np.arange(len(seeds)), **values})


def batches(
    seeds: Sequence[int], counts: np.ndarray, updates: int, size: int
) -> Int[np.ndarray, "seeds updates size"]:
    """Indices of every batch of each seed, from its own number of points."""
    keys = [jnp.asarray(schedule.run_keys(seed).batch) for seed in seeds]
    drawn = [
        schedule.batch_indices(key, count, updates, size)
        for key, count in zip(keys, counts, strict=True)
    ]
    return np.stack(drawn)


def runs(
    models: Models,
    axes: Mapping[str, np.ndarray],
    data: dict,
    updates: int,
    log_every: int,
    measure: Measure | None = None,
    **how: Any,
) -> pd.DataFrame:
    """Trains runs one by one; one row per run and logged step, measures as more columns.

    Args:
        models: the parameterization.
        axes: seed (index into the data), learning_rate, eta, reward_offset of every run.
        data: as of `train.arrays`.
        updates: of each run.
        log_every: updates between two logged steps.
        measure: what is measured at logged steps, beside the residual's norms; a vector becomes
            a column of vectors.
        **how: to the engine.
    """
    program = train.program(models._replace(width=1), updates, log_every)
    if measure is not None:
        program = _with(program, measure)
    found = engine.run(program, axes, data, **how)
    frame = train.table(axes, found, log_every)
    for name in sorted(set(found) - set(frame)):
        values = found[name].reshape(len(frame), -1)
        frame[name] = values[:, 0] if found[name].ndim == 2 else list(values)
    return frame


def _with(program: engine.Program, measure: Measure) -> engine.Program:
    first = program.first or (lambda config, data, state: {})

    def go_on(config, data, state):
        state, found = program.advance(config, data, state)
        return state, found | measure(config, data, state)

    def start(config, data, state):
        return first(config, data, state) | measure(config, data, state)

    return replace(program, advance=go_on, first=start)


def labelled(frame: pd.DataFrame, seeds: Sequence[int], **labels: str) -> pd.DataFrame:
    """The table with its seeds' names, and labels in front."""
    frame = frame.assign(seed=np.asarray(seeds, dtype=np.int64)[frame["seed"]])
    for position, (name, value) in enumerate(labels.items()):
        frame.insert(position, name, pd.Categorical([value] * len(frame)))
    return frame
