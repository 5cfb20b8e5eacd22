"""Whether two tables of the same experiment agree: to rounding, or as two draws of one process.

A table's axes come first, its metrics after. Rows are paired by the axes. Numbers are the same
where they differ by no more than rounding (`stats.rounding`). Where they differ by more, as runs
do that are chaotic in their last bits, and the table has seeds, `stats.flips` decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from diffmbrl.stats import flips
from diffmbrl.stats.rounding import differences, rounding

SAME_BYTES = "same bytes"
SAME_NUMBERS = "same numbers"
SAME_DISTRIBUTION = "same distribution"
CANNOT_TELL = "cannot be told"
DIFFERS = "differs"
FILE = "<file>"  # the axis that tells tables apart which are tested as one
NO_SEEDS = "no seeds to tell a draw from a bias: "

Pair = tuple[pd.DataFrame, pd.DataFrame]


@dataclass(frozen=True)
class Verdict:
    """How two tables agree.

    Attributes:
        kind: one of this module's five.
        detail: to what rounding, at what power, or what differs where and by how much.
        rounding: the largest relative difference that counted as none.
        p: of the test, where one was made: how often two draws of one process differ so much.
        power: by metric, how often the test sees a bias of one standard error in every setting.
    """

    kind: str
    detail: str = ""
    rounding: float = 0.0
    p: float | None = None
    power: Mapping[str, float] = field(default_factory=dict)


def judge(
    old: pd.DataFrame,
    new: pd.DataFrame,
    *,
    axes: Sequence[str] | None = None,
    rng: np.random.Generator,
    least: float = 0.0,
) -> Verdict:
    """How two tables agree.

    Args:
        old: one table, such as the released one.
        new: the other.
        axes: the columns that identify a row; found by `axes_of` where not given.
        rng: of the sign flips.
        least: a rounding that every column is allowed at least.
    """
    verdict = _numbers(old, new, axes, least)
    return verdict or _distribution({"": (old, new)}, axes, rng)


def judge_many(pairs: Mapping[str, Pair], *, rng: np.random.Generator) -> dict[str, Verdict]:
    """Judges tables with the same columns; those that are other draws are tested as one.

    A row that several tables hold, the same on both sides, counts once.
    """
    verdicts = {name: _numbers(old, new, None, 0.0) for name, (old, new) in pairs.items()}
    drawn = [name for name, verdict in verdicts.items() if verdict is None]
    if drawn:
        together = _distribution({name: pairs[name] for name in drawn}, None, rng)
        verdicts |= dict.fromkeys(drawn, together)
    return {name: verdict for name, verdict in verdicts.items() if verdict is not None}


def axes_of(old: pd.DataFrame, new: pd.DataFrame) -> list[str] | None:
    """The shortest prefix of columns, seed and step within, that identifies rows in both tables.

    Returns:
        None where rows are not unique.
    """
    columns = list(old.columns)
    least = max((columns.index(c) + 1 for c in (flips.SEED, flips.STEP) if c in columns), default=1)
    for n in range(least, len(columns) + 1):
        if not any(frame.duplicated(columns[:n]).any() for frame in (old, new)):
            return columns[:n]
    return None


def _numbers(
    old: pd.DataFrame, new: pd.DataFrame, axes: Sequence[str] | None, least: float
) -> Verdict | None:
    """The verdict on two tables, unless they have seeds and may be two draws."""
    alone = [c for c in old.columns if c not in new] + [c for c in new.columns if c not in old]
    if alone:
        return Verdict(DIFFERS, f"only one side has column {', '.join(map(str, alone))}")
    axes = axes_of(old, new) if axes is None else list(axes)
    if axes is None:
        return Verdict(DIFFERS, "rows are not unique, so they cannot be paired")
    lacking = _lacking(old, new, axes)
    if lacking:
        return Verdict(DIFFERS, lacking)
    paired = _paired(old, new, axes)
    found = differences(*paired, least=least)
    if not found:
        used = sorted(set(rounding(*paired, least).values()))
        text = " or, in float32, ".join(f"{r:.0e}" for r in used)
        return Verdict(SAME_NUMBERS, f"to {text} of size" if used else "", max(used, default=0.0))
    texts = [d.column for d in found if d.worst is None]
    named = ", ".join(map(str, found[:3])) + (f" and {len(found) - 3} more" * (len(found) > 3))
    if flips.SEED not in axes:
        row = ", ".join(f"{c}={paired[0][c].iloc[found[0].row]}" for c in axes)
        return Verdict(CANNOT_TELL, f"{NO_SEEDS}{named} at {row}")
    return Verdict(DIFFERS, f"in {named}") if texts else None


def _lacking(old: pd.DataFrame, new: pd.DataFrame, axes: list[str]) -> str:
    """How many rows only one side has; empty where both have the same."""
    first, second = (_index(frame, axes) for frame in (old, new))
    less, more = (~first.isin(second)).sum(), (~second.isin(first)).sum()
    return f"{less} rows are only in the first, {more} only in the second" if less or more else ""


def _paired(old: pd.DataFrame, new: pd.DataFrame, axes: list[str]) -> Pair:
    """Both tables with the columns of the first, in the order of its rows."""
    where = _index(new, axes).get_indexer(_index(old, axes))
    return old.reset_index(drop=True), new[list(old.columns)].iloc[where].reset_index(drop=True)


def _index(frame: pd.DataFrame, axes: list[str]) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(_plain(frame[axes]))


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Without categories, whose order and extent are not values."""
    return frame.astype({c: str for c in frame.columns if frame[c].dtype == "category"})


def _distribution(
    pairs: Mapping[str, Pair], axes: Sequence[str] | None, rng: np.random.Generator
) -> Verdict:
    """The verdict on tables with seeds, paired row by row, whose numbers are not the same."""
    sides: tuple[list, list] = [], []
    longest: list[str] = []
    for name, (old, new) in pairs.items():
        keys = list(axes) if axes is not None else axes_of(old, new) or []
        longest = max(longest, keys, key=len)
        for side, frame in zip(sides, _paired(old, new, keys), strict=True):
            side.append(_plain(frame).assign(**{FILE: name}))
    a, b = (pd.concat(side, ignore_index=True) for side in sides)
    columns = [c for c in a.columns if c != FILE]
    once = ~pd.concat([a[columns], b[columns].add_suffix(" new")], axis=1).duplicated()
    told = flips.compare(a[once], b[once], [FILE, *longest], rng)
    if not told.power:
        return Verdict(SAME_DISTRIBUTION, f"the same at the last step; {told.runs} runs", p=told.p)
    seen = ", ".join(f"{metric} {power:.2f}" for metric, power in told.power.items())
    detail = f"{told.runs} runs, p {told.p:.2g}; power {seen}"
    if told.p <= flips.ALARM:
        return Verdict(DIFFERS, f"in {told.where}; {detail}", p=told.p, power=told.power)
    if max(told.power.values()) < flips.USEFUL:
        return Verdict(CANNOT_TELL, f"too few runs: {detail}", p=told.p, power=told.power)
    blind = [metric for metric, power in told.power.items() if power < flips.USEFUL]
    detail += f"; cannot be told for {', '.join(blind)}" if blind else ""
    return Verdict(SAME_DISTRIBUTION, detail, p=told.p, power=told.power)
