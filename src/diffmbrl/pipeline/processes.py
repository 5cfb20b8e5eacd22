"""Who runs: a note for each living job and Snakemake."""

import atexit
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from diffmbrl.pipeline.files import STATE, unique, write_atomic

FOLDER = STATE / "running"
PARENT = "DIFFMBRL_SNAKEMAKE"  # environment variable: pid of the Snakemake that jobs belong to
BEAT = 20.0  # s between two signs of life in a note
STALE = 120.0  # s without one, after which a process that cannot be looked up counts as dead


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


def here() -> str:
    """The host, and the pid namespace on it: where a pid means this process."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def note(what: str, outputs: Sequence[str] = ()) -> Path:
    """Writes down that this process is at work, with a sign of life now and then.

    The note goes when the process ends; one that is killed leaves it behind.
    """
    pid = os.getpid()
    path = FOLDER / f"{unique()}.json"
    entry = {"host": here(), "pid": pid, "birth": birth(pid), "what": what,
             "outputs": list(outputs)}  # fmt: skip
    write_atomic(path, json.dumps(entry))

    def beat():
        with suppress(OSError):  # the note is gone: nothing more to say
            while True:
                time.sleep(BEAT)
                os.utime(path)

    threading.Thread(target=beat, daemon=True).start()
    atexit.register(path.unlink, missing_ok=True)
    return path


@contextmanager
def noted(what: str, outputs: Sequence[str]) -> Iterator[Path]:
    """Keeps a note, whose path it gives, while the work inside goes on."""
    path = note(what, outputs)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def living() -> list[dict]:
    """The notes of processes that still run, this one and its parents apart; drops dead ones.

    Another host's process, or another container's, counts as alive until its note is stale.
    """
    alive = []
    mine = {os.getpid(), int(os.environ.get(PARENT, "0"))}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            age = time.time() - path.stat().st_mtime
        except (OSError, ValueError):
            continue
        local = entry.get("host") == here()
        if birth(entry["pid"]) != entry["birth"] if local else age > STALE:
            path.unlink(missing_ok=True)
        elif not (local and entry["pid"] in mine):
            alive.append(entry)
    return alive
