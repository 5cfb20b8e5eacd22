"""Registries: entries in their order, facts without an import, one clear line where one lacks."""

import ast
import subprocess
import sys
from dataclasses import replace

import pytest

from diffmbrl import registry
from diffmbrl.errors import ConfigError, UserError
from diffmbrl.layout import LAYOUT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A registry of two entries that cannot be imported."""
    (tmp_path / "toy/things").mkdir(parents=True)
    (tmp_path / "toy/things/__init__.py").write_text('"""Things."""\n')
    (tmp_path / "toy/things/late.py").write_text('LABEL = "Late"\nORDER = 1\nraise SystemExit\n')
    (tmp_path / "toy/things/soon.py").write_text(
        'import nowhere\nLABEL = "Soon"\nORDER = 0\nCOLOR = 3\nLIMITS = (0.0, 15.0)\n'
        "SIZE = nowhere.SIZE\n"
    )
    monkeypatch.setattr(registry, "LAYOUT", replace(LAYOUT, root=tmp_path))
    registry._entries.cache_clear()
    yield tmp_path / "toy/things"
    registry._entries.cache_clear()


def test_entries_come_in_their_order_and_facts_without_an_import(folder):
    assert registry.names("toy.things") == ["soon", "late"]
    assert registry.facts("toy.things") == {
        "soon": {"LABEL": "Soon", "ORDER": 0, "COLOR": 3, "LIMITS": (0.0, 15.0)},
        "late": {"LABEL": "Late", "ORDER": 1},
    }
    assert registry.fact("toy.things", "soon", "COLOR") == 3
    assert registry.fact("toy.things", "late", "COLOR") is None


def test_unknown_names_are_refused(folder):
    with pytest.raises(ConfigError, match="toy.things: has no entry 'never'; it has soon, late"):
        registry.load("toy.things", "never")
    with pytest.raises(UserError, match="toy.none: no such registry"):
        registry.names("toy.none")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ORDER = 2\n", "extra.py: LABEL is missing"),
        ('LABEL = "Extra"\nORDER = 1 + len("x")\n', "extra.py:2: ORDER must be a literal"),
    ],
)
def test_an_entry_without_its_facts_is_refused(folder, text, complaint):
    (folder / "extra.py").write_text(text)
    with pytest.raises(UserError, match=complaint):
        registry.names("toy.things")


FOLDERS = (
    "implicit.domains",
    "implicit.parameterizations",
    "omd.agents",
    "rpg.tasks",
    "rpg.estimators",
)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_entry_of_the_project_loads_and_has_an_order_of_its_own(name):
    facts = registry.facts(name)
    orders = [entry["ORDER"] for entry in facts.values()]
    assert orders == sorted(set(orders))
    for entry, found in facts.items():
        module = registry.load(name, entry)
        for fact, value in found.items():
            assert getattr(module, fact) == value


@pytest.mark.parametrize("name", FOLDERS)
def test_facts_are_not_used_by_the_code_beside_them(name):
    """They are for rules and figures, and do not count as code of the entry."""
    for entry in registry.names(name):
        tree = ast.parse((registry.path_of(name) / f"{entry}.py").read_text())
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        assert not used & LAYOUT.facts


def test_reading_facts_imports_neither_numpy_nor_jax():
    code = (
        "import sys; from diffmbrl import registry\n"
        f"for folder in {FOLDERS}: registry.names(folder)\n"
        "print(sorted({'jax', 'numpy', 'diffmbrl.implicit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
