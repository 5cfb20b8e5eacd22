"""Publishing, and a fresh clone with pulled results: nothing to do, or exactly what changed."""

import json
import shutil

import pytest

from toy.project import FIGURE, RUNS, SUMMARY, commit
from toy.published import clone, publishable

PNG = "figures/laptop/toy/fig_1.png"
RUNS_X = {path for path in RUNS if path.endswith("_x.parquet")}
KEPT_HERE = {path.replace("results", "intermediate") for path in RUNS}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    project = publishable(tmp_path_factory.mktemp("published") / "p")
    said = project.diffmbrl("publish").stdout
    assert "pushed" in said
    commit(project, "published")
    return project


def test_a_fresh_clone_has_nothing_to_do(published, tmp_path):
    project = clone(published, tmp_path / "clone")
    project.run("dvc", "pull", "--quiet")
    project.snakemake("--list-rules")
    assert project.nothing_to_do()
    assert not (project.root / ".diffmbrl/store").exists()  # only a real run writes there
    assert project.git("status", "--short") == ""
    assert project.audit()["problems"] == []
    assert project.diffmbrl("restore").returncode == 0


def test_a_fresh_clone_reruns_only_what_was_changed_before_the_pull(published, tmp_path):
    project = clone(published, tmp_path / "clone")
    project.edit("config/toy.yaml", "0.25", "0.3")
    project.run("dvc", "pull", "--quiet")
    assert project.pending() == RUNS_X | {SUMMARY, FIGURE}
    assert project.make() == (RUNS_X | {SUMMARY, FIGURE}, set())


def test_a_fresh_clone_refuses_bytes_that_are_not_the_manifests(published, tmp_path):
    project = clone(published, tmp_path / "clone")
    project.run("dvc", "pull", "--quiet")
    result = project.root / sorted(RUNS)[0]
    data = bytearray(result.read_bytes())
    data[10] ^= 1
    result.unlink()
    result.write_bytes(bytes(data))
    refused = project.diffmbrl("restore", check=False)
    assert refused.returncode == 14
    assert sorted(RUNS)[0] in refused.stdout
    assert project.pending() == {sorted(RUNS)[0], SUMMARY, FIGURE}


def test_a_fresh_clone_without_the_pull_says_what_is_not_there(published, tmp_path):
    project = clone(published, tmp_path / "clone")
    missing = project.diffmbrl("restore", check=False)
    assert missing.returncode == 15
    assert "dvc pull" in missing.stdout
    computed, _ = project.make()
    assert computed >= RUNS  # no bytes to trust: made anew, to the same bytes
    assert project.git("status", "--short") == ""


def test_publish_refuses_what_is_pending_or_fails_the_audit(tmp_path):
    project = publishable(tmp_path / "p")
    project.edit("config/toy.yaml", "title: toy", "title: Toy")
    refused = project.diffmbrl("publish", check=False)
    assert refused.returncode == 5
    assert "1 jobs are pending" in refused.stdout
    project.edit("config/toy.yaml", "title: Toy", "title: toy")
    (project.root / "figures/laptop/toy/extra.png").write_text("from somewhere")
    refused = project.diffmbrl("publish", check=False)
    assert refused.returncode == 5
    assert "extra.png" in refused.stdout
    assert not list((project.root / "data").rglob("*.dvc"))


def test_the_report_shows_figures_with_what_made_them(published):
    project = published
    project.snakemake("--report", "report.html", "--config", "scale=laptop")
    text = (project.root / "report.html").read_text()
    (project.root / "report.html").unlink()
    made = json.loads((project.root / f"data/manifests/{PNG}.json").read_text())
    assert "Stage: a figure, of sorts." in text
    assert made["proof"]["outputs"]["png"]["sha256"] in text
    assert "title" in text
    assert f'"{PNG}"' in text or PNG in text


@pytest.fixture(scope="module")
def intermediate(tmp_path_factory):
    """A project whose runs are intermediate, published."""
    project = publishable(tmp_path_factory.mktemp("intermediate") / "p")
    project.edit("src/diffmbrl/toy/rules.py", "results/{domain}", "intermediate/{domain}")
    for folder in ("data/results", "data/manifests/data/results"):
        shutil.rmtree(project.root / folder)
    with (project.root / ".gitignore").open("a") as ignored:
        ignored.write("/data/intermediate/\n")
    computed, served = project.make()
    assert served >= KEPT_HERE  # the same work, though it lies elsewhere
    assert computed == set()
    said = project.diffmbrl("publish").stdout
    assert "dvc: data/datasets/laptop, pushed" in said
    project.run(*said.strip().splitlines()[-1].removeprefix("now: ").split(" && ")[0].split())
    commit(project, "published")
    return project


def test_a_fresh_clone_does_without_intermediate_files(intermediate, tmp_path):
    project = clone(intermediate, tmp_path / "clone")
    project.run("dvc", "pull", "--quiet")
    assert not (project.root / "data/intermediate").exists()
    assert project.nothing_to_do()
    assert project.diffmbrl("status").returncode == 0
    assert project.audit()["problems"] == []
    assert project.diffmbrl("restore").returncode == 0
    assert "not here" not in project.diffmbrl("agree").stdout
    project.edit("config/toy.yaml", "title: toy", "title: Toy")
    assert project.make() == ({FIGURE}, set())


def test_intermediate_files_are_made_again_where_they_are_needed(intermediate, tmp_path):
    project = clone(intermediate, tmp_path / "clone")
    project.run("dvc", "pull", "--quiet")
    one = sorted(KEPT_HERE)[0]
    assert project.make(one) == ({one}, set())
    assert project.git("status", "--short") == ""  # the same bytes: its manifest is as it was
    project.edit("src/diffmbrl/toy/aggregate.py", "def run(job):", "def run(job, n=1):")
    assert project.make() == (KEPT_HERE - {one} | {SUMMARY}, {FIGURE})
    (project.root / one).write_bytes(b"edited")
    (problem,) = (p for p in project.audit()["problems"] if p["kind"] == "bytes")
    assert problem["path"] == one
    assert project.pending() >= {one, SUMMARY}
