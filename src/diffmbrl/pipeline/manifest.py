"""Manifests: for every output, what made it (proof) and how that went (report).

A manifest lies in git at data/manifests/<path of the output>.json. Its proof holds nothing but
what decides the bytes; a rerun that proves the same leaves the file, report included, alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError
from diffmbrl.pipeline.files import canonical, digest_of, write_atomic

FOLDER = Path("data/manifests")
RESULTS = ("data/datasets", "data/results", "data/stats", "figures")


def path_of(output: Path | str) -> Path:
    """Where the manifest of an output lies."""
    return FOLDER / f"{output}.json"


def key(
    stage: str,
    strings: Sequence[str],
    inputs: Mapping[str, Sequence[Mapping[str, str]]],
    roles: Sequence[str],
) -> str:
    """What decides a job's bytes, as one hash: code, lock, settings, and its inputs' bytes.

    Args:
        stage: the stage's module.
        strings: its fingerprint, `name@hash` and `name=json`.
        inputs: by role, of each file its path and sha256; only the file's name and bytes count,
            so that equal work in another folder is the same work.
        roles: the names of the outputs.
    """
    files = {
        role: [[Path(entry["path"]).name, entry["sha256"]] for entry in entries]
        for role, entries in inputs.items()
    }
    return digest_of([stage, sorted(strings), files, sorted(roles)])


def build(
    output: str,
    proof: Mapping[str, Any],
    report: Mapping[str, Any],
    accepted: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A manifest of one output of a job, sealed.

    Args:
        output: its path.
        proof: stage, key, fingerprint, inputs and outputs of the job.
        report: what a rerun may change: time, device, memory, versions, commit.
        accepted: changes across which a person kept the output.
    """
    manifest: dict[str, Any] = {"output": output, "proof": dict(proof), "report": dict(report)}
    if accepted:
        manifest["accepted"] = list(accepted)
    return {**manifest, "seal": seal(manifest)}


def seal(manifest: Mapping[str, Any]) -> str:
    """Hash over all that a manifest claims, but for its report."""
    return digest_of([manifest[name] for name in ("output", "proof")] + [manifest.get("accepted")])


def write(manifest: Mapping[str, Any]) -> None:
    """Writes a manifest, unless the one in place already proves the same."""
    path = path_of(manifest["output"])
    try:
        if read(path)["seal"] == manifest["seal"]:
            return
    except (DataError, FileNotFoundError):
        pass
    write_atomic(path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A manifest, checked for being whole.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is not a manifest, or was edited by hand.
    """
    manifest = parse(path.read_text(encoding="utf-8"))
    if manifest is None:
        raise DataError(f"{path}: is damaged, or was edited by hand: its seal does not match")
    if path_of(manifest["output"]) != path:
        raise DataError(f"{path}: is the manifest of {manifest['output']}")
    return manifest


def parse(text: str) -> dict[str, Any] | None:
    """A manifest from its text, None where it is not one or its seal does not match."""
    try:
        manifest = json.loads(text)
        proof = manifest["proof"]
        known = all(name in proof for name in ("stage", "key", "fingerprint", "inputs", "outputs"))
        return manifest if known and manifest["seal"] == seal(manifest) else None
    except (ValueError, KeyError, TypeError):
        return None


def recorded(manifest: Mapping[str, Any]) -> str:
    """The hash that an output's bytes must have."""
    for entry in manifest["proof"]["outputs"].values():
        if entry["path"] == manifest["output"]:
            return entry["sha256"]
    raise DataError(f"{path_of(manifest['output'])}: does not list its own output")


def inputs_of(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every input file of the job that made an output: path, sha256, and its maker's key."""
    return [entry for entries in manifest["proof"]["inputs"].values() for entry in entries]


def settings_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The config values that the job was given."""
    pairs = (s.partition("=") for s in manifest["proof"]["fingerprint"] if is_setting(s))
    return {name: json.loads(value) for name, _, value in pairs}


def is_setting(string: str) -> bool:
    """Whether a fingerprint's string is a setting, `name=json`, rather than `name@hash`."""
    name, equals, _ = string.partition("=")
    return bool(equals) and "@" not in name


def every() -> Iterator[Path]:
    """All manifests' paths, in order."""
    return (p for p in sorted(FOLDER.rglob("*.json")) if not p.name.startswith("."))


def outputs_on_disk() -> Iterator[str]:
    """Paths of all files that a stage may have made, in order."""
    for folder in RESULTS:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix != ".dvc" and not path.name.startswith("."):
                yield path.as_posix()


def describe(setting: Any) -> str:
    """A setting's value, short enough for a line."""
    text = canonical(setting) if not isinstance(setting, str) else setting
    return text if len(text) <= 60 else f"{text[:57]}..."
