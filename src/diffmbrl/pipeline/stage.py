"""The job wrapper: runs one stage, all or nothing.

A stage is a module with `run(job)`. It gets its settings, the paths of its inputs and where to
write its outputs, and nothing else; outputs appear under their names only when all are whole.
"""

import errno
import importlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError, UserError


@dataclass(frozen=True)
class Job:
    """What a stage is given.

    Attributes:
        settings: the config values that the stage uses, by name.
        inputs: paths of the inputs, by name.
        outputs: where to write each output, by name; moved into place on success.
        threads: how many cores the job may use.
        scratch: a folder for unfinished work; it outlives a failed job, so that the next
            one with the same settings can go on from there.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Path]]
    outputs: Mapping[str, Path]
    threads: int
    scratch: Path

    def input(self, name: str) -> Path:
        """The path of an input that is one file."""
        (path,) = self.inputs[name]
        return path


@contextmanager
def logged(path: Path | None) -> Iterator[None]:
    """Writes to a log file how the work inside went; a traceback only for our own mistakes."""
    lines = [f"started {time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(sys.argv)}"]
    try:
        yield
        lines.append("finished")
    except UserError as error:
        lines.append(f"error: {error}")
        raise
    except BaseException:
        lines.append(traceback.format_exc())
        raise
    finally:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse_settings(strings: Sequence[str]) -> dict[str, Any]:
    """Settings from `name=<canonical json>` strings, the form they have in a rule's params."""
    settings = {}
    for string in strings:
        name, equals, value = string.partition("=")
        try:
            settings[name] = json.loads(value) if equals else None
        except json.JSONDecodeError:
            raise UserError(f"{string!r}: the value is not JSON") from None
        if not equals:
            raise UserError(f"{string!r}: give settings as name=<json>")
    return settings


def run_stage(
    module: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Path]],
    outputs: Mapping[str, Path],
    threads: int = 1,
) -> None:
    """Runs a stage and moves its outputs into place once all of them are whole.

    Raises:
        UserError: an input is missing, a folder cannot be written, the disk is full, or the
            stage itself refuses what it was given.
    """
    for name, paths in inputs.items():
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path}: input {name!r} of {module} does not exist")
    scratch = Path(".diffmbrl/scratch") / "-".join([module, *(p.stem for p in outputs.values())])
    partial = {
        name: path.with_name(f".partial-{os.getpid()}-{path.name}")
        for name, path in outputs.items()
    }
    started = time.monotonic()
    try:
        for path in outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        job = Job(dict(settings), dict(inputs), partial, threads, scratch)
        importlib.import_module(module).run(job)
        for name, path in partial.items():
            if not path.is_file():
                raise RuntimeError(f"{module} did not write its output {name!r}")
        for name, path in outputs.items():
            os.replace(partial[name], path)
    except OSError as error:
        raise _explain(error, outputs) from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"{module}: done in {time.monotonic() - started:.1f} s", file=sys.stderr)


def _explain(error: OSError, outputs: Mapping[str, Path]) -> Exception:
    folder = next(iter(outputs.values())).parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{folder}: the disk is full; free some space and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        where = error.filename or folder
        return UserError(f"{where}: cannot be written ({error.strerror}); check its permissions")
    return error
