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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffmbrl import numerics
from diffmbrl.errors import DataError, UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import environment, fingerprint, manifests, report, store
from diffmbrl.pipeline.ending import Log, at_work
from diffmbrl.pipeline.files import STATE, Remembered, hashing, partial_of, partial_prefix
from diffmbrl.pipeline.proof import File, Fingerprint, Manifest, Proof
from diffmbrl.pipeline.stage import Inputs, Job, Outputs


class CodeError(UserError):
    """The code that ran is not the code that the rule named."""

    code = 3


def run_stage(
    stage: str,
    plan: Sequence[str],
    inputs: Inputs,
    outputs: Outputs,
    *,
    threads: int = 1,
    device: str = "auto",
    packages: str = "locked",
    log: Log | None = None,
) -> None:
    """Runs a stage and moves its outputs into place once all of them are whole.

    Args:
        stage: the stage's module within the package, such as `implicit.train`.
        plan: the fingerprint's strings: settings `name=json`, and the code that it was planned
            with (none where a person runs it).
        inputs: by role.
        outputs: by role.
        threads: how many cores it may use.
        device: auto, cpu or gpu.
        packages: whether packages that are not the lock's are refused (locked) or named (any).
        log: is told why the job ended, if that is before its work is done.

    Raises:
        CodeError: the code is not what the rule named, changed while the stage ran, or reached
            beyond what the fingerprint covers.
        UserError: an input is missing, a folder cannot be written, the disk is full, the
            packages or the processor are not right, or the stage refuses what it was given.
    """
    started = time.monotonic()
    work = _Work(stage, Fingerprint.parse(plan), inputs, outputs)
    work.check()
    platform = numerics.platform(work.computes_on(device), environment.check(packages))
    names = [path.as_posix() for path in outputs.values()]
    try:
        with at_work(stage, names, [work.clean], log or Log(None)), hashing() as digest:
            how = work.do(digest, threads, device, platform)
    except OSError as error:
        raise _explain(error, outputs) from error
    finally:
        work.clean()
    fingerprint.save()
    first = next(iter(outputs.values()))
    sys.stderr.write(f"{first}: {how} in {time.monotonic() - started:.1f} s\n")


class _Work:
    """One run of a stage: what it was asked for, and its outputs while they are not whole."""

    def __init__(self, stage: str, planned: Fingerprint, inputs: Inputs, outputs: Outputs):
        self.stage, self.inputs, self.outputs = stage, inputs, outputs
        self.planned, self.now = planned, fingerprint.of_job(stage, planned.settings)
        self.partial = {role: partial_of(path) for role, path in outputs.items()}
        self.scratch: Path | None = None

    def check(self) -> None:
        """Refuses code that is not what was planned, and inputs that are not there."""
        if self.planned.code:
            self._same_code(self.planned, "between planning and the job's start")
        for role, paths in self.inputs.items():
            for path in paths:
                if not path.is_file():
                    raise DataError(f"{path}: input {role!r} of {self.stage} does not exist")

    def computes_on(self, device: str) -> str:
        """What the stage computes on; asks JAX, which takes a second, only where it must."""
        numerics.check()
        if device != "gpu" and not numerics.has_gpu_plugin():
            return "cpu"
        return self.set_up(device)

    def set_up(self, device: str) -> str:
        """Prepares the device of a stage that needs one; what that is."""
        if not fingerprint.needs_setup(self.stage, *self.now.entries):
            return "cpu"
        return importlib.import_module(f"{LAYOUT.package}.{LAYOUT.setup}").configure(device)

    def clean(self) -> None:
        """Drops what is unfinished; whole checkpoints stay."""
        for path in self.partial.values():
            if path.is_file():
                path.unlink(missing_ok=True)
        for path in self.scratch.rglob(f"{partial_prefix()}*") if self.scratch else ():
            path.unlink(missing_ok=True)

    def do(self, digest: Remembered, threads: int, device: str, platform: str) -> str:
        """Makes or fetches the outputs and writes their manifests; says which it was."""
        for path in self.outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        files = _hash_inputs(self.inputs, digest)
        blank = {role: File(path.as_posix(), "") for role, path in self.outputs.items()}
        proof = Proof(self.stage, self.now, platform, files, blank)
        known = store.serve(proof.key, self.partial)
        self.scratch = STATE / "scratch" / proof.key[:16]
        if known is None:
            self.set_up(device)
            settings = dict(self.now.settings)
            job = Job(settings, dict(self.inputs), self.partial, threads, self.scratch)
            how = _compute(self.stage, list(self.now.entries), job, platform)
            self._same_code(self.now, "while the job ran")
            if _hash_inputs(self.inputs, digest) != files:
                raise DataError(f"{self.stage}: an input changed while the job ran; run again")
        else:
            how = known
        made = {r: File(p.as_posix(), digest(self.partial[r])) for r, p in self.outputs.items()}
        self._put_in_place(replace(proof, outputs=made), how)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return f"made by {self.stage}" if known is None else "served from the store"

    def _put_in_place(self, proof: Proof, how: Mapping[str, Any]) -> None:
        """Manifests first: no output is ever there without one that is its own or newer."""
        store.put(proof, how, self.partial)
        for path in self.outputs.values():
            manifests.write(Manifest(path.as_posix(), proof, how))
        for role, path in self.outputs.items():
            os.replace(self.partial[role], path)

    def _same_code(self, before: Fingerprint, when: str) -> None:
        fingerprint.forget()
        now = fingerprint.of_job(self.stage, self.planned.settings)
        changed = [change.detail.split()[0] for change in before.changes(now)]
        if changed:
            raise CodeError(
                f"{self.stage}: {', '.join(changed)} changed {when}; run snakemake again"
            )


def _compute(stage: str, entries: Sequence[str], job: Job, platform: str) -> dict[str, Any]:
    """Runs a stage in this process, checks that it stayed within its fingerprint; its report."""
    started = time.time()
    before = set(sys.modules)
    covered = fingerprint.closure(stage, *entries)
    _drop_bytecode(covered)
    with _reading() as read:
        importlib.import_module(f"{LAYOUT.package}.{stage}").run(job)
    for role, path in job.outputs.items():
        if not path.is_file():
            raise RuntimeError(f"{stage} did not write its output {role!r}")
    ours = {name for name in set(sys.modules) - before if name.startswith(LAYOUT.package)}
    beyond = sorted(name for name in ours - covered if not fingerprint.is_machinery(name))
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
    return report.of_job(started, job.threads, platform)


def _drop_bytecode(modules: set[str]) -> None:
    """Makes the import see the source that was hashed: Python trusts size and mtime alone."""
    for module in modules:
        with suppress(OSError, NotImplementedError):
            os.unlink(importlib.util.cache_from_source(str(fingerprint.path_of(module))))


@contextmanager
def _reading() -> Iterator[set[Path]]:
    """Collects the files of the config and data folders that Python opens meanwhile."""
    read: set[Path] = set()
    here, active = Path.cwd(), [True]
    watched = {folder.parts[0] for folder in LAYOUT.watched}

    def hear(event: str, arguments: tuple) -> None:
        if active and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path = Path(os.path.abspath(arguments[0]))
            if path.is_relative_to(here) and path.relative_to(here).parts[0] in watched:
                read.add(path.relative_to(here))

    sys.addaudithook(hear)  # there is no way to remove one
    try:
        yield read
    finally:
        active.clear()


def _hash_inputs(inputs: Inputs, digest: Remembered) -> dict[str, list[File]]:
    """Of each input file its path, its bytes' hash and, where it is known, its maker's key."""
    return {role: [_hash_input(path, digest) for path in paths] for role, paths in inputs.items()}


def _hash_input(path: Path, digest: Remembered) -> File:
    file = File(path.as_posix(), digest(path))
    try:
        maker = manifests.read(path)
    except (FileNotFoundError, DataError):
        return file
    return replace(file, made_by=maker.proof.key) if maker.sha256 == file.sha256 else file


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
