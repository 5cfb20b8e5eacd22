"""Unfinished groups of a sweep on disk: plain arrays, one file per group, written whole or not."""

import errno
import hashlib
import io
import os
import secrets
import socket
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

PyTree = Any
Metrics = dict[str, np.ndarray]

_VANISHED = (errno.ENOENT, errno.EEXIST, errno.ESTALE)  # what a folder removed meanwhile gives
_ATTEMPTS = 100


@dataclass
class Progress:
    """How far a group has come.

    Attributes:
        done: segments that are trained.
        state: leaves of the state after them, None where training is to start.
        parts: metrics of those segments, in order, leading axes (lanes, segments).
        last: what is measured once, after the last segment, leading axes (lanes, 1).
    """

    done: int = 0
    state: list[np.ndarray] | None = None
    parts: list[Metrics] = field(default_factory=list)
    last: Metrics = field(default_factory=dict)


class Checkpoints:
    """A folder of its own for each sweep, program shape and platform.

    Two processes may save the same group at the same time, and one may remove the folder while
    another still writes to it: each file is then that of the one that wrote last.
    """

    def __init__(self, folder: Path, identity: str, configs: PyTree):
        """Finds the folder of a sweep.

        Args:
            folder: holds the folders of all sweeps.
            identity: all that the saved arrays depend on beside the configs: the number of
                segments and lanes, and the platform, since none can go on from another's work.
            configs: arrays with a leading axis of runs.
        """
        leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, configs))
        digest = hashlib.sha256(f"{identity} {structure}".encode())
        for leaf in leaves:
            digest.update(f"{leaf.dtype} {leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        self.folder = folder / digest.hexdigest()[:16]

    def load(self, index: int) -> Progress:
        """The progress of a group: none where nothing was saved, or where the file is damaged."""
        try:
            with np.load(io.BytesIO(self._path(index).read_bytes()), allow_pickle=False) as file:
                state = [file[f"s{i}"] for i in range(int(file["n_state"]))]
                kept = {prefix: _named(file, prefix) for prefix in ("m_", "l_")}
                return Progress(int(file["done"]), state, [kept["m_"]], kept["l_"])
        except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return Progress()

    def save(self, index: int, progress: Progress) -> None:
        """Writes the progress of a group in place of what was saved before."""
        state = progress.state or []
        metrics = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *progress.parts)
        arrays: dict[str, Any] = {"done": progress.done, "n_state": len(state)}
        arrays |= {f"s{i}": leaf for i, leaf in enumerate(state)}
        arrays |= {f"m_{name}": leaf for name, leaf in metrics.items()}
        arrays |= {f"l_{name}": leaf for name, leaf in progress.last.items()}
        _write_whole(self._path(index), lambda file: np.savez(file, **arrays))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index}.npz"


def _named(file: np.lib.npyio.NpzFile, prefix: str) -> Metrics:
    return {n.removeprefix(prefix): file[n] for n in file.files if n.startswith(prefix)}


def _write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Puts a whole file into place, in a folder that others may remove at any time."""
    for attempt in range(_ATTEMPTS):
        unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
        partial = path.with_name(f".partial-{unique}-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                write(file)
            os.replace(partial, path)
            return
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno not in _VANISHED or attempt == _ATTEMPTS - 1:
                raise
