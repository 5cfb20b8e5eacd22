"""README's recipes, executed as they stand there, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from warm_server import python_path

ROOT = Path(__file__).parents[1]
RECIPE = re.compile(r"^\*A (\w+)\.\*(.*?)(?=^\*|\Z)", flags=re.M | re.S)
BLOCK = re.compile(r"`((?:src|config)/[\w/]+\.(?:py|yaml))`(?:(?!```).)*?```\w+\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy into which every recipe's files are written."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("config", "workflow", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", folder)
    found = dict(RECIPE.findall((ROOT / "README.md").read_text()))
    assert set(found) == {"parameterization", "domain"}
    for text in found.values():
        blocks = BLOCK.findall(text)
        assert len(blocks) == 2
        for path, content in blocks:
            (folder / path).write_text(content)
    return folder


def snakemake(project, *arguments) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": python_path(project / "src")},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("scale", "run"),
    [
        ("clipped", "chain_clipped"),
        pytest.param("ring", "ring_explicit", marks=pytest.mark.soak),
    ],
)
def test_a_recipe_trains_and_is_drawn(project, scale, run):
    planned = snakemake(project, "-n", "--config", f"scale={scale}")
    assert f"fig_A1_offsets_{run}.pdf" in planned
    target = f"data/results/{scale}/implicit/{run}.parquet"
    snakemake(project, target, "--config", f"scale={scale}")
    table = pd.read_parquet(project / target)
    assert not table["diverged"].any()
    assert {"step", "residual_norm"} <= set(table.columns)
