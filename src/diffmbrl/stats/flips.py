"""Whether paired runs are two draws of one process: an exact test by sign flips.

If nothing but rounding differs between two machines, which of a pair of runs came from which is
a coin's toss. So within each setting (axes but for seed and step) the values of both sides are
ranked together, and a run's difference of ranks, new minus old, is as likely as its negative. The
statistic is the sum over runs, of all settings together, over its standard deviation under flips;
its p-value is exact (up to 2^12 flips, all are taken; else a sample that counts the observed).

- The metrics share their flips, and the largest statistic over metrics is what p refers to. A fifth
  of the false alarms is spent on parts: the settings at one value of one axis.
- What flips is a run: the rows that share the axes up to and including the seed. Runs of one seed
  that share a number that differs (a reference computed once) flip together.
- A difference that is rounding, or below a hundredth of the setting's standard error, is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from diffmbrl.stats.rounding import FLOAT64, relative

SEED, STEP = "seed", "step"
ALARM = 0.01  # probability that two draws of one process are said to differ
PARTS = 0.2  # of it, for parts of the table
USEFUL = 0.5  # power from which on silence says something: it halves the odds of such a bias
FLIPS = 4000
EXACT = 12  # runs, up to which all flips are taken
PLANTED = 200  # simulated tables from which a power is estimated
AT_ONCE = 10**6  # rows of simulated tables in memory
SMALL = 0.01  # of a standard error, a difference that is none
MANY = 64  # an axis with more values than this is not cut into parts


@dataclass(frozen=True)
class Told:
    """What the flips tell.

    Attributes:
        runs: how many flip on their own.
        p: how often two draws of one process differ as much somewhere.
        where: the metric and part that differ most, and by how much.
        power: by metric, how often a bias of one standard error in every setting is seen.
    """

    runs: int
    p: float
    where: str
    power: dict[str, float]


@dataclass(frozen=True)
class Runs:
    """Rows at the last step, by setting and by run.

    Attributes:
        setting: of each row, a number from 0.
        run: of each row, a number from 0.
    """

    setting: Int[np.ndarray, " rows"]
    run: Int[np.ndarray, " rows"]

    def totals(self, old: np.ndarray, new: np.ndarray) -> Float[np.ndarray, " runs"]:
        """The sum over each run's rows of the difference of ranks within settings."""
        return np.bincount(self.run, self.ranks(old, new), self.run.max() + 1)

    def ranks(self, old: np.ndarray, new: np.ndarray) -> Float[np.ndarray, " rows"]:
        """Rank of new minus rank of old among all values of a setting, over their number."""
        values, setting = np.concatenate([old, new]), np.tile(self.setting, 2)
        order = np.lexsort((values, setting))
        v, s = values[order], setting[order]
        starts = np.flatnonzero(np.r_[True, (v[1:] != v[:-1]) | (s[1:] != s[:-1])])
        ends = np.r_[starts[1:], len(v)]
        rank = np.empty(len(v))
        rank[order] = np.repeat((starts + ends - 1) / 2, ends - starts)
        return (rank[len(old) :] - rank[: len(old)]) / np.bincount(setting)[self.setting]

    def standard_errors(self, values: np.ndarray) -> Float[np.ndarray, " rows"]:
        """Of the mean of each row's setting over its finite values; 0 where there is but one."""
        finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
        with np.errstate(all="ignore"):
            groups = finite.groupby(self.setting)
            errors = (groups.std() / np.sqrt(groups.count())).to_numpy()
        return np.where(np.isfinite(errors), errors, 0.0)[self.setting]


def compare(
    old: pd.DataFrame,
    new: pd.DataFrame,
    axes: Sequence[str],
    rng: np.random.Generator,
) -> Told:
    """Whether two paired tables are two draws of one process, and at what power.

    Args:
        old: the axes, seed among them, and metrics.
        new: the same rows in the same order.
        axes: the columns that identify a row.
        rng: of the flips.
    """
    old, new = _last(old.reset_index(drop=True), new.reset_index(drop=True), axes)
    metrics = [c for c in old.columns if c not in axes and old[c].dtype.kind in "biuf"]
    setting = [c for c in axes if c not in (SEED, STEP)]
    upto = list(axes[: list(axes).index(SEED) + 1])
    by_row = Runs(_number(old, setting), _number(old, upto))
    values = {m: _values(by_row, old[m], new[m]) for m in metrics}
    values = {m: (a, b) for m, (a, b) in values.items() if (a != b).any()}
    if not values:
        return Told(int(by_row.run.max()) + 1, 1.0, "nothing", {})
    runs = Runs(by_row.setting, _together(by_row.run, old[SEED].to_numpy(), values))
    n = int(runs.run.max()) + 1
    signs = _signs(n, rng)
    ranks = {m: runs.ranks(a, b) for m, (a, b) in values.items()}
    whole = np.stack([np.bincount(runs.run, r, n) for r in ranks.values()], axis=1)
    parts, names = _parts(old, [c for c in setting if c in old], runs.run, ranks)
    p_whole, most = _p(whole, signs)
    p_parts, _ = _p(parts, signs)
    p = np.concatenate([p_whole / (1 - PARTS), p_parts / PARTS])
    places = [(metric, "all settings") for metric in ranks] + names
    worst = int(p.argmin())
    metric, place = places[worst]
    power = {m: _power(runs, *values[m], _bar(most), rng) for m in values}
    where = f"{metric}, {place}{_bias(runs, *values[metric], _rows(old, place))}"
    return Told(n, min(1.0, float(p[worst])), where, power)


def _last(
    old: pd.DataFrame, new: pd.DataFrame, axes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows at the last step of each run."""
    if STEP not in axes:
        return old, new
    others = [c for c in axes if c != STEP]
    last = old.groupby(others, dropna=False, observed=True)[STEP].transform("max") == old[STEP]
    return old[last].reset_index(drop=True), new[last].reset_index(drop=True)


def _number(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    if not columns:
        return np.zeros(len(frame), int)
    return frame.groupby(columns, dropna=False, observed=True).ngroup().to_numpy()


def _values(runs: Runs, old: pd.Series, new: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """A metric on both sides, NaN as infinity; in rows that hardly differ, the same number."""
    a, b = (np.nan_to_num(s.to_numpy(float), nan=np.inf, posinf=np.inf) for s in (old, new))
    both = Runs(np.tile(runs.setting, 2), np.tile(runs.run, 2))
    error = both.standard_errors(np.concatenate([a, b]))[: len(a)] * np.sqrt(2)
    with np.errstate(invalid="ignore"):
        none = (relative(a, b) <= FLOAT64) | (np.abs(a - b) <= SMALL * error)
    return a, np.where(none, a, b)


def _together(
    run: np.ndarray, seed: np.ndarray, values: dict[str, tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Runs, joined where they share a seed and a pair of unequal numbers."""
    joined, shared, first = [run], [run], int(run.max()) + 1
    for a, b in values.values():
        rows = np.flatnonzero((a != b) & np.isfinite(a) & np.isfinite(b) & (a != np.rint(a)))
        key = pd.DataFrame({"seed": seed[rows], "a": a[rows], "b": b[rows]})
        keys = key.groupby(["seed", "a", "b"]).ngroup().to_numpy()
        joined.append(run[rows])
        shared.append(first + keys)
        first += int(keys.max(initial=-1)) + 1
    i, j = np.concatenate(joined), np.concatenate(shared)
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(first, first))
    label = connected_components(graph, directed=False)[1][run]
    return np.unique(label, return_inverse=True)[1]


def _signs(n: int, rng: np.random.Generator) -> np.ndarray:
    """Flips of n runs, the unflipped first."""
    if n <= EXACT:
        return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return np.vstack([np.ones(n), rng.choice([-1.0, 1.0], size=(FLIPS - 1, n))])


def _p(totals: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By column, p over the largest of all columns; and that largest, for every flip."""
    spread = np.sqrt((totals**2).sum(axis=0))
    z = np.abs(signs @ (totals / np.where(spread > 0, spread, 1.0)))
    most = z.max(axis=1, initial=0.0)
    return (most[:, None] >= z[0] - 1e-9).mean(axis=0), most


def _bar(most: np.ndarray) -> float:
    """What a statistic must exceed for an alarm about the whole table."""
    allowed = int(ALARM * (1 - PARTS) * len(most))
    return float(np.sort(most)[len(most) - allowed]) if allowed else np.inf


def _parts(
    frame: pd.DataFrame, axes: list[str], run: np.ndarray, ranks: dict[str, np.ndarray]
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    columns, names, n = [], [], int(run.max()) + 1
    for axis in axes:
        levels = frame[axis].unique()
        for level in levels if 1 < len(levels) <= MANY else ():
            here = (frame[axis] == level).to_numpy()
            columns += [np.bincount(run[here], r[here], n) for r in ranks.values()]
            names += [(metric, f"{axis}={level}") for metric in ranks]
    return (np.stack(columns, axis=1) if columns else np.zeros((n, 0))), names


def _rows(frame: pd.DataFrame, place: str) -> np.ndarray:
    axis, equals, level = place.partition("=")
    return (frame[axis].astype(str) == level).to_numpy() if equals else np.ones(len(frame), bool)


def _bias(runs: Runs, old: np.ndarray, new: np.ndarray, rows: np.ndarray) -> str:
    error = runs.standard_errors(old)
    with np.errstate(all="ignore"):
        bias = ((new - old) / error)[rows]
    bias = bias[np.isfinite(bias)]
    size = f" by {np.median(bias):+.2g} standard errors (median)" if len(bias) else ""
    up, down = int((new > old)[rows].sum()), int((new < old)[rows].sum())
    return f"{size}, {up} rows higher and {down} lower"


def _power(
    runs: Runs, old: np.ndarray, new: np.ndarray, bar: float, rng: np.random.Generator
) -> float:
    """How often a bias of one standard error in every setting lifts the statistic to the bar."""
    if not np.isfinite(bar):
        return 0.0
    bias = runs.standard_errors(old)
    n, seen = int(runs.run.max()) + 1, 0
    at_once = min(PLANTED, max(1, AT_ONCE // len(old)))
    for first in range(0, PLANTED, at_once):
        k = min(at_once, PLANTED - first)
        swap = (rng.random((k, n)) < 0.5)[:, runs.run]
        a, b = np.where(swap, new, old).ravel(), (np.where(swap, old, new) + bias).ravel()
        tables = np.repeat(np.arange(k), len(old))
        many = Runs(
            np.tile(runs.setting, k) + tables * (runs.setting.max() + 1),
            np.tile(runs.run, k) + tables * n,
        )
        totals = many.totals(a, b).reshape(k, n)
        spread = np.sqrt((totals**2).sum(axis=1))
        seen += int((np.abs(totals.sum(axis=1)) >= bar * spread - 1e-9).sum())
    return seen / PLANTED
