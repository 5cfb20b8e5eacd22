"""Whether results still are what their manifests prove, and what they would be today."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl import numerics
from diffmbrl.errors import DataError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import manifests, report, store
from diffmbrl.pipeline.files import Remembered, digest
from diffmbrl.pipeline.proof import Fingerprint, Manifest
from diffmbrl.pipeline.released import committed
from diffmbrl.pipeline.workflow import jobs_of

# Kinds of failure, gravest first: exit code, and what it means.
KINDS = {
    "manifest": (10, "a manifest is missing, damaged, edited by hand, or another output's"),
    "rewritten": (
        11,
        "the same work on the same platform is on record with other bytes",
    ),
    "swapped": (12, "an output has the bytes of another output"),
    "older": (13, "an output has the bytes of an earlier run"),
    "bytes": (14, "an output has bytes that no manifest knows: edited or damaged"),
    "missing": (15, "an output that a manifest names is not there, and not an intermediate one"),
    "chain": (16, "an output was made from other bytes than its inputs have now"),
    "code": (17, "an output was made by other code than today's"),
    "settings": (18, "an output was made with other settings than today's"),
    "lock": (19, "an output was made under another lock of requirements"),
    "orphan": (20, "no job of any scale makes an output that has a manifest"),
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, by kind."""

    path: str
    kind: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        checked: how many outputs have a sound manifest.
        problems: gravest first.
        accepted: what a person accepted.
        elsewhere: by platform, how many outputs were made on another one than this machine's.
    """

    checked: int
    problems: tuple[Problem, ...]
    accepted: tuple[Mapping[str, Any], ...]
    elsewhere: Mapping[str, int]

    @property
    def code(self) -> int:
        """0 where all is well, otherwise the exit code of the gravest kind found."""
        return KINDS[self.problems[0].kind][0] if self.problems else 0


def audit() -> Audit:
    """Rehashes everything, compares with manifests, records and today's code and config."""
    hashes = Rehashed()
    found, problems = _read_all()
    released = committed()
    known = {manifest.sha256: output for output, manifest in found.items()}
    today = {output: job.params for output, job in jobs_of(found).items()}
    for output, manifest in found.items():
        problems += check_bytes(manifest, hashes, known)
        problems += check_chain(manifest, found, hashes)
        problems += _check_record(manifest, released.get(manifests.path_of(output)))
        if output in today:
            problems += check_fingerprint(manifest, Fingerprint.parse(today[output]))
        else:
            file = manifests.path_of(output)
            detail = f"no job of any scale makes it; delete it and {file}, or configure it again"
            problems.append(Problem(output, "orphan", detail))
    problems += [
        Problem(output, "manifest", f"{manifests.path_of(output)} is missing")
        for output in manifests.outputs_on_disk()
        if not manifests.path_of(output).exists()
    ]
    accepted = tuple(
        {"path": output, **entry}
        for output, manifest in found.items()
        for entry in manifest.accepted
    )
    here = numerics.platform()
    platforms = Counter(manifest.proof.platform for manifest in found.values())
    elsewhere = {name: n for name, n in sorted(platforms.items()) if name != here}
    order = list(KINDS)
    unique = sorted(set(problems), key=lambda p: (order.index(p.kind), p.path, p.detail))
    return Audit(len(found), tuple(unique), accepted, elsewhere)


class Rehashed(dict):
    """Hashes of files' bytes as they are now, each read once; nothing remembered is trusted."""

    def __missing__(self, path: str) -> str:
        self[path] = digest(Path(path))
        return self[path]

    def __call__(self, path: Path) -> str:
        """The hash of a file."""
        return self[path.as_posix()]


def _read_all() -> tuple[dict[str, Manifest], list[Problem]]:
    found, problems = {}, []
    for output in manifests.every():
        try:
            found[output] = manifests.read(output)
        except DataError as error:
            problems.append(Problem(output, "manifest", str(error)))
    return found, problems


def check_bytes(
    manifest: Manifest, hashes: Rehashed | Remembered, known: Mapping[str, str]
) -> Iterator[Problem]:
    """Whether an output has the bytes of its manifest, and if not, whose bytes it has.

    Args:
        manifest: the output's.
        hashes: of files.
        known: the output that each recorded hash belongs to.
    """
    output = manifest.output
    if not Path(output).is_file():
        if not LAYOUT.is_intermediate(output):
            yield Problem(output, "missing", "is not there; `dvc pull`, or rebuild it")
        return
    found = hashes(Path(output))
    if found == manifest.sha256:
        return
    if found in known:
        yield Problem(output, "swapped", f"has the bytes of {known[found]}")
    elif store.earlier(output, found) or _committed_earlier(output, found):
        yield Problem(output, "older", "has the bytes of an earlier run of itself")
    else:
        yield Problem(
            output, "bytes", f"sha256 {found[:12]}, its manifest says {manifest.sha256[:12]}"
        )


def check_chain(
    manifest: Manifest, known: Mapping[str, Manifest], hashes: Rehashed | Remembered
) -> Iterator[Problem]:
    """Whether an output's inputs, and their manifests, are those that it was made from."""
    for file in manifest.inputs:
        origin = known.get(file.path)
        if origin is None:
            yield Problem(manifest.output, "chain", f"its input {file.path} has no sound manifest")
        elif origin.sha256 != file.sha256:
            yield Problem(manifest.output, "chain", f"its input {file.path} was made anew since")
        elif Path(file.path).is_file() and hashes(Path(file.path)) != file.sha256:
            yield Problem(manifest.output, "chain", f"its input {file.path} has other bytes now")


def check_fingerprint(manifest: Manifest, today: Fingerprint) -> Iterator[Problem]:
    """What changed in code, lock and settings since an output was made."""
    for change in manifest.proof.fingerprint.changes(today):
        yield Problem(manifest.output, change.kind, change.detail)


def _check_record(manifest: Manifest, text: str | None) -> Iterator[Problem]:
    """Whether the last commit's manifest, or else the store, has the same work with other bytes.

    What is committed is what was released: a store that remembers another run of the same work
    is no objection to it.
    """
    try:
        last = Manifest.parse(text) if text else None
    except DataError:
        last = None
    if last and last.proof.key == manifest.proof.key:
        if last.sha256 != manifest.sha256:
            yield Problem(
                manifest.output, "rewritten", "the last commit has other bytes of the same key"
            )
        return
    kept = store.holds(manifest.proof.key)
    if kept and kept != {role: file.sha256 for role, file in manifest.proof.outputs.items()}:
        yield Problem(manifest.output, "rewritten", "the store has other bytes of the same key")


def _committed_earlier(output: str, sha256: str) -> bool:
    path = str(manifests.path_of(output))
    log = report.git("log", "-1", "--format=%h", f"-S{sha256}", "--", path)
    return bool(log and log.strip())
