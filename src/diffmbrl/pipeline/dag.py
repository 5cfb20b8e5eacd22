"""The workflow as Snakemake plans it today: which jobs there are, and which would run."""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.errors import UserError

LARGEST_CHECKSUM = 10**12  # bytes; as in workflow/profiles/default


@dataclass(frozen=True)
class Planned:
    """One job of the workflow.

    Attributes:
        rule: its rule.
        outputs: the files that it makes.
        inputs: the files that it reads.
        params: its fingerprint today.
        pending: whether Snakemake would run it now.
    """

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    pending: bool


def plan(config: Mapping[str, Any] | None = None, targets: Sequence[str] = ()) -> list[Planned]:
    """Every job behind some targets, inputs before the jobs that read them.

    Args:
        config: what `snakemake --config` would be given.
        targets: files; those that no rule makes are left out. None stands for `all`.

    Raises:
        UserError: Snakemake refuses the workflow; the message is its own.
    """
    with _workflow(config or {}) as api:
        from snakemake.api import DAGSettings  # slow to import, and only commands need it
        from snakemake.settings.enums import RerunTrigger

        workflow = api._workflow
        makeable = {t for t in targets if any(r.is_producer(t) for r in workflow.rules)}
        if targets and not makeable:
            return []
        api.dag(
            DAGSettings(
                targets=frozenset(makeable),
                rerun_triggers=frozenset({RerunTrigger.PARAMS, RerunTrigger.INPUT}),
                max_checksum_file_size=LARGEST_CHECKSUM,
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
                tuple(map(str, job.params)),
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
                    snakefile=Path("workflow/Snakefile"),
                )
    except WorkflowError as error:
        raise UserError(f"the workflow cannot be planned: {error}") from None
    finally:
        logging.getLogger("snakemake").handlers.clear()
