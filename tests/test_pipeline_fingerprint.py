"""Fingerprints: what counts, what does not, and how far a closure reaches."""

from pathlib import Path

import pytest

from diffmbrl.errors import UserError
from diffmbrl.pipeline import fingerprint

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Nothing remembered, a lock of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("numpy==1\n")
    fingerprint.forget()
    fingerprint._remembered.cache_clear()
    yield
    fingerprint.forget()
    fingerprint._remembered.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package in place of ours; returns a function that writes its modules."""
    root = tmp_path / "diffmbrl"
    monkeypatch.setattr(fingerprint, "ROOT", root)

    def write(**modules: str):
        for name, text in {"__init__": "", **modules}.items():
            path = root.joinpath(*name.split("__")) if name != "__init__" else root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".py").write_text(text)
            init = path.parent / "__init__.py"
            if not init.exists():
                init.write_text("")
        fingerprint.forget()

    return write


def hashed(source: str, path: Path) -> str:
    path.write_text(source)
    return fingerprint._read(path)["hash"]


BASE = "def f(x, *, y=None):\n    return [x, y, 'a']\n"


@pytest.mark.parametrize(
    "same",
    [
        "# comment\n" + BASE,
        '"""Module."""\n' + BASE,
        'def f(x, *, y=None):\n    """Doc."""\n    return [x, y, "a"]\n',
        "def f(\n    x,\n    *,\n    y=None,\n):\n    return [\n        x, y, 'a',\n    ]\n",
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(same, tmp_path):
    assert hashed(same, tmp_path / "a.py") == hashed(BASE, tmp_path / "b.py")


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("'a'", "b'a'"),
        BASE.replace("y=None", "y=0"),
        BASE.replace("x, y, 'a'", "y, x, 'a'"),
        BASE.replace("*, y", "y"),
        BASE.replace("[x, y, 'a']", "(x, y, 'a')"),
        BASE.replace("[x, y, 'a']", "[x, y, 'a', None]"),
        BASE + "X = 1\n",
    ],
)
def test_code_counts(other, tmp_path):
    assert hashed(other, tmp_path / "a.py") != hashed(BASE, tmp_path / "b.py")


def test_numbers_of_another_type_count(tmp_path):
    hashes = {hashed(f"x = {v}\n", tmp_path / "a.py") for v in ("1", "1.0", "True", "'1'", "1j")}
    assert len(hashes) == 5


def test_a_closure_follows_every_kind_of_import(package):
    package(
        p__stage=(
            "import diffmbrl.p.plain\nfrom diffmbrl.p import member\nfrom . import sibling\n"
            "from .deep.inner import name\nimport numpy\n"
            "def run(job):\n    from diffmbrl.p.late import x\n"
        ),
        p__plain="from diffmbrl.q import far\n", p__member="", p__sibling="", p__late="x = 1\n",
        p__deep__inner="name = 1\n", p__alone="", q__far="",
    )  # fmt: skip
    assert fingerprint.closure("p.stage") == {
        "diffmbrl", "diffmbrl.p", "diffmbrl.p.stage", "diffmbrl.p.plain", "diffmbrl.p.member",
        "diffmbrl.p.sibling", "diffmbrl.p.late", "diffmbrl.p.deep", "diffmbrl.p.deep.inner",
        "diffmbrl.q", "diffmbrl.q.far",
    }  # fmt: skip


def test_cycles_and_the_machinery(package):
    package(
        p__a="from diffmbrl.p import b\nfrom diffmbrl.pipeline.stage import Job\n",
        p__b="from diffmbrl.p import a\n", pipeline__stage="",
    )  # fmt: skip
    assert "diffmbrl.p.b" in fingerprint.closure("p.a")
    assert not [name for name in fingerprint.closure("p.a") if "pipeline" in name]


def test_data_files_that_a_module_names_count(package, tmp_path):
    package(p__stage="NAME = 'table.csv'\nOUT = '../../requirements.txt'\n")
    (tmp_path / "diffmbrl/p/table.csv").write_text("1\n")
    fingerprint.forget()
    first = fingerprint.of_stage("p.stage")
    assert {s.partition("@")[0] for s in first} == {
        "diffmbrl", "diffmbrl.p", "diffmbrl.p.stage", "p/table.csv", "requirements.txt",
    }  # fmt: skip
    (tmp_path / "diffmbrl/p/table.csv").write_text("2\n")
    fingerprint.forget()
    changed = set(fingerprint.of_stage("p.stage")) ^ set(first)
    assert {s.partition("@")[0] for s in changed} == {"p/table.csv"}


def test_the_numerics_belong_to_stages_that_use_jax(package):
    package(p__plain="import numpy\n", p__jax="import optax\n", sweep__device="import os\n")
    assert not fingerprint.uses_jax("p.plain")
    assert fingerprint.uses_jax("p.jax")
    assert "diffmbrl.sweep.device" in fingerprint.closure("p.jax")


def test_comments_of_the_lock_do_not_count(package, tmp_path):
    package(p__stage="")
    first = fingerprint.of_stage("p.stage")
    (tmp_path / "requirements.txt").write_text("# via\nnumpy==1\n\n    # more\n")
    fingerprint.forget()
    assert fingerprint.of_stage("p.stage") == first
    (tmp_path / "requirements.txt").write_text("numpy==2\n")
    fingerprint.forget()
    assert fingerprint.of_stage("p.stage") != first


def test_what_cannot_be_fingerprinted_is_named(package, tmp_path):
    package(p__broken="def f(:\n")
    with pytest.raises(UserError, match=r"no such stage .*diffmbrl\.p\.none"):
        fingerprint.of_stage("p.none")
    with pytest.raises(UserError, match=r"broken\.py:1: does not parse"):
        fingerprint.of_stage("p.broken")
    package(p__stage="")
    (tmp_path / "requirements.txt").unlink()
    fingerprint.forget()
    with pytest.raises(UserError, match="not found"):
        fingerprint.of_stage("p.stage")


def stages() -> list[str]:
    import re

    text = "".join(p.read_text() for p in (REPOSITORY / "workflow/rules").glob("*.smk"))
    return sorted(set(re.findall(r"diffmbrl run (\S+)", text)))


def test_every_rule_carries_the_fingerprint_of_the_stage_that_it_runs():
    import re

    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"(?m)^(?=rule )", path.read_text())[1:]:
            ran = re.findall(r"diffmbrl run (\S+)", rule)
            named = re.findall(r'\*stage\(\s*"([^"]+)"', rule)
            assert named == ran, rule.splitlines()[0]
            assert not ran or "+ JOB" in rule


def test_a_rule_whose_stage_can_be_replayed_names_settings_that_it_has():
    import importlib

    found = 0
    for stage in stages():
        axes = getattr(importlib.import_module(f"diffmbrl.{stage}"), "AXES", {})
        found += bool(axes)
        rules = "".join(p.read_text() for p in (REPOSITORY / "workflow/rules").glob("*.smk"))
        for setting in axes.values():
            assert f"{setting.partition('.')[0]}=" in rules, (stage, setting)
    assert found


def test_planning_does_not_import_jax():
    import subprocess
    import sys

    code = (
        "import sys\nfrom diffmbrl.pipeline import workflow, captions, fingerprint\n"
        f"for stage in {stages()}: fingerprint.of_stage(stage)\n"
        "print('jax' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "False"
