"""How a job ends: its log, and what it leaves when it is told to end, or its Snakemake is gone."""

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.pipeline import processes, report

EVERY = 0.3  # s between two looks at whether the Snakemake is there
CODE = 128 + signal.SIGTERM  # exit code of a job that ended before its work was done
CANCELLED = "SIGTERM: cancelled, or out of time"


class Log:
    """The lines of a job's log, on disk after each, so that even SIGKILL leaves what is known."""

    def __init__(self, path: Path | None):
        """Starts a log in a file; None: there is none."""
        self._path, self._lines = path, list[str]()
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """Adds a line."""
        self._lines.append(line)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")

    def ended(self, why: str) -> None:
        """Says that the job ended early, here and on standard error."""
        seconds = time.monotonic() - self._started
        line = f"ended after {seconds:.0f} s: {why}; run snakemake again, training goes on"
        self.say(line)
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def logged(path: Path | None) -> Iterator[Log]:
    """Writes to a log file how the work inside went; a traceback only for our own mistakes.

    SIGTERM is told of too, also before `at_work` watches for it.
    """
    log, job = Log(path), report.job_id()
    before = signal.signal(signal.SIGTERM, lambda number, frame: _end([], log, CANCELLED))
    where = f" (job {job} on {processes.here().split()[0]})" if job else ""
    log.say(f"started {time.strftime('%Y-%m-%d %H:%M:%S')}{where}: {' '.join(sys.argv)}")
    try:
        yield log
        log.say("finished")
    except UserError as error:
        log.say(f"error: {error}")
        raise
    except KeyboardInterrupt:
        log.say("interrupted")
        raise
    except BaseException:
        log.say(traceback.format_exc())
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def at_work(
    what: str, outputs: Sequence[str], clean: Sequence[Callable], log: Log
) -> Iterator[None]:
    """Keeps a note of this process while the work inside goes on, which may end early.

    A SIGTERM that comes while the note is made or dropped waits until that is done, so that
    none is left behind.

    Args:
        what: the process is at.
        outputs: it makes.
        clean: are called where it ends early, to drop what is unfinished.
        log: is told why it ended early.
    """
    with ExitStack() as stack:
        with _waiting():
            note = stack.enter_context(processes.noted(what, outputs))
            drop = partial(note.unlink, missing_ok=True)
            stack.enter_context(_ending_early([*clean, drop], log))
        try:
            yield
        finally:
            with _waiting():
                stack.close()


@contextmanager
def _waiting() -> Iterator[None]:
    """Keeps SIGTERM from this thread meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ending_early(clean: Sequence[Callable], log: Log) -> Iterator[None]:
    """Ends this process at once when SIGTERM comes or the Snakemake that started it is gone.

    At once even in the middle of a long computation, where Python's own handlers have to wait.

    Args:
        clean: are called first, to drop what is unfinished.
        log: is told why.
    """
    done = threading.Event()
    with _signals() as (told, tell):
        watch = threading.Thread(target=_watch, args=(told, clean, log, done), daemon=True)
        watch.start()
        try:
            yield
        finally:
            done.set()
            os.write(tell, b"\0")
            watch.join()


@contextmanager
def _signals() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe: the numbers of signals can be read from the first as they come."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    main = threading.current_thread() is threading.main_thread()
    if main:  # nobody else may set handlers
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)
        earlier = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    try:
        yield reads, writes
    finally:
        if main:
            signal.set_wakeup_fd(earlier)
            signal.signal(signal.SIGTERM, before)
        os.close(reads)
        os.close(writes)


def _watch(told: int, clean: Sequence[Callable], log: Log, done: threading.Event) -> None:
    parent = int(os.environ.get(processes.PARENT, "0"))
    born = processes.birth(parent) if parent else None
    while not done.is_set():
        ready, _, _ = select.select([told], [], [], EVERY)
        if ready and signal.SIGTERM in os.read(told, 64):
            _end(clean, log, CANCELLED)
        if parent and (born is None or processes.birth(parent) != born):
            _end(clean, log, f"its Snakemake (pid {parent}) is gone")


def _end(clean: Sequence[Callable], log: Log, why: str) -> None:
    try:
        for drop in clean:
            drop()
        log.ended(why)
    finally:
        os._exit(CODE)
