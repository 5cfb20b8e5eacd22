"""Claims of a paper as data, and the verdicts that tables give them.

Every test is two-sided at 1% and every interval has 99%: of claims whose truth lies on the bar, one
in a hundred gets a verdict by chance, whatever their number. An interval that excludes the bar
decides; one that does not is inconclusive, and the verdict says how many values would settle it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from diffmbrl import tables
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.kinds import ABSENT, Kind

LEVEL = 0.99
POWER = 0.8  # at which "would settle it" is counted
MOST = 10_000  # values; what would take more is called hopeless


@dataclass(frozen=True)
class Verdict:
    """What the tables say of a claim.

    Attributes:
        verdict: the verdict.
        reason: one sentence: what was found, and what would settle it where it is open.
        estimate: the number that decides, NaN where there is none.
        low, high: its interval.
        interval: what kind of interval, such as `99% t`.
        n: how many independent values the estimate rests on.
        test: the test in words.
        p: its two-sided p value.
        power: probability that the test, with this n and scatter, sees an effect that matters.
    """

    verdict: Kind
    reason: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    n: int = 0
    test: str = ""
    p: float = math.nan
    power: float = math.nan

    def because(self, text: str) -> "Verdict":
        """The same verdict, its reason preceded by what was compared."""
        return replace(self, reason=f"{text}: {self.reason}")


@dataclass(frozen=True)
class Claim:
    """A statement of a paper that can be checked.

    Attributes:
        id: such as `I17`.
        place: where it stands in the paper.
        statement: what it says, in our words.
        judge: gives a verdict from the tables, which it is called with by name.
        tables: inputs of the stage that the judge reads.
        figure: name of the figure's rule, such as `fig_implicit_2`; empty where none shows it.
    """

    id: str
    place: str
    statement: str
    judge: Callable[..., Verdict]
    tables: tuple[str, ...] = ()
    figure: str = ""

    def verdict(self, found: Mapping[str, pd.DataFrame]) -> Verdict:
        """The verdict from the tables of the stage; a scale may lack some."""
        if set(self.tables) - set(found):
            return Verdict("not tested", ABSENT)
        return self.judge(**{name: found[name] for name in self.tables})


def write(claims: Sequence[Claim], job: Job) -> None:
    """The stage: judges every claim and writes `claims.csv`, one row per claim."""
    found = {name: pd.concat(map(_read, paths)) for name, paths in job.inputs.items() if paths}
    rows = [
        {
            "id": claim.id,
            "place": claim.place,
            "statement": claim.statement,
            **asdict(claim.verdict(found)),
            "figure": claim.figure,
            "tables": " ".join(claim.tables),
        }
        for claim in claims
    ]
    tables.write_csv(pd.DataFrame(rows), job.outputs["claims"])


def _read(path: Path) -> pd.DataFrame:
    return tables.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def above(values: ArrayLike, bar: float, relevant: float, unit: str = "") -> Verdict:
    """Whether the mean of independent values lies above a bar, by Student's t.

    Args:
        values: one per seed, paired differences or the like.
        bar: what the mean must exceed to agree.
        relevant: smallest distance from the bar that matters; power is that of seeing it.
        unit: printed after numbers.
    """
    x = np.asarray(values, dtype=float)
    if broken := _unusable(x):
        return broken
    mean, low, high = t_interval(x)
    p = _t_test(x, bar)
    deviation = float(np.std(x, ddof=1))
    kind: Kind = "agrees" if low > bar else "disagrees" if high < bar else "inconclusive"
    text = f"{mean:.3g}{unit} [{low:.3g}, {high:.3g}] against {bar:g}{unit}, n = {len(x)}"
    if kind == "inconclusive":
        text += "; " + _settles(deviation, relevant, f"a distance of {relevant:g}{unit}")
    power = t_power(len(x), deviation, relevant)
    return Verdict(kind, text, mean, low, high, "99% t", len(x), "one-sample t", p, power)


def below(values: ArrayLike, bar: float, relevant: float, unit: str = "") -> Verdict:
    """Whether the mean of independent values lies below a bar, by Student's t; as `above`."""
    return _turned(above(values, bar, relevant, unit))


def same(values: ArrayLike, margin: float, unit: str = "") -> Verdict:
    """Whether the mean of differences is negligible: its 99% interval within +-margin.

    It disagrees where the interval lies outside the margin, and is inconclusive in between.
    """
    x = np.asarray(values, dtype=float)
    if broken := _unusable(x):
        return broken
    mean, low, high = t_interval(x)
    deviation = float(np.std(x, ddof=1))
    if -margin < low and high < margin:
        kind: Kind = "agrees"
    else:
        kind = "disagrees" if low > margin or high < -margin else "inconclusive"
    text = f"{mean:.3g}{unit} [{low:.3g}, {high:.3g}], margin {margin:g}{unit}, n = {len(x)}"
    if kind == "inconclusive":
        text += "; " + _settles(deviation, margin, f"a difference of {margin:g}{unit}")
    p = _t_test(x, 0)
    power = t_power(len(x), deviation, margin)
    return Verdict(kind, text, mean, low, high, "99% t", len(x), "equivalence by t", p, power)


def share(successes: int, n: int, bar: float, relevant: float) -> Verdict:
    """Whether a probability lies above a bar, by the exact binomial (Clopper-Pearson).

    Args:
        successes: how many of n.
        n: how many were tried.
        bar: what the probability must exceed to agree.
        relevant: smallest distance from the bar that matters; power is that of seeing it.
    """
    if n < 1:
        return Verdict("not tested", "there are no values")
    low, high = binomial_interval(successes, n)
    kind: Kind = "agrees" if low > bar else "disagrees" if high < bar else "inconclusive"
    text = f"{successes} of {n} [{low:.3g}, {high:.3g}] against {bar:g}"
    truth = min(bar + relevant, 1.0)
    power = float(binomial_power(n, bar, truth))
    if kind == "inconclusive":
        sizes = np.arange(n + 1, 1001)
        enough = sizes[binomial_power(sizes, bar, truth) >= POWER]
        more = f"{enough[0]} runs would tell {truth:g}" if len(enough) else ""
        text += f"; {more or '1,000 runs would not tell'}"
    p = float(stats.binomtest(successes, n, bar).pvalue)
    kinds = ("99% Clopper-Pearson", n, "exact binomial")
    return Verdict(kind, text, successes / n, low, high, *kinds, p, power)


def holds(worst: float, bar: float, n: int, what: str) -> Verdict:
    """Whether a statement without sampling error holds in every instance: worst at most the bar.

    Args:
        worst: the largest violation found (NaN: one could not be computed).
        bar: the largest that rounding and the statement allow.
        n: how many instances were looked at.
        what: what is compared, in words.
    """
    if n < 1:
        return Verdict("not tested", "there are no values")
    kind: Kind = "agrees" if worst <= bar else "disagrees"
    text = f"{what}: worst of {n} is {worst:.3g}, allowed {bar:.3g}"
    return Verdict(
        kind, text, worst, interval="none: every instance counts", n=n, test="worst case"
    )


def less(one: pd.Series, other: pd.Series) -> pd.Series:
    """Differences of paired runs, such as of equal seeds, where both were run.

    Where either diverged the difference is NaN: it is counted, and keeps a claim from a verdict.

    Args:
        one, other: values, by what pairs them (the index, each entry once).
    """
    both = pd.concat([one, other], axis=1, join="inner", keys=["one", "other"])
    return both["one"] - both["other"]


def every(parts: Mapping[str, Verdict]) -> Verdict:
    """A claim that is to hold in each of several places, such as domains.

    It disagrees where it disagrees in one, agrees where it agrees in all; numbers are those of
    the part that decides.
    """
    decides = _first(parts, ["disagrees", "not tested", "inconclusive", "agrees"])
    if decides.verdict == "not tested" and any(
        part.verdict != "not tested" for part in parts.values()
    ):
        decides = replace(decides, verdict="inconclusive")
    return replace(decides, reason=_told(parts))


def some(parts: Mapping[str, Verdict]) -> Verdict:
    """A claim that is to hold in one of several places at least ("is not necessarily").

    It agrees where it agrees in one, disagrees where it disagrees in all that were tested; numbers
    are those of the part that decides. Each part is tested at 1%: false agreement is at most 1% per
    part.
    """
    decides = _first(parts, ["agrees", "inconclusive", "disagrees", "not tested"])
    return replace(decides, reason=_told(parts))


def _first(parts: Mapping[str, Verdict], order: Sequence[Kind]) -> Verdict:
    return min(parts.values(), key=lambda part: order.index(part.verdict))


def _told(parts: Mapping[str, Verdict]) -> str:
    return "; ".join(f"{key} {part.verdict} ({part.reason})" for key, part in parts.items())


def t_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean and Student's t interval of independent values, at least two of them."""
    x = np.asarray(values, dtype=float)
    mean, error = float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))
    half = float(special.stdtrit(len(x) - 1, (1 + level) / 2)) * error
    return mean, mean - half, mean + half


def _t_test(values: np.ndarray, bar: float) -> float:
    """Two-sided p of Student's t test that the mean is at a bar."""
    if np.ptp(values) == 0:
        return float(values.mean() == bar)
    n = len(values)
    t = (values.mean() - bar) / (values.std(ddof=1) / math.sqrt(n))
    return float(2 * special.stdtr(n - 1, -abs(t)))


def binomial_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a probability."""
    found = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def t_power(n: int, deviation: float, effect: float, level: float = LEVEL) -> float:
    """Probability that a t interval of n values excludes a bar that is `effect` away."""
    if deviation == 0:
        return 1.0
    cut = special.stdtrit(n - 1, (1 + level) / 2)
    return 1 - float(special.nctdtr(n - 1, abs(effect) / deviation * math.sqrt(n), cut))


def binomial_power(n: ArrayLike, bar: float, truth: float) -> np.ndarray:
    """Probability that the exact interval of n tries lies above a bar, if `truth` is so."""
    # low(k) > bar exactly where k or more successes have a probability below (1 - LEVEL) / 2.
    k = stats.binom.isf((1 - LEVEL) / 2, n, bar) + 1
    return stats.binom.sf(k - 1, n, truth)


def values_needed(deviation: float, effect: float) -> int | None:
    """Values with which a t interval sees an effect 4 times in 5; None above `MOST`."""
    sizes = np.unique(np.geomspace(2, MOST, 200).astype(int))
    index = bisect_left(sizes, POWER, key=lambda n: t_power(int(n), deviation, effect))
    return int(sizes[index]) if index < len(sizes) else None


def _settles(deviation: float, effect: float, what: str) -> str:
    n = values_needed(deviation, effect)
    return f"about {n} values would tell {what}" if n else f"{MOST:,} values would not tell {what}"


def _turned(verdict: Verdict) -> Verdict:
    other: dict[Kind, Kind] = {"agrees": "disagrees", "disagrees": "agrees"}
    return replace(verdict, verdict=other.get(verdict.verdict, verdict.verdict))


def _unusable(values: np.ndarray) -> Verdict | None:
    """Why values cannot be judged, None where they can."""
    if len(values) < 2:
        return Verdict("not tested", f"{len(values)} values; at least 2 are needed", n=len(values))
    if broken := int(np.sum(~np.isfinite(values))):
        text = f"{broken} of {len(values)} values are not finite (runs that diverged)"
        return Verdict("inconclusive", text, n=len(values))
    return None
