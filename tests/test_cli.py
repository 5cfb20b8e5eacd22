"""The command line: errors are one line that names file, key or value; nothing partial is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from diffmbrl import cli

ROOT = Path(__file__).parents[1]


def run(capsys, *arguments) -> tuple[int, str]:
    code = cli.main([str(a) for a in arguments])
    return code, capsys.readouterr().err


SETTINGS = [
    f"{name}={json.dumps(value)}"
    for name, value in {
        "domain": "chain", "parameterization": "explicit", "seeds": [1], "updates": 10,
        "log_every": 10, "batch_size": 5, "learning_rates": [0.5], "etas": [0.9],
        "reward_offsets": [0], "actions": 1, "backups": ["max"], "temperature": 0.1,
    }.items()
]  # fmt: skip


def test_help_lists_the_commands():
    done = subprocess.run(
        [sys.executable, "-m", "diffmbrl.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in (
        "run",
        "config",
        "compare",
        "why",
        "status",
        "audit",
        "agree",
        "replay",
        "restore",
    ):
        assert command in done.stdout


def test_config_describes_every_key_with_its_value(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["config", "omd"]) == 0
    said = capsys.readouterr().out
    assert "cartpole.warmup: Steps of uniformly random actions" in said
    assert "cartpole.width.seeds: Runs per setting; seeds 1, 2, ... Now 3" in said
    assert "cartpole.agents.<name>.rates: By experiment" in said
    assert cli.main(["config"]) == 0
    assert "scale: How much is run" in capsys.readouterr().out
    code, error = run(capsys, "config", "vin")
    assert code == 2
    assert "no such paper; use one of implicit, omd, rpg" in error


def test_compare_without_results(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, "compare", "implicit")
    assert code == 2
    assert "summary.csv: not found; run `snakemake --cores 2 implicit` first" in said
    assert "Traceback" not in said


def test_compare_refuses_an_unknown_scale(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, said = run(capsys, "compare", "implicit", "--scale", "huge")
    assert code == 2
    assert (
        "--scale huge: unknown; use one of laptop, paper, smoke, cartpole, levels, locomotion, "
        "mujoco, rates" in said
    )


def test_output_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "file").write_text("in the way")
    code, said = run(
        capsys, "run", "implicit.collect", "--output", "dataset", tmp_path / "file/x.parquet",
        "--plan", 'domain="chain"', "seeds=[1]", "epsilon=0.1", "trajectories=5", "steps=5",
        "evaluation_steps=5",
    )  # fmt: skip
    assert code == 2
    assert f"{tmp_path / 'file'}: cannot be written" in said
    assert [p.name for p in tmp_path.iterdir() if "parquet" in p.name] == []


def test_snakemake_refuses_bad_config_in_one_message():
    for given, message in (
        ("scale=huge", 'scale = "huge": unknown; use one of laptop, paper, smoke, cartpole'),
        (
            'implicit={"parameterizations": {"implicit": {"etas": [1.0]}}}',
            "parameterizations.implicit.etas.0 = 1.0: must be below 1",
        ),
        ('implicit={"typo": 1}', "unknown key 'typo'"),
        ("paper=omd", "unknown key 'paper'; known: device, environment, judged, papers, scale"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", given],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert message in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from diffmbrl.implicit.domains.chain import DOMAIN

    DOMAIN.collect([1], 0.1, 5, 10).to_parquet(tmp_path / "data.parquet")
    return tmp_path


def run_stage(folder: Path) -> None:
    import diffmbrl.implicit.train as train
    from diffmbrl.pipeline.stage import Job

    values = dict(s.split("=", 1) for s in SETTINGS)
    settings = {name: json.loads(value) for name, value in values.items()}
    train.run(Job(settings, {"dataset": [folder / "data.parquet"]},
                  {"runs": folder / "runs.parquet"}, 1, folder / "scratch"))  # fmt: skip


def test_damaged_inputs_are_named(data):
    from diffmbrl.errors import DataError

    whole = (data / "data.parquet").read_bytes()
    (data / "data.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="data.parquet: not a whole Parquet file"):
        run_stage(data)
    (data / "data.parquet").write_bytes(whole)
    pd.read_parquet(data / "data.parquet").drop(columns="discount_sum").to_parquet(
        data / "data.parquet"
    )
    with pytest.raises(DataError, match="column 'discount_sum' is missing"):
        run_stage(data)
    assert not (data / "runs.parquet").exists()


INITIAL_VALUES = """
from diffmbrl.sweep import device
device.configure("cpu")
import jax
from diffmbrl.omd.agents.vep import VEP
from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.omd.models import Model
q = SoftQ(260, 2, 32, True, 0.01, 0.99, jax.numpy.float32)
jax.block_until_ready(jax.jit(VEP(q, Model(260, 2, 4, False, jax.numpy.float32)).init)(
    jax.random.key(0)))
"""


@pytest.mark.soak
def test_initial_values_of_many_distractors_do_not_hang_a_small_machine():
    """A hang is the failure: it ends in the timeout, as an exception."""
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    subprocess.run([sys.executable, "-c", INITIAL_VALUES], check=True, timeout=300, env=environment)
