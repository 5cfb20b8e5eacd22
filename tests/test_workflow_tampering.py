"""Twelve ways to tamper; audit names the file and the kind of each."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from toy.project import FIGURE, SUMMARY, built, commit

DATASET = "data/datasets/laptop/toy/a.json"
RESULT, OTHER = (f"data/results/laptop/toy/a_{method}.parquet" for method in "xy")


def flip(project, path):
    file = project.root / path
    before, data = os.stat(file), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def manifest(project, path):
    return project.root / f"data/manifests/{path}.json"


def sealed(made):
    """A manifest's text with a seal that matches what it claims."""
    from diffmbrl.pipeline.proof import Manifest, Proof

    proof = Proof.parse(made["proof"], "forged")
    return Manifest(made["output"], proof, made["report"]).text()


def swap_results(project):
    a, b = project.root / RESULT, project.root / OTHER
    a.rename(a.with_suffix(".tmp"))
    b.rename(a)
    a.with_suffix(".tmp").rename(b)


def edit_hash(project):
    file = manifest(project, RESULT)
    made = json.loads(file.read_text())
    made["proof"]["outputs"]["runs"]["sha256"] = "0" * 64
    file.write_text(json.dumps(made))


def edit_both(project):
    """A careful forger: result, manifest and seal agree, on a checkout without a store."""
    from diffmbrl.pipeline.files import digest

    shutil.rmtree(project.root / ".diffmbrl")
    flip(project, FIGURE)
    for output in (FIGURE, FIGURE.replace("pdf", "png")):
        file = manifest(project, output)
        made = json.loads(file.read_text())
        made["proof"]["outputs"]["pdf"]["sha256"] = digest(project.root / FIGURE)
        file.write_text(sealed(made))


def new_results_old_code(project):
    project.edit("src/diffmbrl/toy/step.py", "value * rate", "value * rate * 2")
    project.make()
    project.edit("src/diffmbrl/toy/step.py", "value * rate * 2", "value * rate")


def other_scale(project):
    project.make("--config", "scale=smoke")
    shutil.copy(project.root / RESULT.replace("laptop", "smoke"), project.root / RESULT)


def change_lock(project):
    project.edit("requirements.txt", "1.0", "2.0")


def configure_less(project):
    """At this scale alone: another one still has such a job, and the settings that it needs."""
    (project.root / "config/scales/laptop.yaml").write_text("toy: {size: {a: null}}")


def touch_everything(project):
    """To make a stale result look new."""
    project.edit("src/diffmbrl/toy/palette.py", "blue", "red")
    for path in project.root.glob("*/**/*"):
        if ".git" not in path.parts:
            os.utime(path)


def snakemake_touch(project):
    project.edit("src/diffmbrl/toy/palette.py", "blue", "red")
    project.snakemake("--touch", "--forceall")


def older_result(project):
    """As `dvc checkout` of an older result: manifests are of now, bytes of then."""
    old = (project.root / RESULT).read_bytes()
    project.edit("config/toy.yaml", "0.25", "0.3")
    project.make()
    commit(project, "another rate")
    shutil.rmtree(project.root / ".diffmbrl")
    (project.root / RESULT).write_bytes(old)


WAYS = {
    "flip dataset": (lambda p: flip(p, DATASET), {(DATASET, "bytes")}),
    "flip result": (lambda p: flip(p, RESULT), {(RESULT, "bytes")}),
    "flip statistic": (lambda p: flip(p, SUMMARY), {(SUMMARY, "bytes")}),
    "flip figure": (lambda p: flip(p, FIGURE), {(FIGURE, "bytes")}),
    "swap results": (swap_results, {(RESULT, "swapped"), (OTHER, "swapped")}),
    "edit a manifest's hash": (edit_hash, {(RESULT, "manifest")}),
    "edit result and manifest": (edit_both, {(FIGURE, "rewritten")}),
    "delete a manifest": (lambda p: manifest(p, RESULT).unlink(), {(RESULT, "manifest")}),
    "old code, new results": (new_results_old_code, {(RESULT, "code"), (OTHER, "code")}),
    "another scale's result": (other_scale, {(RESULT, "swapped")}),
    "changed lock": (change_lock, {(RESULT, "lock"), (FIGURE, "lock"), (DATASET, "lock")}),
    "configured no more": (configure_less, {(RESULT, "orphan"), (DATASET, "orphan")}),
    "touch everything": (touch_everything, {(FIGURE, "code")}),
    "snakemake --touch": (snakemake_touch, {(FIGURE, "code")}),
    "older result": (older_result, {(RESULT, "older")}),
}


@pytest.mark.parametrize("way", WAYS)
def test_audit_names_the_file_and_the_kind(way, tmp_path):
    from diffmbrl.pipeline.audit import KINDS

    project = built(tmp_path / "p")
    tamper, expected = WAYS[way]
    tamper(project)
    found = project.audit()
    kinds = {(problem["path"], problem["kind"]) for problem in found["problems"]}
    assert expected <= kinds
    gravest = next(kind for kind in KINDS if kind in {kind for _, kind in kinds})
    assert found["code"] == KINDS[gravest][0]
    assert gravest in {kind for _, kind in expected}


@pytest.mark.soak
@pytest.mark.parametrize("way", set(WAYS) - {"edit result and manifest", "configured no more"})
def test_a_run_undoes_the_tampering(way, tmp_path):
    project = built(tmp_path / "p")
    WAYS[way][0](project)
    project.make()
    assert project.audit()["problems"] == []
    assert project.nothing_to_do()


def test_a_clean_project_passes(tmp_path):
    assert built(tmp_path / "p").audit()["code"] == 0


def test_a_store_that_remembers_another_run_is_no_objection_to_what_was_released(tmp_path):
    """As after a rebuild elsewhere, `git checkout` and `dvc pull`."""
    project = built(tmp_path / "p")
    for record in (project.root / ".diffmbrl/store").glob("*/job.json"):
        job = json.loads(record.read_text())
        for entry in job["proof"]["outputs"].values():
            entry["sha256"] = "0" * 64
        record.write_text(json.dumps(job))
    assert project.audit()["problems"] == []


def test_audit_says_what_was_made_elsewhere(tmp_path):
    from diffmbrl.pipeline.proof import Manifest, Proof

    project = built(tmp_path / "p")
    for path in (project.root / "data/manifests").rglob("*.json"):
        made = json.loads(path.read_text())
        proof = replace(Proof.parse(made["proof"], str(path)), platform="gpu: NVIDIA H100")
        path.write_text(Manifest(made["output"], proof, made["report"]).text())
    found = project.audit()
    assert found["problems"] == []
    assert found["elsewhere"] == {"gpu: NVIDIA H100": 10}
    assert project.nothing_to_do()
    assert "10 on gpu: NVIDIA H100" in project.diffmbrl("audit").stdout


def test_accept_keeps_a_result_and_audit_shows_it(tmp_path):
    project = built(tmp_path / "p")
    before = project.bytes()
    project.edit("src/diffmbrl/toy/palette.py", "blue", "red")
    assert project.pending() == {FIGURE}
    refused = project.diffmbrl("accept", FIGURE, "--reason", " ", check=False)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stdout
    project.diffmbrl("accept", FIGURE, "--reason", "only the legend's name")
    assert project.nothing_to_do()
    assert {k: v for k, v in project.bytes().items() if "manifests" not in k} == {
        k: v for k, v in before.items() if "manifests" not in k
    }
    found = project.audit()
    assert found["problems"] == []
    assert {entry["reason"] for entry in found["accepted"]} == {"only the legend's name"}
    assert "only the legend's name" in project.diffmbrl("why", FIGURE).stdout


def test_accept_refuses_bytes_that_are_not_the_manifests(tmp_path):
    project = built(tmp_path / "p")
    project.edit("src/diffmbrl/toy/palette.py", "blue", "red")
    flip(project, FIGURE)
    refused = project.diffmbrl("accept", FIGURE, "--reason", "no", check=False)
    assert refused.returncode == 2
    assert FIGURE in refused.stdout


def test_why_goes_back_to_raw_data(tmp_path):
    project = built(tmp_path / "p")
    chain = json.loads(project.diffmbrl("why", FIGURE, "--json").stdout)
    assert chain["stage"] == "toy.draw"
    (summary,) = chain["inputs"]
    assert {run["stage"] for run in summary["inputs"]} == {"toy.train"}
    assert {run["inputs"][0]["output"] for run in summary["inputs"]} == {
        "data/datasets/laptop/toy/a.json", "data/datasets/laptop/toy/b.json",
    }  # fmt: skip
    assert summary["inputs"][0]["inputs"][0]["inputs"] == []
    assert chain["report"]["commit"] is not None
    missing = project.diffmbrl("why", "figures/none.pdf", check=False)
    assert missing.returncode == 2


def test_status_names_the_change(tmp_path):
    project = built(tmp_path / "p")
    assert project.diffmbrl("status").stdout.strip() == "up to date"
    project.edit("src/diffmbrl/toy/step.py", "value * rate", "value * rate * 2")
    project.edit("config/toy.yaml", "title: toy", "title: Toy")
    said = project.diffmbrl("status", check=False)
    assert said.returncode == 1
    assert "diffmbrl.toy.step changed" in said.stdout
    assert 'title: "toy" -> "Toy"' in said.stdout
    plan = project.snakemake("-n").stdout
    assert "diffmbrl.toy.step@" in plan  # Snakemake's own reason names the module


def test_replay_confirms_runs_and_catches_an_altered_result(tmp_path):
    import pandas as pd

    from diffmbrl.pipeline.files import digest

    project = built(tmp_path / "p")
    done = json.loads(project.run("python", "-c", REPLAY).stdout)
    assert len(done) == 5
    assert all(run["same"] and set(run["run"]) == {"rate", "seed"} for run in done)
    for path in (project.root / "data/results").rglob("*.parquet"):
        table = pd.read_parquet(path)
        table["value"] *= 1 + 1e-15
        table.to_parquet(path, index=False)
        name = path.relative_to(project.root).as_posix()
        made = json.loads(manifest(project, name).read_text())
        made["proof"]["outputs"]["runs"]["sha256"] = digest(path)
        manifest(project, name).write_text(sealed(made))
    forged = json.loads(project.run("python", "-c", REPLAY).stdout)
    assert not any(run["same"] for run in forged)
    assert all("value" in run["detail"] for run in forged)


REPLAY = """
import json, dataclasses
from diffmbrl.pipeline.replay import replay
print(json.dumps([dataclasses.asdict(run) for run in replay(5, seed=0)]))
"""
