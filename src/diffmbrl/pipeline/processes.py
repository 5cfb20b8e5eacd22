"""Who runs: a note for each living job and Snakemake, and jobs that end with their Snakemake."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffmbrl.pipeline.files import STATE, write_atomic

FOLDER = STATE / "running"
PARENT = "DIFFMBRL_SNAKEMAKE"  # environment variable: pid of the Snakemake that jobs belong to


def birth(pid: int) -> str | None:
    """When a process started, as its system tells it; None where no such process lives.

    With the pid it names one process for good: pids are used again, births are not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    ps = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip() or None


def note(what: str, outputs: Sequence[str] = ()) -> Path:
    """Writes down that this process is at work; the caller removes the note at its end."""
    pid = os.getpid()
    path = FOLDER / f"{pid}.json"
    entry = {"pid": pid, "birth": birth(pid), "what": what, "outputs": list(outputs)}
    write_atomic(path, json.dumps(entry))
    return path


@contextmanager
def noted(what: str, outputs: Sequence[str]) -> Iterator[None]:
    """Keeps a note while the work inside goes on."""
    path = note(what, outputs)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def living() -> list[dict]:
    """The notes of processes that still run, this one and its parents apart; drops dead ones."""
    alive = []
    mine = {os.getpid(), int(os.environ.get(PARENT, "0"))}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if birth(entry["pid"]) != entry["birth"]:
            path.unlink(missing_ok=True)
        elif entry["pid"] not in mine:
            alive.append(entry)
    return alive


def end_with_snakemake(clean: Callable[[], None], every: float = 0.3) -> None:
    """Ends this process as soon as the Snakemake that started it is gone, however it went.

    Args:
        clean: called first, to drop what is unfinished.
        every: seconds between two looks.
    """
    parent = int(os.environ.get(PARENT, "0"))
    born = birth(parent) if parent else None
    if not parent:
        return

    def watch():
        while birth(parent) == born and born is not None:
            time.sleep(every)
        clean()
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()
