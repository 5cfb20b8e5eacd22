"""All that this project knows of Snakemake beyond its documentation, in one place.

Two things are needed that Snakemake does not offer: its records of outputs written from our
manifests, and the plan as data. A test names every private name that is used here.
"""

import base64
import io
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import yaml

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline.files import write_atomic

FOLDER = Path(".snakemake")
LOCKS = FOLDER / "locks"
FORMAT = 6  # of records; older ones' params are ignored by Snakemake, which then reruns nothing
_NAME_MAX = 254  # characters of one path component of a record's name


@dataclass(frozen=True)
class Planned:
    """One job of the workflow.

    Attributes:
        rule: its rule.
        outputs: the files that it makes.
        inputs: the files that it reads.
        params: its fingerprint today, as strings.
        pending: whether Snakemake would run it now.
    """

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    pending: bool


def check(workflow: Any) -> None:
    """Refuses a Snakemake, or a way to call it, under which changes would not be seen.

    Args:
        workflow: Snakemake's own, as a Snakefile sees it.

    Raises:
        UserError: another format of records, another backend for them, or a storage provider.
    """
    from snakemake import __version__, persistence
    from snakemake.settings.enums import PersistenceBackend

    found = persistence.RECORD_FORMAT_VERSION
    if found != FORMAT:
        raise UserError(
            f"snakemake {__version__} keeps records of format {found}; this project writes format "
            f"{FORMAT}, and changes would not be seen: install the version in {LAYOUT.lock}"
        )
    backend = workflow.workflow_settings.persistence_backend
    if backend != PersistenceBackend.FILE:
        raise UserError(
            f"--persistence-backend {backend}: changes would not be seen; use the default, file"
        )
    provider = workflow.storage_settings.default_storage_provider
    if provider is not None:
        raise UserError(
            f"--default-storage-provider {provider}: manifests, the audit and the detection of "
            "changes need the files themselves; use a shared file system, and DVC for remotes"
        )


def submits(workflow: Any) -> bool:
    """Whether a Snakemake hands out jobs; on a cluster, a job runs in two more that do not.

    Args:
        workflow: Snakemake's own, as a Snakefile sees it.
    """
    return workflow.is_main_process


def cluster(workflow: Any) -> str | None:
    """The executor that takes the jobs of a run that has started; None where they run here.

    Args:
        workflow: Snakemake's own, as a Snakefile sees it.
    """
    return None if workflow.local_exec else workflow.executor_plugin.name


def end_on_sigterm() -> None:
    """Lets SIGTERM end a run that has started, in every case.

    Snakemake's own handler takes a lock that the interrupted thread may hold, and then waits for
    itself for ever (seen in 1 of 25 runs); in a thread of its own it can wait for that lock.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    theirs = signal.getsignal(signal.SIGTERM)
    if callable(theirs):
        signal.signal(
            signal.SIGTERM, lambda *told: threading.Thread(target=theirs, args=told).start()
        )


def declared(function: Callable, *names: str) -> Callable:
    """A function with its parameters' names written on it.

    Snakemake asks for them for every param of every job, and Python takes longer to work them
    out than most of these functions take.
    """

    def call(*args, **kwargs):
        return function(*args, **kwargs)

    kind = Parameter.POSITIONAL_OR_KEYWORD
    call.__signature__ = Signature([Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
    return call


def plan(config: Mapping[str, Any] | None = None, targets: Sequence[str] = ()) -> list[Planned]:
    """Every job behind some targets, inputs before the jobs that read them.

    Args:
        config: what `snakemake --config` would be given.
        targets: files that jobs make; none stands for `all`.

    Raises:
        UserError: Snakemake refuses the workflow; the message is its own.
    """
    with _workflow(config or {}) as api:
        from snakemake.api import DAGSettings  # slow to import, and only commands need it
        from snakemake.settings.enums import RerunTrigger

        workflow = api._workflow
        profile = yaml.safe_load(LAYOUT.profile.read_text(encoding="utf-8"))
        api.dag(
            DAGSettings(
                targets=frozenset(targets),
                rerun_triggers=RerunTrigger.parse_choices_set(profile["rerun-triggers"]),
                max_checksum_file_size=profile["max-checksum-file-size"],
            )
        )
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        dag = workflow.dag
        return [
            Planned(
                job.rule.name,
                tuple(map(str, job.output)),
                tuple(map(str, job.input)),
                tuple(map(str, job.non_derived_params)),
                bool(dag.needrun(job)),
            )
            for level in dag.toposorted()
            for job in level
            if job.output
        ]


@contextmanager
def _workflow(config: Mapping[str, Any]) -> Iterator[Any]:
    """The parsed workflow, Snakemake's own output held back unless it fails."""
    from snakemake.api import (
        ConfigSettings,
        OutputSettings,
        ResourceSettings,
        SnakemakeApi,
    )
    from snakemake.exceptions import WorkflowError
    from snakemake.settings.enums import Quietness

    heard = io.StringIO()
    try:
        with redirect_stdout(heard), redirect_stderr(heard):
            settings = OutputSettings(quiet={Quietness.ALL}, enable_file_logging=False)
            with SnakemakeApi(settings) as api:
                yield api.workflow(
                    ResourceSettings(cores=1),
                    ConfigSettings(config=dict(config)),
                    snakefile=LAYOUT.snakefile,
                )
    except WorkflowError as error:
        raise UserError(f"the workflow cannot be planned: {error}") from None
    finally:
        logging.getLogger("snakemake").handlers.clear()


def make_folders() -> None:
    """The folders that Snakemake expects beside its records."""
    for name in ("metadata", "incomplete"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)


def record_path(output: str) -> Path:
    """Where Snakemake's file backend keeps the record of an output."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _NAME_MAX] for i in range(0, len(name), _NAME_MAX)]
    return (FOLDER / "metadata").joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def record(
    output: str,
    params: Sequence[str],
    inputs: Mapping[str, str] | None = None,
    rule: str | None = None,
    times: tuple[float, float] | None = None,
) -> bool:
    """Makes Snakemake know of an output what we say; whether that was news.

    Args:
        output: its path.
        params: what its fingerprint was, as strings.
        inputs: the sha256 of each input by path, None where they are not known.
        rule: that made it.
        times: when its job started and ended, seconds since the epoch, which only Snakemake's
            report shows; None where that is not known.
    """
    wanted = {
        "record_format_version": FORMAT,
        "params": sorted(map(repr, params)),
        "input": None if inputs is None else sorted(inputs),
        "input_checksums": {path: f"sha256:{digest}" for path, digest in (inputs or {}).items()},
        "rule": rule or "",  # Snakemake's report sorts by it, and cannot sort None
        "code": None,  # rules hold no logic: the command is fixed by fingerprint and inputs
        **({"starttime": times[0], "endtime": times[1]} if times else {}),
    }
    path = record_path(output)
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = {}
    if all(old.get(name) == value for name, value in wanted.items()):
        return False
    rest: dict[str, Any] = {"incomplete": False, "log": []}
    if times is None:
        rest["starttime"] = rest["endtime"] = Path(output).stat().st_mtime
    write_atomic(path, json.dumps({**rest, **old, **wanted}))
    return True
