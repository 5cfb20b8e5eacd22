"""After a crash: nothing may still run; then locks and partial files go."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import processes, queue, records
from diffmbrl.pipeline.files import PARTIAL, STATE
from diffmbrl.pipeline.snakemake import LOCKS


class StillRunning(UserError):
    """A job or a Snakemake of this folder is alive, or queued."""

    code = 4


@dataclass(frozen=True)
class Recovered:
    """What was removed."""

    unlocked: bool
    partial: tuple[str, ...]


def recover() -> Recovered:
    """Checks that nothing of this folder runs or is queued, unlocks it and drops partial files.

    Unfinished training stays in .diffmbrl/scratch: the next run goes on from there.

    Raises:
        StillRunning: something does.
    """
    alive = [
        f"{entry['what']} (pid {entry['pid']} on {entry['host'].split()[0]})"
        for entry in processes.living()
    ]
    waiting = queue.queued()
    alive += [f"SLURM job {job.id} ({job.state.lower()}, {job.what})" for job in waiting]
    if alive:
        end = f"scancel {' '.join(job.id for job in waiting)}" if waiting else "end it"
        raise StillRunning(f"still running: {', '.join(alive)}; wait, or {end}, and recover again")
    locked = LOCKS.is_dir() and any(LOCKS.iterdir())
    if locked:
        shutil.rmtree(LOCKS)
    partial = tuple(path.as_posix() for path in leftovers())
    for path in partial:
        Path(path).unlink()
    for folder in (STATE / "store").glob(".*"):
        shutil.rmtree(folder, ignore_errors=True)
    records.reconcile()
    return Recovered(locked, partial)


def leftovers() -> Iterator[Path]:
    """Partial files that a killed job left behind."""
    for folder in (*LAYOUT.made.values(), LAYOUT.manifests, STATE):
        yield from sorted(folder.rglob(f"{PARTIAL}*"))
