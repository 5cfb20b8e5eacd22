"""Replay of real training: a run alone gives the bytes that it gave among its lane mates."""

import dataclasses
import json
import random
from pathlib import Path

import pandas as pd
import pytest

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import manifests
from diffmbrl.pipeline.replay import compare_rows, narrow, replay, replay_one
from diffmbrl.pipeline.wrapper import run_stage

RULES = {
    "explicit": {"learning_rates": [1, 0.5], "etas": [0.9, 0.95]},
    "implicit": {"learning_rates": [0.015625, 0.0078125], "etas": [0.9, 0.95]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a small data set and two sweeps, made by the wrapper."""
    from diffmbrl.sweep import device

    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        (root / "requirements.txt").write_text("not-installed==1.0\n")
        device.configure("cpu")
        dataset = root.relative_to(root) / "data/datasets/smoke/implicit/chain.parquet"
        settings = ['domain="chain"', "seeds=[733348321,1395720285]"]
        run_stage(
            "implicit.collect",
            [*settings, "epsilon=0.1", "trajectories=5", "steps=20", "evaluation_steps=10"],
            {}, {"dataset": dataset},
        )  # fmt: skip
        for name, axes in RULES.items():
            run_stage(
                "implicit.train",
                [
                    *settings, f'parameterization="{name}"', "updates=4", "log_every=2",
                    "batch_size=5", *(f"{key}={value}" for key, value in axes.items()),
                    "reward_offsets=[0,0.5,1]", "actions=1", 'backups=["max"]', "temperature=0.1",
                ],
                {"dataset": [dataset]},
                {"runs": dataset.parents[3] / f"results/smoke/implicit/chain_{name}.parquet"},
            )  # fmt: skip
    return root


@pytest.mark.parametrize("name", RULES)
def test_a_run_alone_gives_the_same_bytes(name, trained, monkeypatch):
    monkeypatch.chdir(trained)
    made = manifests.read(f"data/results/smoke/implicit/chain_{name}.parquet")
    for seed in range(2):
        done = replay_one(made, random.Random(seed), threads=1)
        assert done.same, done.detail
        assert set(done.run) == {"seed", "learning_rate", "eta", "reward_offset", "backup"}
    assert not list((trained / ".diffmbrl").glob("replay-*"))


def test_results_made_from_intermediate_files_elsewhere_are_left_out(trained, monkeypatch):
    monkeypatch.chdir(trained)
    layout = dataclasses.replace(LAYOUT, intermediate=Path("data/datasets"))
    monkeypatch.setattr("diffmbrl.pipeline.replay.LAYOUT", layout)
    assert replay(1, seed=0)[0].same
    dataset = Path("data/datasets/smoke/implicit/chain.parquet")
    dataset.rename(dataset.with_suffix(".elsewhere"))
    with pytest.raises(UserError, match="no result is up to date .* and has its inputs here"):
        replay(1, seed=0)
    dataset.with_suffix(".elsewhere").rename(dataset)


@pytest.mark.soak
def test_outputs_of_one_name_do_not_overwrite_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("not-installed==1.0\n")
    folder = Path("data/results/smoke/omd")
    outputs = {
        "curves": "width.parquet",
        "models": "models/width.parquet",
        "predictions": "predictions/width.parquet",
    }
    values = {
        "agent": "mle", "variant": "width2", "steps": 20, "warmup": 10, "evaluate_every": 20,
        "batch": 8, "epsilon": 0.1, "episodes": 1, "hidden": 4, "alpha": 0.01, "gamma": 0.99,
        "precision": "float32", "model_lr": 1e-3, "inner_lr": "0.001", "tau": "0.01", "seeds": 1,
        "adjoint_iterations": 2, "adjoint_damping": 1e-5,
    }  # fmt: skip
    run_stage(
        "omd.cartpole", [f"{name}={json.dumps(value)}" for name, value in values.items()], {},
        {role: folder / path for role, path in outputs.items()},
    )  # fmt: skip
    for path in outputs.values():
        made = manifests.read(folder / path)
        done = replay_one(made, random.Random(0), threads=1)
        assert done.same, done.detail


def test_settings_are_narrowed_where_they_are_nested():
    settings = {"runs": {"seeds": [1, 2], "rates": [3, 4]}, "steps": [5, 6]}
    assert narrow(settings, "runs.seeds", 2) == {
        "runs": {"seeds": [2], "rates": [3, 4]}, "steps": [5, 6],
    }  # fmt: skip
    assert narrow(settings, "steps", 5)["steps"] == [5]


def test_rows_are_compared_to_the_last_bit():
    old = pd.DataFrame({"step": [0, 1], "x": [1.0, float("nan")]})
    assert compare_rows(old, old.copy()) == (True, "")
    new = old.assign(x=[1.0 + 2**-52, float("nan")])
    same, detail = compare_rows(old, new)
    assert not same
    assert detail == "differs in x (worst relative difference 2.2e-16)"
    assert compare_rows(old, new, tolerance=1e-12)[0]
    assert not compare_rows(old, old.iloc[:1])[0]
    assert not compare_rows(old, old.assign(step=[0, 2]), tolerance=1.0)[0]
