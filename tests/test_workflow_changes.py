"""The mutation matrix: for each change, exactly the jobs that it touches rerun."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from toy.project import ALL, DATA, FIGURE, RUNS, SUMMARY, Project, built

CODE = "src/diffmbrl/toy"
DATASET, RESULT = "data/datasets/laptop/toy/a.json", "data/results/laptop/toy/a_x.parquet"
BELOW = {SUMMARY, FIGURE}
RUNS_X = {path for path in RUNS if path.endswith("_x.parquet")}
RUNS_A = {path for path in RUNS if "/a_" in path}


@dataclass(frozen=True)
class Change:
    """An edit; the jobs that it puts out of date, and those of them that compute anew.

    The others are served from the store, because their own code and inputs are what they were.
    """

    name: str
    apply: Callable[[Project], None]
    planned: set[str] = field(default_factory=set)
    computed: set[str] = field(default_factory=set)


def edit(path: str, old: str, new: str) -> Callable[[Project], None]:
    return lambda project: project.edit(path, old, new)


def flip(path: str) -> Callable[[Project], None]:
    """Changes one byte and puts size and times back as they were."""

    def apply(project):
        file = project.root / path
        before, data = os.stat(file), bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return apply


def old_edit(project):
    """As `cp -p` of an older file: other content, a time before every output."""
    file = project.root / f"{CODE}/step.py"
    file.write_text(file.read_text().replace("value * rate", "value * rate * 2"))
    os.utime(file, (1e9, 1e9))


def touch(*patterns: str) -> Callable[[Project], None]:
    def apply(project):
        for pattern in patterns:
            for path in project.root.glob(pattern):
                os.utime(path)

    return apply


def there_and_back(project):
    project.edit("config/toy.yaml", "0.25", "0.2")
    assert project.pending() == RUNS_X | BELOW
    project.edit("config/toy.yaml", "0.2]", "0.25]")


def swap(project):
    file = project.root / "config/toy.yaml"
    text = file.read_text()
    file.write_text(text.replace("x:", "z:").replace("y:", "x:").replace("z:", "y:"))


def other_python(project):
    for path in (project.root / "data/manifests").rglob("*.json"):
        manifest = json.loads(path.read_text())
        manifest["report"]["python"] = "3.11.99"
        path.write_text(json.dumps(manifest))


def delete(path: str) -> Callable[[Project], None]:
    return lambda project: (project.root / path).unlink()


CHANGES = [
    Change("comment", edit(f"{CODE}/step.py", "# towards zero", "# to zero\n    # at last")),
    Change("docstring", edit(f"{CODE}/everyone.py", "Used by every stage", "Ours")),
    Change("formatting", edit(f"{CODE}/step.py", "value * rate", "(value\n        * rate)")),
    Change("unused agent", edit(f"{CODE}/unused.py", "42", "43")),
    Change("lock's comment", edit("requirements.txt", "# a comment", "# another")),
    Change("everything touched", touch("data/*/*/*/*", "figures/*/*/*", "src/**/*.py", "config/*")),
    Change("there and back", there_and_back),
    Change("python recorded differently", other_python),
    Change("module of one stage", edit(f"{CODE}/step.py", "value * rate", "value * rate * 2"),
           RUNS | BELOW, RUNS | BELOW),
    Change("no effect", edit(f"{CODE}/step.py", "value * rate", "rate * value"),
           RUNS | BELOW, RUNS),
    Change("one entry's code", edit(f"{CODE}/methods/x.py", "sum(data)", "sum(data) + 1"),
           RUNS_X | BELOW, RUNS_X | BELOW),
    Change("one entry's label", edit(f"{CODE}/methods/x.py", "method x", "method X"),
           {FIGURE}, {FIGURE}),
    Change("edit with an old time", old_edit, RUNS | BELOW, RUNS | BELOW),
    Change("module of two stages", edit(f"{CODE}/pair.py", "1", "2"), RUNS | BELOW, RUNS | BELOW),
    Change("module of all stages", edit(f"{CODE}/everyone.py", "sort_keys=True", "sort_keys=False"),
           ALL, ALL),
    Change("package data", edit(f"{CODE}/constants.txt", "7", "8"), ALL, ALL),
    Change("plot module", edit(f"{CODE}/palette.py", "blue", "red"), {FIGURE}, {FIGURE}),
    Change("value of one sweep", edit("config/toy.yaml", "0.25", "0.3"),
           RUNS_X | BELOW, RUNS_X | BELOW),
    Change("value of the figure", edit("config/toy.yaml", "title: toy", "title: Toy"),
           {FIGURE}, {FIGURE}),
    Change("values swapped", swap, RUNS | BELOW, RUNS | BELOW),
    Change("lock", edit("requirements.txt", "1.0", "1.1"), ALL, ALL),
    Change("dataset byte", flip(DATASET), {DATASET} | RUNS_A | BELOW),
    Change("result byte", flip(RESULT), {RESULT} | BELOW),
    Change("second output byte", flip(FIGURE.replace("pdf", "png")), {FIGURE}),
    Change("output deleted", delete(RESULT), {RESULT} | BELOW),
    Change("manifest deleted", delete(f"data/manifests/{RESULT}.json"), {RESULT} | BELOW),
]  # fmt: skip
SAMPLE = {"no effect", "values swapped", "dataset byte", "one entry's code"}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_puts_exactly_its_jobs_out_of_date(change, tmp_path):
    project = built(tmp_path / "p")
    change.apply(project)
    assert project.pending() == change.planned


def _reruns_exactly(change, tmp_path):
    project = built(tmp_path / "p")
    before = project.bytes()
    change.apply(project)
    computed, served = project.make()
    assert computed == change.computed
    assert served == change.planned - change.computed
    assert project.nothing_to_do()
    if not change.computed:
        assert project.bytes() == before
        if change.apply is not other_python:  # which edits manifests itself
            assert project.git("status", "--short", "--", "data", "figures") == ""
    assert project.audit()["problems"] == []


@pytest.mark.parametrize(
    "change", [c for c in CHANGES if c.name in SAMPLE], ids=lambda change: change.name
)
def test_a_change_reruns_exactly_its_jobs(change, tmp_path):
    _reruns_exactly(change, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(
    "change", [c for c in CHANGES if c.name not in SAMPLE], ids=lambda change: change.name
)
def test_every_change_reruns_exactly_its_jobs(change, tmp_path):
    _reruns_exactly(change, tmp_path)


def test_going_back_to_an_earlier_state_computes_nothing(tmp_path):
    project = built(tmp_path / "p")
    project.edit("config/toy.yaml", "0.25", "0.3")
    assert project.make() == (RUNS_X | BELOW, set())
    project.edit("config/toy.yaml", "0.3]", "0.25]")
    assert project.make() == (set(), RUNS_X | BELOW)
    assert project.git("status", "--short") == ""


def test_a_rerun_that_proves_the_same_leaves_git_clean(tmp_path):
    project = built(tmp_path / "p")
    computed, _ = project.make("--forcerun", "toy_train", DIFFMBRL_STORE_GB="0")
    assert computed == set()  # still in the store
    project.run("rm", "-rf", ".diffmbrl/store")
    computed, _ = project.make("--forcerun", "toy_train", DIFFMBRL_STORE_GB="0")
    assert computed == RUNS | BELOW
    assert project.git("status", "--short") == ""


def test_an_edit_that_bytecode_would_hide_is_seen_and_run(tmp_path):
    project = built(tmp_path / "p")
    file = project.root / f"{CODE}/step.py"
    file.write_text(file.read_text().replace("value * rate", "value + rate"))
    project.make(PYTHONDONTWRITEBYTECODE="")
    added, before = project.bytes(), os.stat(file)
    file.write_text(file.read_text().replace("value + rate", "value - rate"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.make(PYTHONDONTWRITEBYTECODE="")[0] == RUNS | BELOW
    assert not {name for name in RUNS if project.bytes()[name] == added[name]}


def test_a_scale_with_other_settings_has_its_own_files(tmp_path):
    project = built(tmp_path / "p")
    before = project.bytes()
    computed, served = project.make("--config", "scale=smoke")
    assert {p for p in computed if "/laptop/" in p} == set()
    assert len(computed | served) == len(ALL)
    assert {k: v for k, v in project.bytes().items() if "/laptop/" in k} == before
    assert len(DATA & {p.replace("smoke", "laptop") for p in served}) == 2  # equal settings
