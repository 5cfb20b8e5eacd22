"""The verdicts on the papers' claims: found, and of each the widest scale at which it is tested.

The verdicts of a paper at a scale are the output `claims` of its stage `<paper>.claims`
(`diffmbrl.stats.claims.write`), one row per claim.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline.rule import fill
from diffmbrl.pipeline.workflow import Bound, Workflow
from diffmbrl.stats.kinds import ABSENT, KINDS

TEXTS = ("id", "place", "statement", "verdict", "reason", "interval", "test", "figure", "tables")
_PART = re.compile(rf"(.*?) ({'|'.join(KINDS)}) \((.*)\)", re.S)
NUMBERS = ("estimate", "low", "high", "p", "power")


@dataclass(frozen=True)
class Part:
    """One of several places in which a claim is to hold: its name, verdict and reason."""

    name: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, as a row of a paper's table says it.

    Attributes:
        paper: its key.
        scale: whose data decided.
        same_scales: the scale, `laptop = paper` where the settings are those of the widest.
        elsewhere: the verdicts at narrower scales, where it is tested there too.
        id, place, statement, verdict, reason, interval, n, test, figure, tables: as in
            `diffmbrl.stats.claims`; figure is the name of a rule.
        estimate, low, high, p, power: numbers, None where there is none.
    """

    paper: str
    scale: str
    same_scales: str
    elsewhere: Mapping[str, str]
    id: str
    place: str
    statement: str
    verdict: str
    reason: str
    interval: str
    test: str
    figure: str
    tables: str
    n: int
    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    power: float | None

    @property
    def parts(self) -> list[Part]:
        """The places of a claim over several, as `diffmbrl.stats.claims.every` tells them."""
        pieces, depth = [""], 0
        for letter in self.reason:
            depth += (letter == "(") - (letter == ")")
            if letter == ";" and depth == 0:
                pieces.append("")
            else:
                pieces[-1] += letter
        found = [_PART.fullmatch(piece.strip()) for piece in pieces]
        return [Part(*match.groups()) for match in found if match] if all(found) else []

    @property
    def decides(self) -> Part | None:
        """The part whose verdict, and numbers, the claim has; None where it is over one place."""
        parts = self.parts
        return next(
            (part for part in parts if part.verdict == self.verdict), next(iter(parts), None)
        )


def rule_of(work: Workflow, paper: str) -> Bound:
    """The rule that judges a paper's claims.

    Raises:
        UserError: the paper has none.
    """
    found = work.by_stage.get(f"{paper}.claims")
    if found is None or "claims" not in found.outputs:
        raise UserError(f"{paper}: no rule of stage {paper}.claims makes an output `claims`")
    return found


def table_of(work: Workflow, paper: str, scale: str) -> Path:
    """Where a paper's verdicts at a scale lie."""
    return Path(fill(rule_of(work, paper).outputs["claims"], {"scale": scale}))


def of_paper(work: Workflow, paper: str, scale: str | None = None) -> list[Judged]:
    """The verdicts on a paper's claims, in the order of its widest table.

    Args:
        work: the workflow.
        paper: its key.
        scale: only this one counts; None: of each claim the widest at which it is tested.

    Raises:
        UserError: there is no table, or no such scale of the paper; the message says what helps.
    """
    ours = work.config.scales_of(paper)
    scales = [scale] if scale else [s for s in work.config.judged if s in ours]
    if not scales:
        judged = ", ".join(work.config.judged)
        known = ", ".join(ours) or "none"
        raise UserError(f"{paper}: none of judged = {judged} has it; scales that do: {known}")
    homes = list(dict.fromkeys(work.config.home_of(paper, s) for s in scales))
    tables = {home: table_of(work, paper, home) for home in homes}
    found = {home: _read(work, paper, home) for home in homes if tables[home].is_file()}
    if not found:
        path = tables[homes[-1]]
        raise UserError(f"{path}: not there; `snakemake --cores 2 {path}` makes it")
    ids = dict.fromkeys(judged.id for rows in found.values() for judged in rows)
    return [_widest([j for rows in found.values() for j in rows if j.id == key]) for key in ids]


def of_all(
    work: Workflow, papers: Sequence[str], scale: str | None = None
) -> tuple[dict[str, list[Judged]], list[str]]:
    """The verdicts of several papers, and for each paper without any a line that says why.

    Raises:
        UserError: none of them has any.
    """
    found, missing = {}, []
    for paper in papers:
        try:
            found[paper] = of_paper(work, paper, scale)
        except DataError:
            raise
        except UserError as error:
            missing.append(str(error))
    if not found:
        raise UserError("; ".join(missing))
    return found, missing


def counts(judged: Iterable[Judged | Part]) -> dict[str, int]:
    """How many claims, or parts of one, have each verdict."""
    found = [j.verdict for j in judged]
    return {kind: found.count(kind) for kind in KINDS}


def summed(judged: Iterable[Judged | Part]) -> str:
    """The counts in words, such as `3 agree, 1 inconclusive`."""
    return ", ".join(
        f"{n} {kind if n == 1 else kind.removesuffix('s')}"
        for kind, n in counts(judged).items()
        if n
    )


def _widest(rows: Sequence[Judged]) -> Judged:
    """Of the verdicts on one claim, widest scale first, the first that is one.

    One that a narrower scale gives in the same words and numbers goes by that scale: the data that
    decide it are the same. Where none is, the last that says why of runs that there are, or the
    last.
    """
    tested = [row for row in rows if row.verdict != "not tested"]
    if not tested:
        return ([row for row in rows if row.reason != ABSENT] or rows)[-1]
    best = next(row for row in reversed(tested) if row.reason == tested[0].reason)
    others = {row.scale: row.verdict for row in tested if row.reason != best.reason}
    return Judged(**{**vars(best), "elsewhere": others})


def _read(work: Workflow, paper: str, scale: str) -> list[Judged]:
    path, config = table_of(work, paper, scale), work.config
    widest = config.judged[0]
    same = widest in config.scales_of(paper) and config.home_of(paper, widest) == scale
    label = f"{scale} = {widest}" if same and scale != widest else scale
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        missing = {*TEXTS, *NUMBERS, "n"}.difference(table.fieldnames or ())
        if missing:
            raise DataError(
                f"{path}: column {min(missing)!r} is missing, so it is no table of claims; "
                f"`snakemake --cores 2 {path}` makes it"
            )
        return [_judged(row, path, paper, scale, label) for row in table]


def _judged(row: Mapping[str, str], path: Path, paper: str, scale: str, label: str) -> Judged:
    if row["verdict"] not in KINDS:
        raise DataError(f"{path}: claim {row['id']}: verdict {row['verdict']!r} is none of {KINDS}")
    texts = {name: row[name] for name in TEXTS}
    try:
        numbers = {name: _finite(row[name]) for name in NUMBERS}
        n = int(row["n"])
    except ValueError as error:
        raise DataError(f"{path}: claim {row['id']}: {error}") from None
    return Judged(paper, scale, label, {}, **texts, n=n, **numbers)  # type: ignore[arg-type]


def _finite(text: str) -> float | None:
    number = float(text or "nan")
    return number if math.isfinite(number) else None
