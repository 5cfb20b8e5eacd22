"""Replay: retrains single runs from their records, and compares every byte of every number.

A stage whose results have rows by run says which setting each axis column spans, `AXES =
{"seed": "seeds", ...}`, dotted where settings are nested. Replay narrows each of those settings
to one value, runs the stage in a scratch folder, and compares its rows with the recorded ones.
A stage without AXES is rerun whole, and its files' hashes are compared.
"""

import importlib
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.config import lookup
from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline import fingerprint, manifest
from diffmbrl.pipeline.files import STATE, digest
from diffmbrl.pipeline.stage import Job

FOLDER = "data/results/"


@dataclass(frozen=True)
class Replayed:
    """One run, done again.

    Attributes:
        output: where it is recorded.
        run: its place in the sweep, a value for each axis.
        same: whether every byte agrees.
        detail: what differs, and by how much.
    """

    output: str
    run: Mapping[str, Any]
    same: bool
    detail: str


def replay(
    n: int, seed: int | None = None, threads: int = 1, within: str = "", tolerance: float = 0.0
) -> list[Replayed]:
    """Retrains n runs picked at random from the results that today's code made.

    Args:
        n: how many.
        seed: of the choice.
        threads: for each.
        within: only results whose path starts so.
        tolerance: largest relative difference that counts as the same; 0 asks for every byte
            and is right on the device that made the results.

    Raises:
        UserError: there is no result to replay.
    """
    manifests = [m for m in _results(within) if _current(m)]
    if not manifests:
        raise UserError("replay: no result is up to date with today's code; run snakemake first")
    draw = random.Random(seed)
    return [replay_one(draw.choice(manifests), draw, threads, tolerance) for _ in range(n)]


def replay_one(
    made: Mapping[str, Any], draw: random.Random, threads: int, tolerance: float = 0.0
) -> Replayed:
    """Retrains one run of the job that made an output."""
    proof, output = made["proof"], made["output"]
    module = importlib.import_module(f"{fingerprint.PACKAGE}.{proof['stage']}")
    axes = getattr(module, "AXES", {})
    settings = manifest.settings_of(made)
    run = {column: draw.choice(lookup(settings, key)) for column, key in axes.items()}
    narrowed = settings
    for column, value in run.items():
        narrowed = narrow(narrowed, axes[column], value)
    for entry in manifest.inputs_of(made):
        if not Path(entry["path"]).is_file() or digest(Path(entry["path"])) != entry["sha256"]:
            return Replayed(output, run, False, f"its input {entry['path']} is not as recorded")
    STATE.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="replay-", dir=STATE))
    try:
        roles = {role: Path(e["path"]) for role, e in proof["outputs"].items()}
        job = Job(
            settings=narrowed,
            inputs={r: [Path(e["path"]) for e in es] for r, es in proof["inputs"].items()},
            outputs={role: folder / "outputs" / path for role, path in roles.items()},
            threads=threads,
            scratch=folder / "scratch",
        )
        for path in job.outputs.values():  # in their folders: two may share a name
            path.parent.mkdir(parents=True, exist_ok=True)
        module.run(job)
        role = next(role for role, path in roles.items() if path.as_posix() == output)
        again = job.outputs[role]
        return Replayed(output, run, *_compare(Path(output), again, run, tolerance))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def narrow(settings: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Settings in which the list at a dotted key has one value."""
    name, _, rest = key.partition(".")
    return {**settings, name: narrow(settings[name], rest, value) if rest else [value]}


def _compare(
    recorded: Path, again: Path, run: Mapping[str, Any], tolerance: float
) -> tuple[bool, str]:
    if not recorded.is_file():
        return False, "is not there"
    if not run:
        same = digest(recorded) == digest(again)
        return same, "" if same else "its bytes differ"
    import pandas as pd

    old, new = pd.read_parquet(recorded), pd.read_parquet(again)
    for column, value in run.items():
        if column in old:
            old = old[old[column] == value]
    return compare_rows(old.reset_index(drop=True), new, tolerance)


def compare_rows(old, new, tolerance: float = 0.0) -> tuple[bool, str]:
    """Whether two tables agree in every bit, or within a tolerance; if not, where and by what."""
    import numpy as np

    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return False, f"{old.shape} rows and columns recorded, {new.shape} replayed"
    different = []
    for name in old.columns:
        a, b = (frame[name].astype(str if frame[name].dtype == "category" else frame[name].dtype)
                for frame in (old, new))  # fmt: skip
        a, b = a.to_numpy(), b.to_numpy()
        if a.dtype.kind == "f" and b.dtype == a.dtype:
            if a.tobytes() != b.tobytes():
                same = np.allclose(a, b, rtol=tolerance, atol=0.0, equal_nan=True)
                if tolerance and same:
                    continue
                with np.errstate(all="ignore"):
                    worst = np.max(np.nan_to_num(np.abs(a - b) / np.abs(a)), initial=0.0)
                different.append(f"{name} (worst relative difference {worst:.2g})")
        elif not (a == b).all():
            different.append(name)
    return not different, f"differs in {', '.join(different)}" if different else ""


def _results(within: str) -> list[dict[str, Any]]:
    found = []
    for path in manifest.every():
        try:
            made = manifest.read(path)
        except DataError:
            continue
        if made["output"].startswith(within or FOLDER):
            found.append(made)
    return found


def _current(made: Mapping[str, Any]) -> bool:
    code = [s for s in made["proof"]["fingerprint"] if not manifest.is_setting(s)]
    try:
        return sorted(code) == fingerprint.of_stage(made["proof"]["stage"])
    except UserError:
        return False
