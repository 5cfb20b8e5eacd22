"""Agree: rebuilt results against released ones, each with one verdict.

Results are judged by their numbers (`diffmbrl.stats.agreement`). What is made from them follows
them: statistics whose numbers moved differ where nothing that they are made from did, or where
that differs; figures are but redrawn.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import manifests, released
from diffmbrl.pipeline.files import hashing
from diffmbrl.pipeline.proof import Manifest

CODE = 7
SEED = 20220222  # of the sign flips
REDRAWN = "redrawn"
PICTURES = {".pdf", ".png", ".svg"}
FIRST = tuple(folder.as_posix() for folder in LAYOUT.versioned)  # judged by their own numbers


@dataclass(frozen=True)
class Judged:
    """The verdict on one output.

    Attributes:
        path: of the output.
        kind: same bytes, same numbers, same distribution, cannot be told, redrawn or differs.
        detail: to what rounding, at what power, or what differs.
        rounding: the largest relative difference that counted as none.
        p: of the test, where one was made.
        power: of it, by metric.
    """

    path: str
    kind: str
    detail: str = ""
    rounding: float = 0.0
    p: float | None = None
    power: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """All verdicts, in the order of paths, and what only one side has.

    Attributes:
        release: what was compared with.
        judged: one for each output that both sides have.
        not_here: released outputs that the working tree lacks.
        not_released: outputs that have no released manifest.
    """

    release: str
    judged: tuple[Judged, ...]
    not_here: tuple[str, ...]
    not_released: tuple[str, ...]

    @property
    def code(self) -> int:
        """7 where something differs, otherwise 0."""
        return CODE if any(judged.kind == "differs" for judged in self.judged) else 0

    @property
    def counts(self) -> dict[str, int]:
        """How many outputs have each verdict."""
        return dict(Counter(judged.kind for judged in self.judged))


def agree(place: str = "HEAD") -> Agreement:
    """Compares the outputs in the working tree with released ones.

    Args:
        place: a commit, or the folder of another checkout.

    Raises:
        UserError: there is no such place, or its bytes are not at hand.
    """
    release = released.of(place)
    here = {o for o in manifests.outputs_on_disk() if not LAYOUT.is_intermediate(o)}
    there = [o for o in release.manifests if not LAYOUT.is_intermediate(o)]
    both = [output for output in there if output in here]
    with hashing() as digest:
        moved = [o for o in both if digest(Path(o)) != release.manifests[o].sha256]
    judged = {o: Judged(o, "same bytes") for o in both if o not in moved}
    pictures = [o for o in moved if Path(o).suffix in PICTURES]
    tables = _bytes(release, [o for o in moved if o not in pictures])
    judged |= _judge_results({o: d for o, d in tables.items() if o.startswith(FIRST)})
    for output in _in_order([o for o in tables if o not in judged], release.manifests):
        judged[output] = _follow(output, tables[output], release.manifests[output], judged)
    for output in pictures:
        judged[output] = _redrawn(output, release.manifests[output], judged)
    return Agreement(
        release.name,
        tuple(judged[output] for output in sorted(judged)),
        tuple(output for output in there if output not in here),
        tuple(sorted(here.difference(there))),
    )


def _bytes(release: released.Release, outputs: list[str]) -> dict[str, bytes]:
    found = {}
    for output in outputs:
        try:
            found[output] = release.bytes(output)
        except released.Absent as error:
            raise UserError(f"agree: {output} cannot be compared: {error}") from None
    return found


def _judge_results(old: Mapping[str, bytes]) -> dict[str, Judged]:
    """Verdicts on data sets and results, those of one paper with the same columns together."""
    import numpy as np

    from diffmbrl.stats.agreement import judge_many

    families: dict[tuple, dict[str, Any]] = {}
    for output, data in old.items():
        pair = _table(output, data), _table(output, Path(output).read_bytes())
        key = (*Path(output).parts[:4], Path(output).suffix, *pair[0].columns)
        families.setdefault(key, {})[output] = pair
    judged = {}
    for family in families.values():
        for output, verdict in judge_many(family, rng=np.random.default_rng(SEED)).items():
            judged[output] = Judged(output, **asdict(verdict))
    return judged


def _follow(output: str, old: bytes, made: Manifest, judged: Mapping[str, Judged]) -> Judged:
    """The verdict on a table without runs, from its numbers and from what it is made of."""
    import numpy as np

    from diffmbrl.stats import agreement

    behind = _behind(made, judged)
    verdict = agreement.judge(
        _table(output, old), _table(output, Path(output).read_bytes()),
        rng=np.random.default_rng(SEED),
        least=max((j.rounding for j in behind), default=0.0),
    )  # fmt: skip
    if verdict.kind != agreement.CANNOT_TELL:
        return Judged(output, **asdict(verdict))
    kind, why = _cause(behind, len(behind) == len(made.inputs))
    return Judged(output, kind, why + verdict.detail.removeprefix(agreement.NO_SEEDS))


def _cause(behind: list[Judged], all_known: bool) -> tuple[str, str]:
    """The verdict on numbers that moved, by what they are made from, and why."""
    from diffmbrl.stats.agreement import CANNOT_TELL, DIFFERS, SAME_DISTRIBUTION

    for kind in (DIFFERS, CANNOT_TELL, SAME_DISTRIBUTION):
        for judged in behind:
            if judged.kind == kind:
                return kind, f"made from {judged.path}: "
    if all_known:
        return DIFFERS, "though nothing that it is made from does: "
    return CANNOT_TELL, "what it is made from is not on both sides: "


def _redrawn(output: str, made: Manifest, judged: Mapping[str, Judged]) -> Judged:
    kinds = Counter(judged.kind for judged in _behind(made, judged))
    behind = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "nothing that was compared"
    return Judged(output, REDRAWN, f"drawn from: {behind}")


def _behind(made: Manifest, judged: Mapping[str, Judged]) -> list[Judged]:
    """The verdicts on an output's inputs."""
    return [judged[e.path] for e in made.inputs if e.path in judged]


def _in_order(outputs: list[str], known: Mapping[str, Manifest]) -> Iterator[str]:
    """Outputs, each after those of them that it is made from."""
    waiting = dict.fromkeys(outputs)
    while waiting:
        needs = {o: {e.path for e in known[o].inputs} for o in waiting}
        ready = [o for o in waiting if not needs[o] & waiting.keys()] or list(waiting)
        for output in ready:
            del waiting[output]
            yield output


def _table(output: str, data: bytes):
    """An output as a table: Parquet and CSV as they are, JSON with a row for each value."""
    import pandas as pd

    kind = Path(output).suffix
    try:
        if kind == ".parquet":
            return pd.read_parquet(io.BytesIO(data))
        if kind == ".csv":
            return pd.read_csv(io.BytesIO(data), keep_default_na=False, na_values=["", "nan"])
        if kind == ".json":
            rows = list(_leaves(json.loads(data), ""))
            return pd.DataFrame(rows, columns=["key", "value", "text"])
    except (OSError, ValueError) as error:
        raise UserError(f"{output}: not a whole {kind[1:]} file ({error})") from None
    raise UserError(f"{output}: agree knows no {kind or 'such'} files")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, float, str]]:
    """Every number and text of nested JSON, by its place."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in inner:
            yield from _leaves(part, f"{key}/{name}")
    elif isinstance(value, int | float):
        yield key, float(value), ""
    else:
        yield key, float("nan"), str(value)
