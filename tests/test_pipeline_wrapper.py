"""The job wrapper: no output without its manifest, and jobs whose environment is not right."""

from pathlib import Path

import pytest

from diffmbrl import numerics
from diffmbrl.errors import UserError
from diffmbrl.pipeline import environment, manifests, wrapper

OUTPUT = Path("data/datasets/smoke/implicit/chain.parquet")
PLAN = ['domain="chain"', "seeds=[1]", "epsilon=0.1", "trajectories=2", "steps=3",
        "evaluation_steps=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("not-installed==1.0\n")


def collect(**how):
    wrapper.run_stage("implicit.collect", PLAN, {}, {"dataset": OUTPUT}, **how)


def test_no_output_is_ever_there_without_its_manifest(monkeypatch):
    replace, seen = wrapper.os.replace, []

    def watched(source, target):
        if Path(target) == OUTPUT:
            seen.append(manifests.read(OUTPUT).output)
        replace(source, target)

    monkeypatch.setattr(wrapper.os, "replace", watched)
    collect()
    assert seen == [OUTPUT.as_posix()]


def test_a_result_says_where_it_was_made(monkeypatch):
    monkeypatch.setattr(environment, "differences", lambda lock: iter([("numpy", "9", "1")]))
    with pytest.raises(UserError, match="numpy 9 is installed, requirements.txt has 1"):
        collect()
    assert not OUTPUT.exists()
    collect(packages="any")
    made = manifests.read(OUTPUT)
    assert made.proof.platform == numerics.platform(packages=["numpy 9"])
    assert {"host", "processor", "job_id", "libc", "device"} <= set(made.report)


def test_a_gpu_where_there_is_none_is_refused():
    with pytest.raises(UserError, match="gpu was asked for, but JAX sees none"):
        collect(device="gpu")
    assert not OUTPUT.exists()


def test_an_unknown_stage_or_entry_is_one_line():
    with pytest.raises(UserError, match="no such stage"):
        wrapper.run_stage("implicit.none", [], {}, {"dataset": OUTPUT})
    with pytest.raises(UserError, match="domain: no such key"):
        wrapper.run_stage("implicit.collect", PLAN[1:], {}, {"dataset": OUTPUT})
    plan = ['domain="maze"', *PLAN[1:]]
    with pytest.raises(UserError, match="implicit.domains: has no entry 'maze'; it has chain"):
        wrapper.run_stage("implicit.collect", plan, {}, {"dataset": OUTPUT})
