"""Files: hashes that are remembered while a file stays as it is, atomic writes, cheap copies."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STATE = Path(".diffmbrl")  # local to a checkout; deleting it costs time, never a result
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
    """A function of files' contents, remembered on disk while a file's stamp stays the same."""

    def __init__(self, name: str, compute: Callable[[Path], Any]):
        """Keeps answers of `compute` in a file of this name in the state folder."""
        self._file, self._compute = STATE / name, compute
        try:
            self._known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}
        self._changed = False

    def __call__(self, path: Path) -> Any:
        """The function's value at a file; OSError where it cannot be read."""
        name, now = str(path), stamp(path)
        known = self._known.get(name)
        if known is not None and known[0] == now:
            return known[1]
        value = self._compute(path)
        if stamp(path) == now and time.time() - now[2] / 1e9 > _SETTLED:
            self._known[name] = [now, value]
            self._changed = True
        return value

    def save(self) -> None:
        """Writes down what was learned; a folder that cannot be written only costs time."""
        if self._changed:
            kept = {name: known for name, known in self._known.items() if os.path.exists(name)}
            try:
                write_atomic(self._file, json.dumps(kept))
            except OSError:
                return
            self._changed = False


@contextmanager
def hashing() -> Iterator[Remembered]:
    """A remembered `digest`, saved at the end."""
    remembered = Remembered("hashes.json", digest)
    try:
        yield remembered
    finally:
        remembered.save()


def write_atomic(path: Path, text: str) -> None:
    """Writes a whole text file, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
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
