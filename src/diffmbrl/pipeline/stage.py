"""The job wrapper: runs one stage, all or nothing, and writes down what made its outputs.

A stage is a module with `run(job)`. It gets its settings, the paths of its inputs and where to
write its outputs, and nothing else; outputs appear under their names only when all are whole,
each with its manifest. Work that was done before, by its key, is taken from the store.
"""

import errno
import importlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline import fingerprint, manifest, processes, report, store
from diffmbrl.pipeline.files import STATE, Remembered, hashing

Inputs = Mapping[str, Sequence[Path]]
Outputs = Mapping[str, Path]


class CodeError(UserError):
    """The code that ran is not the code that the rule named."""

    code = 3


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
    inputs: Inputs
    outputs: Outputs
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
    stage: str,
    strings: Sequence[str],
    inputs: Inputs,
    outputs: Outputs,
    threads: int = 1,
    prepare: Callable[[], None] = lambda: None,
    rule: str = "",
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
        rule: the Snakemake rule, for the record.

    Raises:
        CodeError: the code is not what the rule named, changed while the stage ran, or reached
            beyond what the fingerprint covers.
        UserError: an input is missing, a folder cannot be written, the disk is full, or the
            stage itself refuses what it was given.
    """
    code = fingerprint.of_stage(stage)
    settings = [string for string in strings if manifest.is_setting(string)]
    planned = [string for string in strings if not manifest.is_setting(string)]
    _same_code(stage, planned or code, code, "between planning and the job's start")
    for name, paths in inputs.items():
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path}: input {name!r} of {stage} does not exist")
    partial = {
        name: path.with_name(f".partial-{os.getpid()}-{path.name}")
        for name, path in outputs.items()
    }

    def clean():
        for path in partial.values():
            path.unlink(missing_ok=True)

    processes.end_with_snakemake(clean)
    started = time.monotonic()
    try:
        with processes.noted(stage, [p.as_posix() for p in outputs.values()]), hashing() as digest:
            for path in outputs.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            files = _hash_inputs(inputs, digest)
            key = manifest.key(stage, [*code, *settings], files, list(outputs))
            known = store.serve(key, partial)
            if known is None:
                job = Job(parse_settings(settings), dict(inputs), partial, threads, _scratch(key))
                made = _compute(stage, job, prepare, rule)
                fingerprint.forget()
                _same_code(stage, code, fingerprint.of_stage(stage), "while the job ran")
                if _hash_inputs(inputs, digest) != files:
                    raise DataError(f"{stage}: an input changed while the job ran; run again")
            else:
                made = known["report"]
            proof = {
                "stage": stage,
                "key": key,
                "fingerprint": [*code, *settings],
                "inputs": files,
                "outputs": {
                    name: {"path": path.as_posix(), "sha256": digest(partial[name])}
                    for name, path in outputs.items()
                },
            }
            store.put(proof, made, partial)
            _publish(proof, made, partial, outputs)
    except OSError as error:
        raise _explain(error, outputs) from error
    finally:
        clean()
    fingerprint.save()
    shutil.rmtree(_scratch(key), ignore_errors=True)
    how = f"made by {stage}" if known is None else "served from the store"
    first = next(iter(outputs.values()))
    sys.stderr.write(f"{first}: {how} in {time.monotonic() - started:.1f} s\n")


def _scratch(key: str) -> Path:
    return STATE / "scratch" / key[:16]


def _publish(proof: Mapping, made: Mapping, partial: Outputs, outputs: Outputs) -> None:
    """Moves outputs and their manifests into place."""
    for name, path in outputs.items():
        os.replace(partial[name], path)
    for path in outputs.values():
        manifest.write(manifest.build(path.as_posix(), proof, made))


def _compute(stage: str, job: Job, prepare: Callable[[], None], rule: str) -> dict[str, Any]:
    """Runs a stage in this process, checks that it stayed within its fingerprint; its report."""
    started = time.time()
    before = set(sys.modules)
    if fingerprint.uses_jax(stage):
        prepare()
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
    return report.of_job(rule, started, job.threads)


def _same_code(stage: str, planned: Sequence[str], now: Sequence[str], when: str) -> None:
    changed = sorted({string.partition("@")[0] for string in set(planned) ^ set(now)})
    if changed:
        raise CodeError(f"{stage}: {', '.join(changed)} changed {when}; run snakemake again")


def _hash_inputs(inputs: Inputs, digest: Remembered) -> dict[str, list[dict[str, str]]]:
    """Of each input file its path, its bytes' hash and, where it is known, its maker's key."""
    files = {}
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
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        where = error.filename or folder
        return UserError(f"{where}: cannot be written ({error.strerror}); check its permissions")
    return error
