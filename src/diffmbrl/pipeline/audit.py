"""Whether results still are what their manifests prove, and what they would be today."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError
from diffmbrl.pipeline import dag, fingerprint, manifest, report, store
from diffmbrl.pipeline.files import Remembered, digest

# Kinds of failure, gravest first: exit code, and what it means.
KINDS = {
    "manifest": (10, "a manifest is missing, damaged, edited by hand, or another output's"),
    "rewritten": (11, "output and manifest agree, but the same work is on record with other bytes"),
    "swapped": (12, "an output has the bytes of another output"),
    "older": (13, "an output has the bytes of an earlier run"),
    "bytes": (14, "an output has bytes that no manifest knows: edited or damaged"),
    "missing": (15, "an output that a manifest names is not there"),
    "chain": (16, "an output was made from other bytes than its inputs have now"),
    "code": (17, "an output was made by other code than today's"),
    "settings": (18, "an output was made with other settings than today's"),
    "lock": (19, "an output was made under another lock of requirements"),
    "orphan": (20, "no rule makes an output that has a manifest"),
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, by kind."""

    path: str
    kind: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """What an audit found: problems, gravest first, and what a person accepted."""

    checked: int
    problems: tuple[Problem, ...]
    accepted: tuple[Mapping[str, Any], ...]

    @property
    def code(self) -> int:
        """0 where all is well, otherwise the exit code of the gravest kind found."""
        return KINDS[self.problems[0].kind][0] if self.problems else 0


def audit() -> Audit:
    """Rehashes everything, compares with manifests, records and today's code and config."""
    hashes = Rehashed()
    manifests, problems = _read_all()
    known = {manifest.recorded(made): path for path, made in manifests.items()}
    today = {o: job.params for job in dag.plan(targets=list(manifests)) for o in job.outputs}
    for output, made in manifests.items():
        problems += check_bytes(made, hashes, known)
        problems += check_chain(made, manifests, hashes)
        problems += _check_record(made)
        if output in today:
            problems += check_fingerprint(made, today[output])
        else:
            problems.append(Problem(output, "orphan", "no rule makes it; delete it, or its rule"))
    problems += [
        Problem(output, "manifest", f"{manifest.path_of(output)} is missing")
        for output in manifest.outputs_on_disk()
        if not manifest.path_of(output).exists()
    ]
    accepted = tuple(
        {"path": output, **entry}
        for output, made in manifests.items()
        for entry in made.get("accepted", ())
    )
    order = list(KINDS)
    unique = sorted(set(problems), key=lambda p: (order.index(p.kind), p.path, p.detail))
    return Audit(len(manifests), tuple(unique), accepted)


class Rehashed(dict):
    """Hashes of files' bytes as they are now, each read once; nothing remembered is trusted."""

    def __missing__(self, path: str) -> str:
        self[path] = digest(Path(path))
        return self[path]

    def __call__(self, path: Path) -> str:
        """The hash of a file."""
        return self[path.as_posix()]


def _read_all() -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    manifests, problems = {}, []
    for path in manifest.every():
        try:
            made = manifest.read(path)
            manifests[made["output"]] = made
        except DataError as error:
            output = path.relative_to(manifest.FOLDER).as_posix().removesuffix(".json")
            problems.append(Problem(output, "manifest", str(error)))
    return manifests, problems


def check_bytes(
    made: Mapping[str, Any], hashes: Rehashed | Remembered, known: Mapping[str, str]
) -> Iterator[Problem]:
    """Whether an output has the bytes of its manifest, and if not, whose bytes it has.

    Args:
        made: the output's manifest.
        hashes: of files.
        known: the output that each recorded hash belongs to.
    """
    output, wanted = made["output"], manifest.recorded(made)
    if not Path(output).is_file():
        yield Problem(output, "missing", "is not there; `dvc pull`, or rebuild it")
        return
    found = hashes(Path(output))
    if found == wanted:
        return
    if found in known:
        yield Problem(output, "swapped", f"has the bytes of {known[found]}")
    elif store.earlier(output, found) or _committed_earlier(output, found):
        yield Problem(output, "older", "has the bytes of an earlier run of itself")
    else:
        yield Problem(output, "bytes", f"sha256 {found[:12]}, its manifest says {wanted[:12]}")


def check_chain(
    made: Mapping[str, Any],
    manifests: Mapping[str, Mapping[str, Any]],
    hashes: Rehashed | Remembered,
) -> Iterator[Problem]:
    """Whether an output's inputs, and their manifests, are those that it was made from."""
    for entry in manifest.inputs_of(made):
        path, origin = entry["path"], manifests.get(entry["path"])
        if origin is None:
            yield Problem(made["output"], "chain", f"its input {path} has no sound manifest")
        elif manifest.recorded(origin) != entry["sha256"]:
            yield Problem(made["output"], "chain", f"its input {path} was made anew since")
        elif Path(path).is_file() and hashes(Path(path)) != entry["sha256"]:
            yield Problem(made["output"], "chain", f"its input {path} has other bytes now")


def check_fingerprint(made: Mapping[str, Any], today: Sequence[str]) -> Iterator[Problem]:
    """What changed in code, lock and settings since an output was made."""
    before = dict(map(_split, made["proof"]["fingerprint"]))
    now = dict(map(_split, today))
    for name in sorted(before.keys() | now.keys(), key=str):
        if before.get(name) == now.get(name):
            continue
        what, setting = name
        if setting:
            old, new = (_show(values.get(name)) for values in (before, now))
            yield Problem(made["output"], "settings", f"{what}: {old} -> {new}")
        else:
            kind = "lock" if what == str(fingerprint.LOCK) else "code"
            verb = "changed" if name in before and name in now else "came or went"
            yield Problem(made["output"], kind, f"{what} {verb}")


def _check_record(made: Mapping[str, Any]) -> Iterator[Problem]:
    """Whether the last commit, or the store, has the same work with other bytes."""
    proof, output = made["proof"], made["output"]
    hashes = {role: entry["sha256"] for role, entry in proof["outputs"].items()}
    kept = store.holds(proof["key"])
    if kept and kept != hashes:
        yield Problem(output, "rewritten", "the store has other bytes of the same key")
        return
    text = report.git("show", f"HEAD:./{manifest.path_of(output).as_posix()}")
    committed = manifest.parse(text) if text else None
    if not committed or committed["proof"]["key"] != proof["key"]:
        return
    if manifest.recorded(committed) != manifest.recorded(made):
        yield Problem(output, "rewritten", "the last commit has other bytes of the same key")


def _committed_earlier(output: str, sha256: str) -> bool:
    log = report.git("log", "-1", "--format=%h", f"-S{sha256}", "--", str(manifest.path_of(output)))
    return bool(log and log.strip())


def _split(string: str) -> tuple[tuple[str, bool], str]:
    """A fingerprint's string as ((name, whether it is a setting), value)."""
    setting = manifest.is_setting(string)
    name, _, value = string.partition("=" if setting else "@")
    return (name, setting), value


def _show(value: str | None) -> str:
    return "none" if value is None else manifest.describe(value)
