"""What jobs ask of a cluster: threads, memory, time and GPUs, the same on every machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffmbrl.config import load
from diffmbrl.pipeline.resources import Need, need
from diffmbrl.pipeline.rule import ALL_CORES
from diffmbrl.pipeline.workflow import Workflow

ROOT = Path(__file__).parents[1]


def workflow(submits=True, **config):
    return Workflow(load(ROOT, config), submits)


def report(memory, seconds):
    return {"peak_memory_mb": memory, "seconds": seconds}


def test_memory_and_time_are_those_of_the_largest_job_with_room():
    asked = need("paper", [("paper", report(1000, 600)), ("paper", report(2000, 30))])
    assert asked == Need(memory=3400, minutes=40)  # 1.5 x 2000 + 400 MB, 3 x 10 + 10 minutes


def test_another_scale_tells_of_memory_but_not_of_time():
    assert need("paper", [("laptop", report(2000, 600)), ("paper", {})]) == Need(3400, 720)
    assert need("smoke", [("laptop", report(2000, 600))]) == Need(3400, 30)
    assert need("paper", []) == Need(4000, 720)


def test_a_rule_may_state_what_it_needs():
    reports = [("paper", report(1000, 600))]
    assert need("paper", reports, memory=64000) == Need(64000, 40)
    assert need("paper", reports, minutes=2000) == Need(1900, 2000)


def test_each_attempt_asks_for_twice_as_much():
    assert [Need(1000, 30).at(n) for n in (1, 2, 3)] == [
        Need(1000, 30),
        Need(2000, 60),
        Need(4000, 120),
    ]


def test_resources_of_a_rule_follow_its_manifests(monkeypatch):
    monkeypatch.chdir(ROOT)
    train = workflow().by_stage["omd.cartpole"]
    reports = [
        json.loads(path.read_text())["report"]
        for path in Path("data/manifests/data/results/laptop/omd/cartpole").rglob("*.json")
    ]
    expected = need("laptop", [("laptop", found) for found in reports])
    one = {"scale": "laptop", "experiment": "width", "agent": "omd", "variant": "width3"}
    assert train.resources["mem_mb"](one, attempt=1) == expected.memory
    assert train.resources["runtime"](one, attempt=3) == 4 * expected.minutes


def test_jobs_that_compute_ask_for_a_gpu_where_the_device_is_one():
    asks = {b.rule.stage for b in workflow(device="gpu").rules if "gpu" in b.resources}
    assert {"implicit.train", "omd.cartpole", "omd.tabular", "rpg.train", "rpg.gradients"} <= asks
    assert not {"implicit.aggregate", "implicit.compare", "plots.fig_implicit_2"} & asks
    for device in ("auto", "cpu"):
        assert not any("gpu" in bound.resources for bound in workflow(device=device).rules)


def test_a_jobs_own_snakemake_on_a_node_is_asked_for_neither_memory_nor_time():
    assert all(bound.resources == {} for bound in workflow(submits=False, device="cpu").rules)


def test_threads_are_the_same_on_every_machine():
    for bound in workflow().rules:
        for wildcards in bound._instances_at_all_scales:
            assert bound.threads(wildcards) in (1, ALL_CORES)


def test_commands_do_not_depend_on_the_path():
    bound = workflow().by_stage["omd.tabular"]
    outputs = {role: path.replace("{scale}", "smoke") for role, path in bound.outputs.items()}
    command = bound.command({"scale": "smoke"}, {}, outputs)
    assert command.startswith(f"{sys.executable} -m diffmbrl.cli run omd.tabular ")


@pytest.mark.parametrize(
    ("arguments", "device", "gpu"),
    [
        (["--profile", "workflow/profiles/gpu"], "--device gpu", True),
        ([], "--device auto", False),
    ],
)
def test_the_gpu_profile_sets_the_device_beside_the_default_profile(arguments, device, gpu):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "-p", "rpg", "--config", "scale=smoke",
         *arguments],
        cwd=ROOT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "workflow specific profile workflow/profiles/default" in done.stderr
    assert device in done.stdout
    assert ("gpu=1" in done.stdout) is gpu
