"""The smoke scale of `implicit` end to end through Snakemake, in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for name in ("config", "workflow", "src", "requirements.txt", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def snakemake(project, *arguments) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments,
         "--config", "scale=smoke", "device=cpu", "papers=[implicit]"],
        cwd=project, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(project / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_smoke_scale_is_built_and_then_current(project):
    snakemake(project)
    runs = pd.read_parquet(project / "data/results/smoke/implicit/chain_implicit.parquet")
    assert len(runs) == 2 * 2 * 2 * 3 * 3  # seeds, rates, etas, offsets, logged steps
    several = pd.read_parquet(project / "data/results/smoke/implicit/chain_implicit_mdp.parquet")
    assert several["backup"].unique().tolist() == ["max", "logsumexp"]
    pictures = sorted(p.name for p in (project / "figures/smoke/implicit").glob("*.png"))
    assert len(pictures) == 11
    verdict = json.loads((project / "data/stats/smoke/implicit/compare.json").read_text())
    assert verdict["figure 1"]["verdict"] == "not the published seeds"
    assert "Nothing to be done" in snakemake(project)
    assert not list(project.rglob(".partial-*"))
