"""What a run reports beside its proof: when, how long, on what; nothing here decides bytes."""

import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from typing import Any

VERSIONS = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "snakemake")


def of_job(started: float, threads: int) -> dict[str, Any]:
    """The report of a job that just ended in this process.

    Args:
        started: seconds since the epoch.
        threads: how many cores it was given.
    """
    report = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "threads": threads,
        "peak_memory_mb": round(peak_memory_mb()),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: version for name in VERSIONS if (version := _version(name))},
        **git_state(),
    }
    if "jax" in sys.modules:
        from diffmbrl.sweep import device

        report["device"] = device.describe()
    return report


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def git_state() -> dict[str, Any]:
    """The commit that is checked out, and whether code or config differ from it."""
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = git("status", "--porcelain", "--", "src", "config", "workflow", "requirements.txt")
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
