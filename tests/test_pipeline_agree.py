"""`diffmbrl agree`: what is rebuilt held against what was released, from git, DVC and folders."""

import json
import shutil

import pandas as pd
import pytest

from test_workflow_clone import publishable
from toy.project import DATA, FIGURE, RUNS, SUMMARY, built, commit

PNG, COUNT = FIGURE.replace("pdf", "png"), SUMMARY.replace("summary", "count")
ALL = DATA | RUNS | {SUMMARY, COUNT, FIGURE, PNG}
RESULT = "data/results/laptop/toy/a_x.parquet"


def agree(project, *arguments):
    """The verdict on each path, and the whole answer."""
    done = project.diffmbrl("agree", "--json", *arguments, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == found["code"]
    return {judged["path"]: judged["kind"] for judged in found["judged"]}, found


def scale_results(project, factor):
    for path in RUNS:
        table = pd.read_parquet(project.root / path)
        table["value"] *= factor
        table.to_parquet(project.root / path, index=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    project = publishable(tmp_path_factory.mktemp("published") / "p")
    project.diffmbrl("publish")
    commit(project, "published")
    return project


def copied(project, root):
    shutil.copytree(project.root, root, symlinks=True)
    return type(project)(root)


def test_what_was_not_touched_has_the_same_bytes(tmp_path):
    project = built(tmp_path / "p")
    kinds, found = agree(project)
    assert kinds == dict.fromkeys(ALL, "same bytes")
    assert (found["code"], found["not_here"], found["not_released"]) == (0, [], [])
    said = project.diffmbrl("agree").stdout.splitlines()
    assert f"same bytes: {RESULT}" in said
    assert said[-1] == "10 outputs held against HEAD: 10 same bytes"


def test_rounding_in_results_and_what_is_made_from_them(tmp_path):
    project = built(tmp_path / "p")
    scale_results(project, 1 + 1e-14)
    summary = json.loads((project.root / SUMMARY).read_text())
    (project.root / SUMMARY).write_text(json.dumps(summary, indent=7))
    (project.root / FIGURE).write_text("another picture")
    kinds, found = agree(project)
    assert {kinds[path] for path in RUNS | {SUMMARY}} == {"same numbers"}
    assert kinds[FIGURE] == "redrawn"
    assert found["code"] == 0


def test_a_bias_in_results_differs_and_so_do_their_statistics(tmp_path):
    project = built(tmp_path / "p")
    project.edit("src/diffmbrl/toy/step.py", "value * rate", "value * rate * 2")
    project.make()
    kinds, found = agree(project)
    assert {kinds[path] for path in RUNS | {SUMMARY}} == {"differs"}
    assert (found["code"], kinds[FIGURE]) == (7, "redrawn")
    detail = {judged["path"]: judged["detail"] for judged in found["judged"]}
    assert detail[RESULT].startswith("in value, all settings by +")
    assert detail[SUMMARY].startswith("made from data/results/laptop/toy/")
    commit(project, "doubled")
    assert agree(project)[1]["code"] == 0
    assert agree(project, "HEAD~1")[0] == kinds


def test_statistics_that_move_on_their_own_differ(tmp_path):
    project = built(tmp_path / "p")
    (project.root / COUNT).write_text("12345")
    kinds, found = agree(project)
    assert {path for path, kind in kinds.items() if kind != "same bytes"} == {COUNT}
    assert (kinds[COUNT], found["code"]) == ("differs", 7)


def test_too_few_runs_cannot_be_told_and_are_no_failure(tmp_path):
    project = built(tmp_path / "p")
    path = project.root / RESULT
    table = pd.read_parquet(path)
    table.assign(value=table["value"] + 1).to_parquet(path, index=False)
    kinds, found = agree(project)
    assert (kinds[RESULT], found["code"]) == ("cannot be told", 0)


def test_outputs_of_one_side_are_named(tmp_path):
    project = built(tmp_path / "p")
    (project.root / RESULT).unlink()
    shutil.copy(project.root / FIGURE, project.root / "figures/laptop/toy/extra.pdf")
    _, found = agree(project)
    assert found["not_here"] == [RESULT]
    assert found["not_released"] == ["figures/laptop/toy/extra.pdf"]
    said = project.diffmbrl("agree").stdout
    assert "not here: data/results/laptop/toy: a_x.parquet\n" in said
    assert "not released: figures/laptop/toy: extra.pdf\n" in said


def test_released_bytes_come_from_dvc(published, tmp_path):
    project = copied(published, tmp_path / "p")
    scale_results(project, 1 + 1e-14)
    assert {agree(project)[0][path] for path in RUNS} == {"same numbers"}
    shutil.rmtree(project.root / ".dvc/cache")  # the remote has them too
    assert {agree(project)[0][path] for path in RUNS} == {"same numbers"}
    shutil.rmtree(project.root / "dvc-store")
    said = project.diffmbrl("agree", check=False)
    assert said.returncode == 2
    assert "cannot be compared: released results are not at hand; run `dvc fetch`" in said.stdout
    assert "Traceback" not in said.stdout


def test_another_checkout_is_a_release_too(tmp_path):
    mine, theirs = built(tmp_path / "mine"), built(tmp_path / "theirs")
    scale_results(mine, 1 + 1e-14)
    kinds, found = agree(mine, str(theirs.root))
    assert {kinds[path] for path in RUNS} == {"same numbers"}
    assert found["release"] == str(theirs.root)
    (theirs.root / RESULT).unlink()
    said = mine.diffmbrl("agree", str(theirs.root), check=False)
    assert said.returncode == 2
    assert "is not there; run `dvc pull`" in said.stdout


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "nowhere: neither a folder nor a commit that git knows here"),
        ("--all", "unrecognized arguments"),
        ("config", "config: has no data/manifests; give a checkout with results"),
        ("HEAD~1", "HEAD~1: has no data/manifests, so no released results"),
    ],
)
def test_a_place_without_results_is_refused(place, said, tmp_path):
    done = built(tmp_path / "p").diffmbrl("agree", place, check=False)
    assert done.returncode == 2
    assert said in done.stdout
    assert "Traceback" not in done.stdout


def test_a_damaged_result_is_named(tmp_path):
    project = built(tmp_path / "p")
    (project.root / RESULT).write_bytes(b"PAR1 half")
    done = project.diffmbrl("agree", check=False)
    assert done.returncode == 2
    assert f"{RESULT}: not a whole parquet file" in done.stdout
    assert "Traceback" not in done.stdout
