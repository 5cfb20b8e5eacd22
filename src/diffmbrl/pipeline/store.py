"""The store: finished work by its key, so that going back to an earlier state costs a copy.

.diffmbrl/store/<key>/ holds a job's outputs, one file per role, and job.json: proof and report.
It is bounded: what was not used for longest goes first. Deleting it costs time, never a result.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffmbrl.errors import UserError
from diffmbrl.pipeline.files import STATE, copy, digest, unique, write_atomic
from diffmbrl.pipeline.proof import Proof

FOLDER = STATE / "store"
RECORD = "job.json"
BYTES = STATE / "store-bytes"  # how many there are, so that a job need not look at all others' work
LIMIT_GB = "DIFFMBRL_STORE_GB"  # environment variable; 0 keeps nothing


def limit() -> float:
    """The most bytes that the store may hold."""
    return float(os.environ.get(LIMIT_GB, "4")) * 1e9


def put(proof: Proof, report: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Keeps a job's outputs under its key; a store that cannot be written is no failure.

    Args:
        proof: the job's proof.
        report: how the run that gave these bytes went.
        files: where each output's bytes are now, by role.
    """
    key = proof.key
    folder, partial = FOLDER / key, FOLDER / f".{key}-{unique()}"
    size = sum(path.stat().st_size for path in files.values())
    if folder.is_dir() or size > limit():
        return
    try:
        partial.mkdir(parents=True)
        for role, path in files.items():
            copy(path, partial / role)
        job = json.dumps({"proof": proof.json(), "report": dict(report)})
        (partial / RECORD).write_text(job, encoding="utf-8")
        size = _size(partial)
        os.rename(partial, folder)
        if _grown_by(size) > limit():
            prune()
    except OSError:
        pass
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def serve(key: str, targets: Mapping[str, Path]) -> dict[str, Any] | None:
    """Copies a job's outputs out of the store, if it is there and its bytes are still right.

    Returns:
        The report of the run that gave them, None where the work is to be done.
    """
    folder = FOLDER / key
    try:
        proof, report = _read(folder)
        for role, target in targets.items():
            copy(folder / role, target)
            if digest(target) != proof.outputs[role].sha256:
                shutil.rmtree(folder, ignore_errors=True)
                return None
        os.utime(folder)
    except (OSError, ValueError, KeyError, UserError):
        return None
    return report


def holds(key: str) -> dict[str, str]:
    """The sha256 that the work under a key gave each output, by role; {} if it is not kept."""
    try:
        return {role: file.sha256 for role, file in _read(FOLDER / key)[0].outputs.items()}
    except (OSError, ValueError, KeyError, UserError):
        return {}


def earlier(output: str, sha256: str) -> bool:
    """Whether some finished work gave an output exactly these bytes."""
    for folder in FOLDER.glob("[!.]*"):
        try:
            files = _read(folder)[0].outputs.values()
        except (OSError, ValueError, KeyError, UserError):
            continue
        if any(file.path == output and file.sha256 == sha256 for file in files):
            return True
    return False


def prune() -> None:
    """Drops what was not used for longest until the rest fits."""
    folders = sorted(FOLDER.glob("[!.]*"), key=lambda p: p.stat().st_mtime)
    sizes = {folder: _size(folder) for folder in folders}
    total = sum(sizes.values())
    for folder in folders:
        if total <= limit():
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]
    write_atomic(BYTES, str(total))


def count() -> None:
    """Writes down how many bytes there are; drops nothing, so that a limit of 0 still serves."""
    if FOLDER.is_dir():
        write_atomic(BYTES, str(sum(map(_size, FOLDER.glob("[!.]*")))))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _grown_by(size: int) -> int:
    """Writes down that the store grew; its bytes, as far as they are known without looking.

    Two jobs that end together may count as one; `count`, when a Snakemake starts, counts anew.
    """
    try:
        total = int(BYTES.read_text(encoding="utf-8")) + size
    except (OSError, ValueError):
        total = sum(map(_size, FOLDER.glob("[!.]*")))
    write_atomic(BYTES, str(total))
    return total


def _read(folder: Path) -> tuple[Proof, dict[str, Any]]:
    job = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return Proof.parse(job["proof"], str(folder)), job["report"]
