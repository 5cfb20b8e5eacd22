"""What a manifest reports beside its proof: when, how long, on what; nothing here decides bytes."""

import calendar
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from diffmbrl import numerics
from diffmbrl.layout import LAYOUT

VERSIONS = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "snakemake")
STARTED = "%Y-%m-%dT%H:%M:%SZ"
JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


def of_job(started: float, threads: int, device: str) -> dict[str, Any]:
    """The report of a job that just ended in this process.

    Args:
        started: seconds since the epoch.
        threads: how many cores it was given.
        device: what it computed on.
    """
    return {
        "started": time.strftime(STARTED, time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "threads": threads,
        "peak_memory_mb": round(peak_memory_mb()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libc": "-".join(platform.libc_ver()),
        "host": socket.gethostname(),
        "processor": numerics.processor(),
        "device": device,
        "job_id": job_id(),
        "overridden": numerics.overridden(),
        "versions": {name: version for name in VERSIONS if (version := _version(name))},
        **git_state(),
    }


def job_id() -> str | None:
    """The cluster's name for this job, None outside of one."""
    return next((os.environ[name] for name in JOB_IDS if name in os.environ), None)


def times(told: Mapping[str, Any]) -> tuple[float, float] | None:
    """When the job of a report started and ended, in seconds since the epoch, if it says so."""
    try:
        started = calendar.timegm(time.strptime(told["started"], STARTED))
        return started, started + told["seconds"]
    except (KeyError, TypeError, ValueError):
        return None


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def git_state() -> dict[str, Any]:
    """The commit that is checked out, and whether code or config differ from it."""
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    deciding = ("src", str(LAYOUT.config), "workflow", str(LAYOUT.lock))
    changed = git("status", "--porcelain", "--", *deciding)
    return {"commit": commit.strip(), "dirty": bool(changed)}


def git(*arguments: str) -> str | None:
    """What a git command prints, None where it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
