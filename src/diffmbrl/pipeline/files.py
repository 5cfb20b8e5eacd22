"""Files: hashes that are remembered while a file stays as it is, atomic writes, cheap copies."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffmbrl.layout import LAYOUT

STATE = LAYOUT.state
PARTIAL = ".partial-"
_FICLONE = 0x40049409
_SETTLED = 0.1  # s; a younger file may change again within the clock's tick, so do not trust it


def digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def stamp(path: Path) -> list[int]:
    """What changes whenever a file is written, even by tools that put its old mtime back."""
    s = os.stat(path)
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


class Remembered:
    """A function of files' contents, remembered on disk while a file's stamp stays the same.

    Kept in parts by the files' paths, so that a job reads and writes what it needs of many files.
    """

    def __init__(self, name: str, compute: Callable[[Path], Any], parts: int = 1):
        """Keeps answers of `compute` in a folder of this name in the state folder."""
        self._folder, self._compute, self._parts = STATE / name, compute, parts
        self._known: dict[int, dict[str, Any]] = {}
        self._changed: set[int] = set()

    def __call__(self, path: Path) -> Any:
        """The function's value at a file; OSError where it cannot be read."""
        name, now = str(path), stamp(path)
        part = zlib.crc32(name.encode()) % self._parts
        known = self._of(part).get(name)
        if known is not None and known[0] == now:
            return known[1]
        value = self._compute(path)
        if stamp(path) == now and time.time() - now[2] / 1e9 > _SETTLED:
            self._of(part)[name] = [now, value]
            self._changed.add(part)
        return value

    def save(self) -> None:
        """Writes down what was learned; a folder that cannot be written only costs time."""
        for part in sorted(self._changed):
            known = self._known[part]
            kept = {name: found for name, found in known.items() if os.path.exists(name)}
            try:
                write_atomic(self._file(part), json.dumps(kept))
            except OSError:
                return
        self._changed.clear()

    def _of(self, part: int) -> dict[str, Any]:
        if part not in self._known:
            try:
                self._known[part] = json.loads(self._file(part).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self._known[part] = {}
        return self._known[part]

    def _file(self, part: int) -> Path:
        return self._folder / f"{part}.json"


@contextmanager
def hashing() -> Iterator[Remembered]:
    """A remembered `digest`, saved at the end."""
    remembered = Remembered("hashes", digest, parts=64)
    try:
        yield remembered
    finally:
        remembered.save()


def partial_of(path: Path) -> Path:
    """A name beside a file for its unfinished bytes, which no other process anywhere uses."""
    return path.with_name(f"{PARTIAL}{unique()}-{path.name}")


def partial_prefix() -> str:
    """How the names of this process's unfinished files begin, checkpoints' too."""
    return f"{PARTIAL}{_here()}"


def unique() -> str:
    """A name of this moment: host, process and a random part, since pids repeat across hosts."""
    return f"{_here()}{uuid.uuid4().hex[:8]}"


def _here() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-"


def write_atomic(path: Path, text: str) -> None:
    """Writes a whole text file, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copies bytes, sharing blocks where the file system can."""
    with open(source, "rb") as old, open(target, "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            shutil.copyfileobj(old, new, 1 << 20)
