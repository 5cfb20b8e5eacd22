"""The job wrapper: runs one stage, all or nothing, and writes down what made its outputs.

Outputs appear under their names only when all are whole, each with its manifest. Work that was
done before, by its key, is taken from the store.
"""

import errno
import importlib
import importlib.util
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline import fingerprint, manifest, processes, report, store
from diffmbrl.pipeline.files import STATE, Remembered, hashing
from diffmbrl.pipeline.stage import Inputs, Job, Outputs, parse_settings

_WATCHED = {("config",), ("data",), ("figures",)}


class CodeError(UserError):
    """The code that ran is not the code that the rule named."""

    code = 3


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


def run_stage(
    stage: str,
    strings: Sequence[str],
    inputs: Inputs,
    outputs: Outputs,
    threads: int = 1,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Runs a stage and moves its outputs into place once all of them are whole.

    Args:
        stage: the stage's module within the package, such as `implicit.train`.
        strings: its settings, `name=json`, and the code that it was planned with, `name@hash`
            (none where a person runs it).
        inputs: by name.
        outputs: by name.
        threads: how many cores it may use.
        prepare: called before a stage that uses JAX.

    Raises:
        CodeError: the code is not what the rule named, changed while the stage ran, or reached
            beyond what the fingerprint covers.
        UserError: an input is missing, a folder cannot be written, the disk is full, or the
            stage itself refuses what it was given.
    """
    started = time.monotonic()
    work = _Work(stage, strings, inputs, outputs)
    work.check()
    processes.end_with_snakemake(work.clean)
    try:
        with processes.noted(stage, [p.as_posix() for p in outputs.values()]), hashing() as digest:
            how = work.do(digest, threads, prepare)
    except OSError as error:
        raise _explain(error, outputs) from error
    finally:
        work.clean()
    fingerprint.save()
    first = next(iter(outputs.values()))
    sys.stderr.write(f"{first}: {how} in {time.monotonic() - started:.1f} s\n")


class _Work:
    """One run of a stage: what it was asked for, and its outputs while they are not whole."""

    def __init__(self, stage: str, strings: Sequence[str], inputs: Inputs, outputs: Outputs):
        self.stage, self.inputs, self.outputs = stage, inputs, outputs
        self.code = fingerprint.of_stage(stage)
        self.settings = [string for string in strings if manifest.is_setting(string)]
        self.planned = [string for string in strings if not manifest.is_setting(string)]
        self.partial = {
            name: path.with_name(f".partial-{os.getpid()}-{path.name}")
            for name, path in outputs.items()
        }

    def check(self) -> None:
        """Refuses code that is not what was planned, and inputs that are not there."""
        if self.planned:
            self._same_code(self.planned, "between planning and the job's start")
        for name, paths in self.inputs.items():
            for path in paths:
                if not path.is_file():
                    raise DataError(f"{path}: input {name!r} of {self.stage} does not exist")

    def clean(self) -> None:
        """Drops what is unfinished."""
        for path in self.partial.values():
            if path.is_file():
                path.unlink(missing_ok=True)

    def do(self, digest: Remembered, threads: int, prepare: Callable[[], None]) -> str:
        """Makes or fetches the outputs and writes their manifests; says which it was."""
        for path in self.outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        files = _hash_inputs(self.inputs, digest)
        strings = [*self.code, *self.settings]
        key = manifest.key(self.stage, strings, files, list(self.outputs))
        known = store.serve(key, self.partial)
        scratch = STATE / "scratch" / key[:16]
        if known is None:
            settings = parse_settings(self.settings)
            job = Job(settings, dict(self.inputs), self.partial, threads, scratch)
            made = _compute(self.stage, job, prepare)
            self._same_code(self.code, "while the job ran")
            if _hash_inputs(self.inputs, digest) != files:
                raise DataError(f"{self.stage}: an input changed while the job ran; run again")
        else:
            made = known["report"]
        outputs = {
            name: {"path": path.as_posix(), "sha256": digest(self.partial[name])}
            for name, path in self.outputs.items()
        }
        proof = {
            "stage": self.stage, "key": key, "fingerprint": strings, "inputs": files,
            "outputs": outputs,
        }  # fmt: skip
        store.put(proof, made, self.partial)
        for name, path in self.outputs.items():
            os.replace(self.partial[name], path)
        for path in self.outputs.values():
            manifest.write(manifest.build(path.as_posix(), proof, made))
        shutil.rmtree(scratch, ignore_errors=True)
        return f"made by {self.stage}" if known is None else "served from the store"

    def _same_code(self, before: Sequence[str], when: str) -> None:
        fingerprint.forget()
        now = fingerprint.of_stage(self.stage)
        changed = sorted({string.partition("@")[0] for string in set(before) ^ set(now)})
        if changed:
            raise CodeError(
                f"{self.stage}: {', '.join(changed)} changed {when}; run snakemake again"
            )


def _compute(stage: str, job: Job, prepare: Callable[[], None]) -> dict[str, Any]:
    """Runs a stage in this process, checks that it stayed within its fingerprint; its report."""
    started = time.time()
    before = set(sys.modules)
    if fingerprint.uses_jax(stage):
        prepare()
    _drop_bytecode(stage)
    with _reading() as read:
        importlib.import_module(f"{fingerprint.PACKAGE}.{stage}").run(job)
    for name, path in job.outputs.items():
        if not path.is_file():
            raise RuntimeError(f"{stage} did not write its output {name!r}")
    ours = {name for name in set(sys.modules) - before if name.startswith(fingerprint.PACKAGE)}
    machinery = {name for name in ours if name.startswith(fingerprint.MACHINERY)}
    beyond = sorted(ours - machinery - fingerprint.closure(stage))
    if beyond:
        raise CodeError(
            f"{stage} imported {', '.join(beyond)}, which its fingerprint does not cover; "
            "import it with an import statement that names it"
        )
    inputs = {path for paths in job.inputs.values() for path in paths}
    undeclared = sorted(map(str, read - inputs - set(job.outputs.values())))
    if undeclared:
        raise CodeError(
            f"{stage} read {', '.join(undeclared)}, which its rule does not name as an input"
        )
    return report.of_job(started, job.threads)


def _drop_bytecode(stage: str) -> None:
    """Makes the import see the source that was hashed: Python trusts size and mtime alone."""
    for module in fingerprint.closure(stage):
        with suppress(OSError, NotImplementedError):
            os.unlink(importlib.util.cache_from_source(str(fingerprint.path_of(module))))


@contextmanager
def _reading() -> Iterator[set[Path]]:
    """Collects the files of the config and data folders that Python opens meanwhile."""
    read: set[Path] = set()
    here, active = Path.cwd(), [True]

    def hear(event: str, arguments: tuple) -> None:
        if active and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path = Path(os.path.abspath(arguments[0]))
            if path.is_relative_to(here) and path.relative_to(here).parts[:1] in _WATCHED:
                read.add(path.relative_to(here))

    sys.addaudithook(hear)  # there is no way to remove one
    try:
        yield read
    finally:
        active.clear()


def _hash_inputs(inputs: Inputs, digest: Remembered) -> dict[str, list[dict[str, str]]]:
    """Of each input file its path, its bytes' hash and, where it is known, its maker's key."""
    files: dict[str, list[dict[str, str]]] = {}
    for role, paths in inputs.items():
        files[role] = []
        for path in paths:
            entry = {"path": path.as_posix(), "sha256": digest(path)}
            try:
                maker = manifest.read(manifest.path_of(path.as_posix()))
                if manifest.recorded(maker) == entry["sha256"]:
                    entry["made_by"] = maker["proof"]["key"]
            except (FileNotFoundError, DataError):
                pass
            files[role].append(entry)
    return files


def _explain(error: OSError, outputs: Outputs) -> Exception:
    folder = next(iter(outputs.values())).parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{folder}: the disk is full; free some space and run again")
    where = error.filename or folder
    refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
    cannot_exist = error.errno == errno.ENOENT and str(folder).startswith(str(where))
    if refused or cannot_exist:
        return UserError(f"{where}: cannot be written ({error.strerror}); check its permissions")
    return error
