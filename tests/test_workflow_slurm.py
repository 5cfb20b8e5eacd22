"""The workflow on a real SLURM: the same bytes as here, whatever is cancelled or killed."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from toy import slurm as slurms
from toy.project import ALL, DATA, REPOSITORY, RUNS, Project, built, lay_out
from toy.waiting import wait_for
from warm_server import COLD

pytestmark = pytest.mark.skipif(
    slurms.missing() is not None, reason=f"no SLURM here: {slurms.missing()}"
)
# Without accounting the plugin has to ask squeue; a test does not wait for the first look.
SLURM = ["--profile", "workflow/profiles/slurm", "--slurm-status-command", "squeue",
         "--slurm-init-seconds-before-status-checks", "10", "--latency-wait", "5"]  # fmt: skip


THERE = sorted(RUNS)  # what is made on SLURM: two layers of jobs, each a minute of looking on


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A cluster of one node."""
    cluster = slurms.Slurm(tmp_path_factory.mktemp("slurm") / "s")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def nothing_left(slurm):
    """Every test leaves an empty queue."""
    yield
    slurm("scancel", "--user=root")
    wait_for(lambda: not slurm.jobs(), what="an empty queue")


def submit(project: Project, *arguments: str, **variables: str) -> subprocess.Popen:
    """Starts a Snakemake that submits to SLURM; what it says is in said.log."""
    with open(project.root / "said.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *SLURM, *arguments],
            cwd=project.root, env=project.environment(**COLD, **variables), stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def finished(project: Project, head: subprocess.Popen) -> str:
    """What a Snakemake that ended well had said."""
    code = head.wait(timeout=1200)
    said = (project.root / "said.log").read_text()
    assert code == 0, said[-4000:]
    return said


def is_as_built_here(project: Project, tmp_path: Path) -> bool:
    """Whether the data and runs are those of a build without SLURM, once the rest is made here."""
    assert project.make()[0] == ALL - DATA - RUNS  # both places take each other's results
    here = built(tmp_path / "here")
    assert results(project) == results(here)
    assert project.nothing_to_do()
    assert project.audit()["problems"] == []
    return True


def results(project: Project) -> dict[str, bytes]:
    return {name: data for name, data in project.bytes().items() if "/manifests/" not in name}


def partial_files(project: Project) -> list[Path]:
    return list(project.root.rglob(".partial-*"))


def logs(project: Project) -> str:
    return "\n".join(path.read_text() for path in project.root.glob("logs/**/*.log"))


def test_jobs_run_side_by_side_and_give_the_bytes_of_a_build_without_slurm(slurm, tmp_path):
    project = lay_out(tmp_path / "p")
    head = submit(project, *THERE, TOY_SLEEP="1")
    wait_for(lambda: len(slurm.jobs("RUNNING")) >= 2, what="two jobs at once")
    finished(project, head)
    assert set(project.bytes()) >= DATA | RUNS
    assert is_as_built_here(project, tmp_path)
    assert list((project.root / ".diffmbrl/running").iterdir()) == []
    made = project.root / "data/manifests" / f"{min(RUNS)}.json"
    assert '"job_id": "' in made.read_text()


@pytest.mark.soak
def test_a_cancelled_job_says_so_and_is_submitted_again(slurm, tmp_path):
    project = lay_out(tmp_path / "p")
    head = submit(project, *THERE, TOY_SLEEP="10")
    wait_for(project.jobs, what="a job that trains")
    wait_for(lambda: "toy.train" in logs(project))
    for job in slurm.jobs("RUNNING"):
        slurm("scancel", job)
    wait_for(lambda: "SIGTERM: cancelled, or out of time" in logs(project), what="the log's end")
    wait_for(lambda: not project.jobs())
    assert partial_files(project) == []
    finished(project, head)
    assert is_as_built_here(project, tmp_path)


@pytest.mark.soak
def test_a_job_out_of_time_says_so_and_leaves_nothing(slurm, tmp_path):
    project = lay_out(tmp_path / "p")
    train = min(path for path in ALL if path.endswith("_x.parquet"))
    short = ["--set-resources", "toy_train:runtime=1", "--retries", "0", train]
    head = submit(project, *short, TOY_SLEEP="200")
    assert head.wait(timeout=300) != 0
    assert "SIGTERM: cancelled, or out of time" in logs(project)
    assert partial_files(project) == []
    assert not (project.root / train).exists()
    finished(project, submit(project, *THERE))
    assert is_as_built_here(project, tmp_path)


@pytest.mark.soak
def test_a_head_that_is_killed_leaves_jobs_that_recover_names(slurm, tmp_path):
    project = lay_out(tmp_path / "p")
    head = submit(project, *THERE, TOY_SLEEP="15")
    wait_for(lambda: "toy.train" in logs(project))
    os.kill(head.pid, signal.SIGKILL)
    head.wait(timeout=300)
    refused = project.diffmbrl("recover", check=False)
    assert refused.returncode == 4
    assert "(running, rule_toy_train" in refused.stdout
    wait_for(lambda: not slurm.jobs(), what="the jobs of the killed head")
    assert "unlocked" in project.diffmbrl("recover").stdout
    finished(project, submit(project, *THERE))
    assert is_as_built_here(project, tmp_path)


@pytest.mark.soak
def test_a_job_that_still_waits_is_seen_by_recover(slurm, tmp_path):
    project = lay_out(tmp_path / "p")
    slurm("sbatch", "--exclusive", "--chdir=/", "--output=/dev/null", "--wrap", "sleep 600")
    wait_for(lambda: slurm.jobs("RUNNING"))
    (filler,) = slurm.jobs()
    head = submit(project, *THERE)
    wait_for(lambda: len(slurm.jobs("PENDING")) == 2, what="jobs that wait")
    os.kill(head.pid, signal.SIGKILL)
    head.wait(timeout=300)
    refused = project.diffmbrl("recover", check=False)
    assert refused.returncode == 4
    assert refused.stdout.count("(pending, rule_toy_collect") == 2
    assert f"job {filler} " not in refused.stdout
    slurm("scancel", *slurm.jobs())
    wait_for(lambda: not slurm.jobs())
    project.diffmbrl("recover")
    finished(project, submit(project, *THERE))
    assert is_as_built_here(project, tmp_path)


@pytest.mark.soak
def test_recover_in_a_container_beside_refuses(slurm, tmp_path):
    project = lay_out(tmp_path / "p")
    head = submit(project, *THERE, TOY_SLEEP="15")
    wait_for(lambda: "toy.train" in logs(project))
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "env"]
    for path in (project.environment()["PATH"], f"{project.root / 'bin'}:/usr/bin:/bin:/none"):
        refused = project.run(*apart, f"PATH={path}", "diffmbrl", "recover", check=False, **COLD)
        assert refused.returncode == 4
    finished(project, head)
    assert is_as_built_here(project, tmp_path)


TRAINED = "data/results/smoke/omd/cartpole/width/omd_width3_lr0.001_tau0.01.parquet"
LONG = ["--config", "scale=smoke", "device=cpu", 'omd={"cartpole": {"steps": 200000}}']


def copy_of_the_project(root: Path) -> Project:
    """The project itself, with nothing made."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("config", "workflow", "src"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
    shutil.copy(REPOSITORY / "requirements.txt", root)
    shim = root / "bin/diffmbrl"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffmbrl.cli "$@"\n')
    shim.chmod(0o755)
    return Project(root)


def segments_done(project: Project) -> int:
    """How many segments of training the checkpoints hold."""
    done = 0
    for path in project.root.glob(".diffmbrl/scratch/**/[0-9]*.npz"):
        try:
            with np.load(path, allow_pickle=False) as file:
                done += int(file["done"])
        except (OSError, ValueError, EOFError, KeyError):
            continue
    return done


@pytest.mark.soak
def test_a_requeued_job_goes_on_in_the_middle_of_training(slurm, tmp_path):
    here = copy_of_the_project(tmp_path / "here")
    here.snakemake(TRAINED, *LONG)
    project = copy_of_the_project(tmp_path / "p")
    head = submit(project, TRAINED, *LONG)
    wait_for(lambda: segments_done(project) > 0, 300, what="a checkpoint")
    (job,) = slurm.jobs("RUNNING")
    before = segments_done(project)
    slurm("scontrol", "requeue", job)
    wait_for(lambda: job in slurm.jobs("PENDING"), what="the requeued job")
    wait_for(lambda: "SIGTERM: cancelled, or out of time" in logs(project))
    seen = []
    while head.poll() is None:
        seen.append(segments_done(project))
        time.sleep(0.5)
    finished(project, head)
    assert all(done >= before for done in seen if done), (before, seen)
    assert (project.root / TRAINED).read_bytes() == (here.root / TRAINED).read_bytes()


@pytest.mark.soak
def test_a_papers_smoke_scale_gives_the_bytes_of_a_build_without_slurm(slurm, tmp_path):
    smoke = ["rpg", "--config", "scale=smoke", "device=cpu"]
    here = copy_of_the_project(tmp_path / "here")
    here.snakemake(*smoke)
    project = copy_of_the_project(tmp_path / "p")
    head = submit(project, *smoke)
    wait_for(lambda: len(slurm.jobs("RUNNING")) >= 2, what="two jobs at once")
    finished(project, head)
    assert results(project) == results(here)
    assert "Nothing to be done" in project.snakemake("-n", *smoke).stdout
    assert project.audit()["problems"] == []


PAGE = (REPOSITORY / "docs/cluster.md").read_text()
COMMANDS = re.findall(r"^    (snakemake --profile .*)$", PAGE, flags=re.M)
FLAGS = re.findall(r"^\| `(--.*?)` \|", PAGE, flags=re.M)


@pytest.mark.soak
def test_every_command_and_flag_of_the_page_is_understood(tmp_path):
    project = copy_of_the_project(tmp_path / "p")
    assert len(COMMANDS) >= 4
    assert len(FLAGS) >= 6
    slurm = next(command for command in COMMANDS if "profiles/slurm" in command)
    for command in [*COMMANDS, *(f"{slurm} {flag}" for flag in FLAGS)]:
        planned = project.run(*shlex.split(command), "-n").stdout
        assert "profiles/default" in planned, command
        assert "This was a dry-run" in planned, command
