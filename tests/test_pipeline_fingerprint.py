"""Fingerprints: what counts, what does not, and how far a closure reaches."""

from dataclasses import replace
from pathlib import Path

import pytest

from diffmbrl import registry
from diffmbrl.errors import ConfigError, UserError
from diffmbrl.layout import LAYOUT
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
    monkeypatch.setattr(fingerprint, "LAYOUT", replace(LAYOUT, root=root))
    monkeypatch.setattr(registry, "LAYOUT", replace(LAYOUT, root=root))

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


def strings(stage, **settings) -> list[str]:
    return fingerprint.of_job(stage, settings).strings()


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
    first = strings("p.stage")
    assert {s.partition("@")[0] for s in first} == {
        "diffmbrl", "diffmbrl.p", "diffmbrl.p.stage", "p/table.csv", "requirements.txt",
    }  # fmt: skip
    (tmp_path / "diffmbrl/p/table.csv").write_text("2\n")
    fingerprint.forget()
    changed = set(strings("p.stage")) ^ set(first)
    assert {s.partition("@")[0] for s in changed} == {"p/table.csv"}


def test_the_numerics_belong_to_stages_that_use_jax(package):
    package(p__plain="import numpy\n", p__jax="import optax\n", sweep__device="import os\n")
    assert not fingerprint.needs_setup("p.plain")
    assert fingerprint.needs_setup("p.jax")
    assert "diffmbrl.sweep.device" in fingerprint.closure("p.jax")


def test_comments_of_the_lock_do_not_count(package, tmp_path):
    package(p__stage="")
    first = strings("p.stage")
    (tmp_path / "requirements.txt").write_text("# via\nnumpy==1\n\n    # more\n")
    fingerprint.forget()
    assert strings("p.stage") == first
    (tmp_path / "requirements.txt").write_text("numpy==2\n")
    fingerprint.forget()
    assert strings("p.stage") != first


def test_what_cannot_be_fingerprinted_is_named(package, tmp_path):
    package(p__broken="def f(:\n")
    with pytest.raises(UserError, match=r"no such stage .*diffmbrl\.p\.none"):
        strings("p.none")
    with pytest.raises(UserError, match=r"broken\.py:1: does not parse"):
        strings("p.broken")
    package(p__stage="")
    (tmp_path / "requirements.txt").unlink()
    fingerprint.forget()
    with pytest.raises(UserError, match="not found"):
        strings("p.stage")


ENTRY = "LABEL = 'x'\nORDER = 0\nfrom diffmbrl.p import only_x\ndef make():\n    return 1\n"


def test_a_job_depends_on_the_entries_that_it_uses(package):
    package(
        p__stage="USES = {'kind': 'p.kinds'}\nfrom diffmbrl import registry\n", registry="",
        p__kinds__x=ENTRY, p__kinds__y="LABEL = 'y'\nORDER = 1\n", p__only_x="",
    )  # fmt: skip
    registry._entries.cache_clear()
    of_x, of_y = (fingerprint.of_job("p.stage", {"kind": kind}) for kind in "xy")
    assert set(of_x.entries["p.kinds.x"]) == {
        "diffmbrl.p.kinds", "diffmbrl.p.kinds.x", "diffmbrl.p.only_x"
    }  # fmt: skip
    assert set(of_y.entries["p.kinds.y"]) == {"diffmbrl.p.kinds", "diffmbrl.p.kinds.y"}
    package(p__kinds__x=ENTRY.replace("'x'", "'the x'"))
    assert fingerprint.of_job("p.stage", {"kind": "x"}) == of_x  # a label is no code
    package(p__kinds__x=ENTRY.replace("1", "2"))
    assert [c.detail for c in of_x.changes(fingerprint.of_job("p.stage", {"kind": "x"}))] == [
        "diffmbrl.p.kinds.x changed"
    ]
    assert fingerprint.of_job("p.stage", {"kind": "y"}) == of_y
    with pytest.raises(ConfigError, match="p.kinds: has no entry 'z'; it has x, y"):
        fingerprint.of_job("p.stage", {"kind": "z"})


def test_a_constant_of_another_module_counts_even_where_a_fact_is_called_so(package):
    package(p__stage="from diffmbrl.p import look\n", p__look="COLOR = 'blue'\n")
    before = strings("p.stage")
    package(p__look="COLOR = 'red'\n")
    assert strings("p.stage") != before
