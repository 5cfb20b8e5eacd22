"""The project's own files: lock, environments, imports, configuration of tools."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/diffmbrl"
LOCK = (ROOT / "requirements.txt").read_text()

# Lowest first: a package may import from those before it, and from its own.
LAYERS = (
    {"errors", "keys"},
    {"mdp", "solve", "nets"},
    {"envs", "agents"},
    {"pipeline.stage", "sweep", "stats"},
    {"implicit", "omd", "rpg"},
    {"plots"},
    {"config", "pipeline"},
    {"cli"},
)


def locked() -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", LOCK, flags=re.M))


def test_every_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    names = {re.split(r"[\[<>=! ]", name)[0].lower().replace("_", "-") for name in asked}
    assert names <= locked(), sorted(names - locked())


def test_lock_is_whole_and_names_no_registry():
    pins = re.split(r"\n(?=[a-z0-9])", LOCK.strip())
    assert len(pins) > 100
    for pin in pins:
        assert "--hash=sha256:" in pin, pin.splitlines()[0]
    assert not re.search(r"https?://|index-url|find-links", LOCK)


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert python.split()[1] == project["project"]["requires-python"] == ">=3.11"
    assert pip == "pip"
    assert packages["pip"] == ["-r requirements.txt"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffmbrl"):
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("diffmbrl.")}
    return {name.removeprefix("diffmbrl.") for name in found}


def layer(name: str) -> int:
    parts = name.split(".")
    for level, names in enumerate(LAYERS):
        if ".".join(parts[:2]) in names:
            return level
    for level, names in enumerate(LAYERS):
        if parts[0] in names:
            return level
    raise AssertionError(f"{name} stands in no layer: add it to LAYERS")


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for other in imports(path):
        assert layer(other) <= layer(name), f"{name} imports {other}"
    paper = name.split(".")[0]
    if paper in ("implicit", "omd", "rpg"):
        others = {"implicit", "omd", "rpg"} - {paper}
        assert not {o for o in imports(path) if o.split(".")[0] in others}


def test_pipeline_knows_no_paper():
    for path in (PACKAGE / "pipeline").glob("*.py"):
        papers = {
            name for name in imports(path) if name.split(".")[0] in ("implicit", "omd", "rpg")
        }
        assert not papers, f"{path.name}: {papers}"


def test_every_figure_has_its_module_rule_and_file():
    rules = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
    for path in (PACKAGE / "plots").glob("fig_*.py"):
        assert f"rule {path.stem}:" in rules
        assert f"plots.{path.stem} " in rules


def test_every_file_that_dvc_yaml_names_is_made_by_a_rule():
    rules = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    named = [*dvc["metrics"], *(f for plot in dvc["plots"] for v in plot.values() for f in v["y"])]
    for file in named:
        assert Path(file).name in rules, file
    assert all((ROOT / file).is_file() for file in dvc["params"])
