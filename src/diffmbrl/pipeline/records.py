"""Snakemake's records, derived from manifests: what makes a fresh clone and a tampered file right.

A manifest whose file has the bytes that it names becomes Snakemake's record of that file: its
fingerprint as params, its inputs' hashes as checksums. Snakemake's own triggers then rerun what
today's fingerprint differs from, whatever the files' times. A file that is not what its
manifest says gets the objection as a param, so that Snakemake reruns it and says why.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError
from diffmbrl.pipeline import manifest, store
from diffmbrl.pipeline.files import Remembered, hashing, write_atomic

FOLDER = Path(".snakemake/metadata")
FORMAT = 6  # of Snakemake's records; a test holds this against the installed Snakemake
_NAME_MAX = 254  # characters of one path component of a record's name


def reconcile() -> int:
    """Brings Snakemake's records in line with the manifests; how many it had to write."""
    for folder in (FOLDER, FOLDER.parent / "incomplete"):
        folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with hashing() as digest:
        for output in manifest.outputs_on_disk():
            made, wanted = record(output, digest)
            if _put(output, wanted):
                written += 1
                if made is not None:
                    _keep(made, digest)
    return written


def record(output: str, digest: Remembered) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """An output's manifest, if it is sound, and what Snakemake is to know of the output."""
    try:
        made = manifest.read(manifest.path_of(output))
    except FileNotFoundError:
        return None, _record([f"{output} has no manifest"])
    except DataError as error:
        return None, _record([str(error)])
    files = manifest.inputs_of(made)
    objections = list(doubts(made, digest))
    return None if objections else made, _record(
        [*made["proof"]["fingerprint"], *objections],
        sorted(entry["path"] for entry in files),
        {entry["path"]: f"sha256:{entry['sha256']}" for entry in files},
        made["proof"]["stage"].removeprefix("plots.").replace(".", "_"),  # the rule, by our names
    )


def doubts(made: Mapping[str, Any], digest: Remembered) -> Iterator[str]:
    """Why an output that is there is not what its manifest says, if it is not."""
    if digest(Path(made["output"])) != manifest.recorded(made):
        yield f"{made['output']}: its bytes are not those of its manifest"
    for entry in manifest.inputs_of(made):
        path = Path(entry["path"])
        if path.is_file() and digest(path) != entry["sha256"]:
            yield f"{made['output']} was made from other bytes of {path}"


def _keep(made: Mapping[str, Any], digest: Remembered) -> None:
    """Puts verified work that came from elsewhere (DVC) into the store."""
    outputs = made["proof"]["outputs"]
    files = {role: Path(entry["path"]) for role, entry in outputs.items()}
    whole = all(
        path.is_file() and digest(path) == outputs[role]["sha256"] for role, path in files.items()
    )
    if whole and "accepted" not in made:
        store.put(made["proof"], made["report"], files)


def _record(
    params: list[str],
    inputs: list[str] | None = None,
    checksums: Mapping[str, str] | None = None,
    rule: str | None = None,
) -> dict[str, Any]:
    return {
        "record_format_version": FORMAT,
        "params": sorted(map(repr, params)),
        "input": inputs,
        "input_checksums": dict(checksums or {}),
        "rule": rule,
        "code": None,  # rules hold no logic: the command is fixed by fingerprint and inputs
    }


def path_of(output: str) -> Path:
    """Where Snakemake's file backend keeps the record of an output."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _NAME_MAX] for i in range(0, len(name), _NAME_MAX)]
    return FOLDER.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _put(output: str, wanted: Mapping[str, Any]) -> bool:
    path = path_of(output)
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = {}
    if all(old.get(name) == value for name, value in wanted.items()):
        return False
    mtime = Path(output).stat().st_mtime
    rest = {"starttime": mtime, "endtime": mtime, "incomplete": False, "log": []}
    write_atomic(path, json.dumps({**rest, **old, **wanted}))
    return True
