"""The store: finished work by its key, so that going back to an earlier state costs a copy.

.diffmbrl/store/<key>/ holds a job's outputs, one file a role, and job.json: proof and report. It
is bounded: what was not used for longest goes first. Deleting it costs time, never a result.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffmbrl.pipeline.files import STATE, copy, digest

FOLDER = STATE / "store"
RECORD = "job.json"
LIMIT_GB = "DIFFMBRL_STORE_GB"  # environment variable; 0 keeps nothing


def limit() -> float:
    """The most bytes that the store may hold."""
    return float(os.environ.get(LIMIT_GB, "4")) * 1e9


def put(proof: Mapping[str, Any], report: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Keeps a job's outputs under its key; a store that cannot be written is no failure.

    Args:
        proof: the job's proof, with its key.
        report: how the run that gave these bytes went.
        files: where each output's bytes are now, by role.
    """
    folder, partial = FOLDER / proof["key"], FOLDER / f".{proof['key']}-{os.getpid()}"
    size = sum(path.stat().st_size for path in files.values())
    if folder.is_dir() or size > limit():
        return
    try:
        partial.mkdir(parents=True)
        for role, path in files.items():
            copy(path, partial / role)
        job = json.dumps({"proof": proof, "report": report})
        (partial / RECORD).write_text(job, encoding="utf-8")
        os.rename(partial, folder)
        prune(limit())
    except OSError:
        pass
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def serve(key: str, targets: Mapping[str, Path]) -> dict[str, Any] | None:
    """Copies a job's outputs out of the store, if it is there and its bytes are still right.

    Returns:
        The proof and the report of the run that gave them, None where the work is to be done.
    """
    folder = FOLDER / key
    try:
        job = _read(folder)
        for role, target in targets.items():
            copy(folder / role, target)
            if digest(target) != job["proof"]["outputs"][role]["sha256"]:
                shutil.rmtree(folder, ignore_errors=True)
                return None
        os.utime(folder)
    except (OSError, ValueError, KeyError):
        return None
    return job


def holds(key: str) -> dict[str, str]:
    """The sha256 that the work under a key gave each output, by role; {} if it is not kept."""
    try:
        outputs = _read(FOLDER / key)["proof"]["outputs"]
    except (OSError, ValueError, KeyError):
        return {}
    return {role: entry["sha256"] for role, entry in outputs.items()}


def earlier(output: str, sha256: str) -> bool:
    """Whether some finished work gave an output exactly these bytes."""
    for folder in FOLDER.glob("[!.]*"):
        try:
            entries = _read(folder)["proof"]["outputs"].values()
        except (OSError, ValueError, KeyError):
            continue
        if any(e["path"] == output and e["sha256"] == sha256 for e in entries):
            return True
    return False


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))


def prune(most: float) -> None:
    """Drops what was not used for longest until the rest fits."""
    folders = sorted(FOLDER.glob("[!.]*"), key=lambda p: p.stat().st_mtime)
    sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in folders}
    total = sum(sizes.values())
    for folder in folders:
        if total <= most:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]
