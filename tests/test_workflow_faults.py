"""Kills, failures, a full disk, code edited under a job: never wrong, never stuck, no orphans."""

import os
import random
import signal
import time

import pytest

from toy.project import ALL, RUNS, built, lay_out
from toy.waiting import wait_for

CODE = "src/diffmbrl/toy"


def partial_files(project):
    return list(project.root.glob("**/.partial-*"))


def _survives_a_kill(tmp_path, seed):
    draw = random.Random(seed)
    project = lay_out(tmp_path / "p")
    snakemake = project.start(TOY_SLEEP="0.5")
    wait_for(lambda: project.jobs() or snakemake.poll() is not None)
    time.sleep(draw.uniform(0, 4))
    victim = random.Random(seed).choice([snakemake.pid, *project.jobs()])
    os.kill(victim, signal.SIGKILL)
    snakemake.wait(timeout=120)
    # No orphan runs on: one that had just been started ends too, and recover refuses till then.
    wait_for(lambda: not project.jobs() and recovered(project), 20)
    assert partial_files(project) == []
    project.make()
    assert project.nothing_to_do()
    undisturbed = built(tmp_path / "whole").bytes()
    assert results(project.bytes()) == results(undisturbed)
    assert project.audit()["problems"] == []


def recovered(project):
    """Whether `recover` found nothing running (else it refuses, exit code 4)."""
    done = project.diffmbrl("recover", check=False)
    assert done.returncode in (0, 4), done.stdout
    return done.returncode == 0


def results(files):
    return {name: data for name, data in files.items() if "/manifests/" not in name}


def test_a_kill_leaves_nothing_wrong(tmp_path):
    _survives_a_kill(tmp_path, 0)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 24))
def test_a_kill_at_any_moment_leaves_nothing_wrong(seed, tmp_path):
    _survives_a_kill(tmp_path, seed)


def test_a_failed_run_is_never_called_done(tmp_path):
    project = built(tmp_path / "p")
    project.edit(f"{CODE}/pair.py", "1", "2")
    failed = project.snakemake(check=False, TOY_FAIL="x")
    assert failed.returncode != 0
    assert "told to fail" in failed.stdout
    assert not project.nothing_to_do()
    assert project.pending() >= {path for path in RUNS if path.endswith("_x.parquet")}
    project.make()
    assert project.nothing_to_do()
    project.edit(f"{CODE}/pair.py", "2", "1")
    assert project.make()[0] == set()  # the state before the failed run is in the store


def test_a_full_disk_is_named_and_earlier_results_stay(tmp_path):
    project = built(tmp_path / "p")
    before = project.bytes()
    project.edit("config/toy.yaml", "0.75", "0.7")
    failed = project.snakemake(check=False, TOY_FULL="y")
    assert failed.returncode != 0
    assert "the disk is full" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert partial_files(project) == []
    left = project.bytes()
    assert all(left[name] == before[name] for name in left)
    assert {name for name in before if "_x" in name} <= set(left)


def test_code_edited_under_a_job_is_refused(tmp_path):
    project = built(tmp_path / "p")
    project.edit("config/toy.yaml", "0.75", "0.7")
    snakemake = project.start(TOY_SLEEP="3")
    wait_for(project.jobs)
    project.edit(f"{CODE}/step.py", "value * rate", "value * rate * 2")
    assert snakemake.wait(timeout=120) != 0
    said = (project.root / "said.log").read_text()
    assert "diffmbrl.toy.step changed while the job ran" in said
    assert "Traceback" not in said
    assert project.pending() >= {path for path in RUNS if path.endswith("_y.parquet")}


def test_an_import_that_the_fingerprint_misses_is_refused(tmp_path):
    project = built(tmp_path / "p")
    project.edit(
        f"{CODE}/aggregate.py", "def run(job):",
        "import importlib\nSNEAKED = importlib.import_module('diffmbrl.toy.' + 'unused')\n\n"
        "def run(job):",
    )  # fmt: skip
    failed = project.snakemake(check=False)
    assert failed.returncode != 0
    assert "toy.aggregate imported diffmbrl.toy.unused" in failed.stdout


def test_a_file_that_is_not_an_input_is_refused(tmp_path):
    project = built(tmp_path / "p")
    project.edit(
        f"{CODE}/aggregate.py", "def run(job):", "def run(job):\n    open('config/toy.yaml')"
    )
    failed = project.snakemake(check=False)
    assert failed.returncode != 0
    assert "toy.aggregate read config/toy.yaml" in failed.stdout


def test_recover_waits_for_what_still_runs(tmp_path):
    project = lay_out(tmp_path / "p")
    snakemake = project.start(TOY_SLEEP="2")
    wait_for(project.jobs)
    refused = project.diffmbrl("recover", check=False)
    assert refused.returncode == 4
    assert "still running" in refused.stdout
    assert snakemake.wait(timeout=120) == 0
    assert set(project.bytes()) >= ALL
    project.diffmbrl("recover")


def test_a_job_that_is_configured_at_another_scale_only_is_not_run(tmp_path):
    project = built(tmp_path / "p")
    (project.root / "config/scales/laptop.yaml").write_text("toy: {size: {a: null}}")
    gone = "data/results/laptop/toy/a_x.parquet"
    (project.root / gone).unlink()
    failed = project.snakemake(gone, check=False)
    assert failed.returncode != 0
    assert f"No rule to produce {gone}" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert not (project.root / gone).exists()
