"""Runs commands in forks of one process that has imported the libraries: tests start hundreds.

Importing takes a command most of its time. A forked one has what its own process would have
(tests/warm/sitecustomize.py): arguments, environment, folder, streams, this project's modules
from its own folder. Whoever asked hears its exit code; where they go, it is told to end. Tests of
kills, of process groups and of pid namespaces start theirs cold (`COLD`).
"""

import diffmbrl.pinned  # noqa: F401, I001  (before NumPy)

import atexit
import contextlib
import gc
import importlib
import json
import os
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

VARIABLE = "DIFFMBRL_WARM"  # the server's address
COLD = {VARIABLE: ""}  # environment of a command that is to have a process of its own
CLIENT = Path(__file__).parent / "warm"
REFUSED = 255
LIBRARIES = (
    "jax.numpy", "equinox", "optax", "flax.linen", "pandas", "pyarrow.parquet", "gymnasium",
    "mujoco", "scipy.stats", "scipy.optimize", "scipy.sparse.linalg", "matplotlib.pyplot",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "seaborn", "pydantic",
    "tqdm", "snakemake.cli", "snakemake.api", "dvc.cli",
)  # fmt: skip
# Read while libraries are imported: a command with others than the server's is not for it.
READ_EARLY = re.compile("(JAX|NPY|OPENBLAS_CORE|GLIBC|LD|MPL|ONEDNN|ARROW)")


class Asked(NamedTuple):
    """A command as its own process would have it."""

    words: list[str]
    environment: dict[str, str]
    folder: str
    streams: list[int]


def collect_seldom() -> None:
    """Tracing programs allocates much that stays; looking through it again and again takes long."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


def python_path(*folders: Path | str) -> str:
    """PYTHONPATH of a command that is to find its code in some folders, warm."""
    return os.pathsep.join(map(str, [*folders, CLIENT]))


@contextlib.contextmanager
def started():
    """A server for all commands that this process and its children start."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/warm"
        process = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE)
        theirs = filter(None, [os.environ.get("PYTHONPATH")])
        os.environ |= {VARIABLE: address, "PYTHONPATH": python_path(*theirs)}
        try:
            yield
        finally:
            process.communicate()  # it ends when its standard input does


def serve(address: str) -> None:
    """Takes commands until standard input ends."""
    sys.path.remove(str(Path(__file__).parent))
    heard, woken = socket.socketpair()
    for end in (heard, woken):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as door, selectors.DefaultSelector() as waiting:
        door.bind(address)
        door.listen(64)
        for name in LIBRARIES:
            importlib.import_module(name)
        for name in [name for name in sys.modules if name.split(".")[0] == "diffmbrl"]:
            del sys.modules[name]  # a command imports its own folder's
        collect_seldom()
        early, inherited = _read_early(os.environ), set(sys.path)
        for end in (door, heard, sys.stdin):
            waiting.register(end, selectors.EVENT_READ)
        while True:
            for ready, _ in waiting.select():
                source = ready.fileobj
                if source is sys.stdin:
                    return
                if source is door:
                    client, _ = door.accept()
                    asked = _receive(client)
                    if _read_early(asked.environment) != early:
                        client.send(bytes([REFUSED]))
                        client.close()
                    elif (pid := os.fork()) == 0:
                        _become(asked, inherited)
                    else:
                        running[pid] = client
                        waiting.register(client, selectors.EVENT_READ, pid)
                    for stream in asked.streams:
                        os.close(stream)
                elif source is heard:
                    heard.recv(4096)
                    _reap(running, waiting)
                else:  # whoever asked is gone
                    waiting.unregister(source)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(ready.data, signal.SIGTERM)


def _read_early(environment) -> dict[str, str]:
    return {name: value for name, value in environment.items() if READ_EARLY.match(name)}


def _receive(client: socket.socket) -> Asked:
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += client.recv(1 << 20)
    return Asked(*json.loads(told), streams)


def _reap(running, waiting) -> None:
    """Tells whoever asked how those that have ended did."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            client = running.pop(ended[0])
            code = os.waitstatus_to_exitcode(ended[1])
            with contextlib.suppress(KeyError):
                waiting.unregister(client)
            with contextlib.suppress(OSError):
                client.send(bytes([code if code >= 0 else 128 - code]))
            client.close()


def _become(asked: Asked, inherited: set[str]) -> None:
    """Runs a command in this process, which ends with it."""
    code: object = 1
    try:
        _prepare(asked, inherited)
        runpy.run_module(asked.words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(code or 0))


def _prepare(asked: Asked, inherited: set[str]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(asked.streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(asked.environment)
    os.chdir(asked.folder)
    sys.argv = asked.words
    sys.dont_write_bytecode = bool(asked.environment.get("PYTHONDONTWRITEBYTECODE"))
    own = [asked.folder, *asked.environment["PYTHONPATH"].split(os.pathsep)]
    sys.path[:0] = [path for path in own if path not in inherited]
    importlib.invalidate_caches()
    if asked.words[0] == "diffmbrl.cli":
        numpy = sys.modules.pop("numpy")  # it was imported after the pins were set, here too
        importlib.import_module("diffmbrl.pinned")
        sys.modules["numpy"] = numpy


if __name__ == "__main__":
    serve(sys.argv[1])
