"""Replay: retrains single runs from their records, and compares every byte of every number.

A stage whose results have rows by run says which setting each axis column spans, `AXES =
{"seed": "seeds", ...}`, dotted where settings are nested. Replay narrows each of those settings
to one value, runs the stage in a scratch folder, and compares its rows with the recorded ones.
A stage without AXES is rerun whole, and its files' hashes are compared.
"""

import importlib
import os
import random
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.config import lookup
from diffmbrl.errors import DataError, UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import fingerprint, manifests
from diffmbrl.pipeline.files import STATE, digest
from diffmbrl.pipeline.proof import Manifest
from diffmbrl.pipeline.stage import Job


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

    Results that are made from intermediate files which are not here are left out.

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
    current = [made for made in _results(within) if _current(made) and _has_intermediate(made)]
    if not current:
        raise UserError(
            "replay: no result is up to date with today's code and has its inputs here; run "
            "snakemake first"
        )
    draw = random.Random(seed)
    return [replay_one(draw.choice(current), draw, threads, tolerance) for _ in range(n)]


def replay_one(
    manifest: Manifest, draw: random.Random, threads: int, tolerance: float = 0.0
) -> Replayed:
    """Retrains one run of the job that made an output."""
    proof, output = manifest.proof, manifest.output
    module = importlib.import_module(f"{LAYOUT.package}.{proof.stage}")
    axes = getattr(module, "AXES", {})
    settings = proof.fingerprint.settings
    run = {column: draw.choice(lookup(settings, key)) for column, key in axes.items()}
    narrowed = settings
    for column, value in run.items():
        narrowed = narrow(narrowed, axes[column], value)
    for file in manifest.inputs:
        if not Path(file.path).is_file() or digest(Path(file.path)) != file.sha256:
            return Replayed(output, run, False, f"its input {file.path} is not as recorded")
    STATE.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="replay-", dir=STATE))
    try:
        roles = {role: Path(file.path) for role, file in proof.outputs.items()}
        job = Job(
            settings=narrowed,
            inputs={role: [Path(f.path) for f in files] for role, files in proof.inputs.items()},
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
    from diffmbrl.stats.rounding import differences

    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return False, f"{old.shape} rows and columns recorded, {new.shape} replayed"
    found = differences(old, new, tolerance)
    return not found, f"differs in {', '.join(map(str, found))}" if found else ""


def _results(within: str) -> list[Manifest]:
    start = within or f"{LAYOUT.results.as_posix()}/"
    found = []
    for output in manifests.every():
        if output.startswith(start):
            with suppress(DataError):
                found.append(manifests.read(output))
    return found


def _has_intermediate(manifest: Manifest) -> bool:
    inputs = [file.path for file in manifest.inputs if LAYOUT.is_intermediate(file.path)]
    return all(map(os.path.isfile, inputs))


def _current(manifest: Manifest) -> bool:
    before = manifest.proof.fingerprint
    try:
        now = fingerprint.of_job(manifest.proof.stage, before.settings)
    except UserError:
        return False
    return not any(before.changes(now))
