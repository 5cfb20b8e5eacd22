"""After a crash: nothing may still run; then locks and partial files go."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.pipeline import manifest, processes, records
from diffmbrl.pipeline.files import STATE

LOCKS = Path(".snakemake/locks")


class StillRunning(UserError):
    """A job or a Snakemake of this folder is alive."""

    code = 4


@dataclass(frozen=True)
class Recovered:
    """What was removed."""

    unlocked: bool
    partial: tuple[str, ...]


def recover() -> Recovered:
    """Checks that nothing of this folder still runs, unlocks it and drops partial files.

    Unfinished training stays in .diffmbrl/scratch: the next run goes on from there.

    Raises:
        StillRunning: something does.
    """
    alive = processes.living()
    if alive:
        names = ", ".join(f"{entry['what']} (pid {entry['pid']})" for entry in alive)
        raise StillRunning(f"still running: {names}; wait, or end it, and recover again")
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
    for folder in (*manifest.RESULTS, manifest.FOLDER, STATE):
        yield from sorted(Path(folder).rglob(".partial-*"))
