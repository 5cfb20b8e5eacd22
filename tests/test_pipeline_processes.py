"""Several processes, hosts and containers on one checkout: notes, names, endings, the queue."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from diffmbrl.pipeline import files, processes, queue, recover
from toy.project import built, lay_out
from toy.waiting import wait_for
from warm_server import COLD

OUTPUT = "data/datasets/laptop/toy/a.json"

ROUNDS = """
import os, shutil, socket, sys
from pathlib import Path
os.getpid = lambda: 4242
socket.gethostname = lambda: "node"
from diffmbrl.pipeline import processes, records, snakemake, store, wrapper
output = Path("OUTPUT")
for number in range(100):
    snakemake.record_path(str(output)).unlink(missing_ok=True)
    shutil.rmtree(".diffmbrl/hashes", ignore_errors=True)
    note = processes.note("snakemake")
    processes.living()
    records.reconcile({"toy.collect": "toy_collect"})
    if number % 3 == 0:
        shutil.rmtree(store.FOLDER, ignore_errors=True)
        output.unlink(missing_ok=True)
        wrapper.run_stage("toy.collect", ['domain="a"', "size=3"], {}, {"data": output})
    note.unlink(missing_ok=True)
""".replace("OUTPUT", OUTPUT)


def test_two_processes_of_equal_host_and_pid_do_not_disturb_each_other(tmp_path):
    project = built(tmp_path / "p")
    before = (project.root / OUTPUT).read_bytes()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ROUNDS], cwd=project.root, env=project.environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=300)[1][-2000:] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert (project.root / OUTPUT).read_bytes() == before
    assert not list(project.root.rglob(f"{files.PARTIAL}*"))


def write_note(folder, host, age):
    note = folder / f"{host}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    entry = {"host": host, "pid": 1, "birth": "x", "what": "toy.train", "outputs": []}
    note.write_text(json.dumps(entry))
    os.utime(note, times=(time.time() - age,) * 2)
    return note


def test_another_hosts_note_is_alive_until_it_is_stale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = write_note(processes.FOLDER, processes.here(), 0)  # pid 1 is alive, but another one
    other = write_note(processes.FOLDER, "elsewhere pid:[7]", processes.STALE / 2)
    stale = write_note(processes.FOLDER, "gone pid:[8]", 2 * processes.STALE)
    assert [entry["host"] for entry in processes.living()] == ["elsewhere pid:[7]"]
    assert [note.exists() for note in (here, other, stale)] == [False, True, False]


def test_a_note_says_where_it_was_written_and_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "BEAT", 0.05)
    with processes.noted("toy.train", ["a"]) as note:
        entry = json.loads(note.read_text())
        assert (entry["host"], entry["pid"]) == (processes.here(), os.getpid())
        os.utime(note, times=(0, 0))
        wait_for(lambda: note.stat().st_mtime > 0, what="a sign of life")
    assert not note.exists()


def squeue(folder, monkeypatch, script):
    """A command `squeue` that runs a script, in a folder whose jobs went to a cluster."""
    queue.remember("slurm")
    command = folder / "bin/squeue"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)


def test_recover_names_the_folders_jobs_in_the_queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    squeue(
        tmp_path, monkeypatch,
        f"echo '5|PENDING|rule_a|{tmp_path}'; echo '6|RUNNING|shell|{tmp_path}'\n"
        f"echo '7|RUNNING|rule_b|{tmp_path}'; echo '8|RUNNING|rule_b|/somewhere/else'",
    )  # fmt: skip
    assert [job.id for job in queue.queued()] == ["5", "7"]
    with pytest.raises(recover.StillRunning, match="5 .pending, rule_a.*scancel 5 7") as refused:
        recover.recover()
    assert refused.value.code == 4


def test_a_queue_that_does_not_answer_is_no_empty_queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    squeue(tmp_path, monkeypatch, "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(queue.QueueSilent, match="Unable to contact slurm controller") as refused:
        recover.recover()
    assert refused.value.code == 4


def test_a_queue_that_does_not_answer_in_time_is_no_empty_queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "_PATIENCE", 0.1)
    squeue(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(queue.QueueSilent, match="not within"):
        queue.queued()


def test_a_folder_that_never_submitted_asks_no_queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    squeue(tmp_path, monkeypatch, "echo 'Unable to contact slurm controller' >&2; exit 1")
    (files.STATE / "submitted").unlink()
    assert queue.queued() == []


@pytest.mark.soak
@pytest.mark.skipif(
    subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False
    ).returncode != 0,
    reason="a pid namespace of one's own needs root and unshare",
)  # fmt: skip
def test_recover_in_another_pid_namespace_refuses_while_a_job_runs(tmp_path):
    project = lay_out(tmp_path / "p")
    snakemake = project.start(TOY_SLEEP="8")  # a job that starts after the signal ends by itself
    wait_for(project.jobs)
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "diffmbrl", "recover"]
    refused = project.run(*apart, check=False, **COLD)
    assert refused.returncode == 4
    assert "still running" in refused.stdout
    os.killpg(snakemake.pid, signal.SIGTERM)
    snakemake.wait(timeout=60)
    wait_for(lambda: not project.jobs())
    assert project.run(*apart, **COLD).returncode == 0


# A job that gets SIGTERM the moment its note is there, and the moment before the note goes.
AT_ONCE = """
import os, pathlib, signal, sys
from diffmbrl import cli
from diffmbrl.pipeline import processes
noting, dropping = processes.note, pathlib.Path.unlink

def note(*arguments):
    path = noting(*arguments)
    if sys.argv[1] == "noted":
        os.kill(os.getpid(), signal.SIGTERM)
    return path

def unlink(path, **kwargs):
    if sys.argv[1] == "done" and path.parent == processes.FOLDER and path.suffix == ".json":
        os.kill(os.getpid(), signal.SIGTERM)
    dropping(path, **kwargs)

processes.note, pathlib.Path.unlink = note, unlink
sys.exit(cli.main(sys.argv[2:]))
"""


def train(project, *code, **variables):
    """Starts a job of the toy by hand, with a log."""
    command = [sys.executable, *(code or ("-m", "diffmbrl.cli")), "run", "toy.train",
               "--log", "job.log", "--input", "data", OUTPUT,
               "--output", "runs", "data/results/laptop/toy/new.parquet",
               "--plan", 'domain="a"', 'method="x"', "rates=[0.3]", "seeds=[1]"]  # fmt: skip
    environment = project.environment(**{"TOY_SLEEP": "60"} | COLD | variables)
    return subprocess.Popen(command, cwd=project.root, env=environment, stderr=subprocess.DEVNULL)


def left(project):
    """Unfinished files and notes."""
    return [*project.root.rglob(f"{files.PARTIAL}*"), *project.root.glob(".diffmbrl/running/*")]


@pytest.mark.parametrize("when", ["as soon as its log is there", "as it trains"])
def test_a_job_that_is_told_to_end_says_so_and_leaves_nothing(tmp_path, when):
    project = built(tmp_path / "p")
    job = train(project, SLURM_JOB_ID="12")
    wait_for(project.jobs if when == "as it trains" else (project.root / "job.log").exists)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=10) == 143
    log = (project.root / "job.log").read_text()
    assert "(job 12 on " in log.splitlines()[0]
    assert "SIGTERM: cancelled, or out of time" in log
    assert left(project) == []


@pytest.mark.parametrize("when", ["noted", "done"])
def test_a_job_that_is_told_to_end_as_its_note_comes_or_goes_leaves_none(tmp_path, when):
    project = built(tmp_path / "p")
    job = train(project, "-c", AT_ONCE, when, TOY_SLEEP="0")
    assert job.wait(timeout=30) == 143
    assert "SIGTERM: cancelled" in (project.root / "job.log").read_text()
    assert left(project) == []


def test_a_job_ends_with_its_snakemake_and_says_so(tmp_path):
    project = built(tmp_path / "p")
    parent = subprocess.Popen(["sleep", "60"])
    job = train(project, DIFFMBRL_SNAKEMAKE=str(parent.pid))
    wait_for(project.jobs)
    parent.kill()
    parent.wait(timeout=10)
    assert job.wait(timeout=10) == 143
    assert f"its Snakemake (pid {parent.pid}) is gone" in (project.root / "job.log").read_text()
    assert left(project) == []
    late = train(project, DIFFMBRL_SNAKEMAKE=str(parent.pid))  # it went before the job began
    assert late.wait(timeout=30) == 143


def test_a_job_killed_without_warning_leaves_a_log_without_an_end(tmp_path):
    project = built(tmp_path / "p")
    job = train(project)
    wait_for(project.jobs)
    job.kill()
    job.wait(timeout=10)
    (line,) = (project.root / "job.log").read_text().splitlines()
    assert line.startswith("started ")
