"""Jobs that a cluster's queue holds for this folder."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.pipeline.files import STATE, write_atomic

_SUBMITTED = STATE / "submitted"  # the executor that a Snakemake of this folder gave jobs to
_FORMAT = "%i|%T|%k|%Z"  # id, state, comment (Snakemake's plugin puts the rule there), folder
_PATIENCE = 60.0  # s


class QueueSilent(UserError):
    """The queue cannot be asked."""

    code = 4


@dataclass(frozen=True)
class Queued:
    """A job of SLURM that has not ended: its id, its state, and what it is."""

    id: str
    state: str
    what: str


def remember(executor: str) -> None:
    """Writes down that jobs of this folder are given to a cluster, so that its queue is asked."""
    write_atomic(_SUBMITTED, executor)


def queued() -> list[Queued]:
    """SLURM's jobs, pending and running, whose working directory is this folder.

    Returns:
        None of the job that asks; an empty list where there is no SLURM, or where no job of this
        folder was ever given to a cluster.

    Raises:
        QueueSilent: SLURM does not answer.
    """
    if not _SUBMITTED.exists() or shutil.which("squeue") is None:
        return []
    asked = ["squeue", "--noheader", "--format", _FORMAT]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except subprocess.CalledProcessError as error:
        raise _silent((error.stderr.strip().splitlines() or ["no message"])[-1]) from None
    except subprocess.TimeoutExpired:
        raise _silent(f"not within {_PATIENCE:.0f} s") from None
    rows = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
    here, mine = Path.cwd().resolve(), os.environ.get("SLURM_JOB_ID")
    return [
        Queued(number, state, what)
        for number, state, what, where in rows
        if Path(where).resolve() == here and number != mine
    ]


def _silent(why: str) -> QueueSilent:
    return QueueSilent(
        f"squeue does not answer ({why}), so jobs of this folder may be waiting or running; "
        "try again when it does"
    )
