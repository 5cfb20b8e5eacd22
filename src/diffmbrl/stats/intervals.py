"""Point estimates over seeds and their intervals."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

Statistic = Callable[[np.ndarray], np.ndarray]


def iqm(values: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch"]:
    """The interquartile mean: the mean of the middle half, quarters cut fractionally.

    With n values, n / 4 are cut from either end; a value on the cut counts in part. (Agarwal
    et al. 2021 recommend it over few runs; scipy's trim_mean cuts whole values only.)
    """
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    edges = np.clip(np.arange(n + 1), n / 4, 3 * n / 4)
    return ordered @ np.diff(edges) / (n / 2)


def bootstrap(
    values: Float[np.ndarray, " n"],
    rng: np.random.Generator,
    statistic: Statistic = iqm,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over runs.

    Args:
        values: one per run.
        rng: makes the interval a function of its seed.
        statistic: acts on the last axis.
        level: probability that the interval is meant to have.
        resamples: how many resamples of the runs are drawn.

    Returns:
        The interval's ends; both NaN unless all values are finite.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or not np.all(np.isfinite(values)):
        return float("nan"), float("nan")
    drawn = statistic(values[rng.integers(len(values), size=(resamples, len(values)))])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of the finite values and its 95% bootstrap interval, the same at every call.

    Returns:
        Mean and the interval's ends; all NaN where no value is finite.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return float("nan"), float("nan"), float("nan")
    low, high = bootstrap(finite, np.random.default_rng(0), lambda drawn: drawn.mean(axis=-1))
    return float(np.mean(finite)), low, high
