"""Snakemake's private names, in one place: gone ones are named, dangerous settings refused."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from diffmbrl.errors import UserError
from diffmbrl.pipeline import snakemake

PRIVATE = {  # where: names that diffmbrl.pipeline.snakemake uses, or relies on being so
    "snakemake.persistence": ["RECORD_FORMAT_VERSION", "MetadataRecord"],
    "snakemake.persistence.file:FilePersistence": ["metadata", "params_changed"],
    "snakemake.api:SnakemakeApi": ["workflow"],
    "snakemake.api:WorkflowApi": ["dag", "_workflow"],
    "snakemake.workflow:Workflow": [
        "_prepare_dag", "_build_dag", "dag", "rules", "workflow_settings", "storage_settings",
        "is_main_process", "local_exec", "executor_plugin",
    ],
    "snakemake.dag:DAG": ["toposorted", "needrun"],
    "snakemake.jobs:Job": ["non_derived_params"],
    "snakemake.settings.types:WorkflowSettings": ["persistence_backend"],
    "snakemake.settings.types:StorageSettings": ["default_storage_provider"],
    "snakemake.settings.enums:RerunTrigger": ["parse_choices_set"],
}  # fmt: skip
RECORD = {"rule", "input", "params", "code", "record_format_version", "input_checksums",
          "starttime", "endtime", "incomplete", "log"}  # fmt: skip


@pytest.mark.parametrize("where", PRIVATE)
def test_the_installed_snakemake_has_every_private_name(where):
    import importlib

    module, _, name = where.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, name) if name else owner
    fields = getattr(owner, "__dataclass_fields__", ())
    missing = [name for name in PRIVATE[where] if not hasattr(owner, name) and name not in fields]
    assert not missing, (
        f"this Snakemake has no {', '.join(missing)} in {where}: adapt diffmbrl.pipeline.snakemake"
    )


def test_records_have_the_fields_and_the_format_that_are_written():
    from snakemake import persistence

    assert persistence.RECORD_FORMAT_VERSION == snakemake.FORMAT
    assert set(persistence.MetadataRecord.model_fields) >= RECORD


def called_with(backend="file", provider=None):
    from snakemake.settings.enums import PersistenceBackend

    return SimpleNamespace(
        workflow_settings=SimpleNamespace(
            persistence_backend=PersistenceBackend.parse_choice(backend)
        ),
        storage_settings=SimpleNamespace(default_storage_provider=provider),
    )


def test_what_would_hide_changes_is_refused(monkeypatch):
    from snakemake import persistence

    snakemake.check(called_with())
    with pytest.raises(UserError, match="--persistence-backend db: changes would not be seen"):
        snakemake.check(called_with(backend="db"))
    with pytest.raises(UserError, match="--default-storage-provider s3: manifests"):
        snakemake.check(called_with(provider="s3"))
    monkeypatch.setattr(persistence, "RECORD_FORMAT_VERSION", 7)
    with pytest.raises(UserError, match="keeps records of format 7; this project writes format 6"):
        snakemake.check(called_with())


def test_the_executor_of_a_cluster_is_named():
    def run(name, here):
        plugin = SimpleNamespace(name=name)
        return SimpleNamespace(local_exec=here, executor_plugin=plugin)

    assert snakemake.cluster(run("slurm", here=False)) == "slurm"
    assert snakemake.cluster(run("local", here=True)) is None


SIGTERM_UNDER_A_LOCK = """
import os, signal, threading
from diffmbrl.pipeline import snakemake

lock, ended = threading.Lock(), threading.Event()

def as_snakemake_does(*_):
    with lock:
        ended.set()

signal.signal(signal.SIGTERM, as_snakemake_does)
snakemake.end_on_sigterm()
with lock:
    os.kill(os.getpid(), signal.SIGTERM)
assert ended.wait(10)
"""


def test_sigterm_is_heard_while_the_scheduler_holds_its_lock():
    subprocess.run([sys.executable, "-c", SIGTERM_UNDER_A_LOCK], check=True, timeout=60)
