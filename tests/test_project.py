"""The project's own files: lock, environments, imports, configuration of tools."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from diffmbrl import config, registry
from diffmbrl.pipeline import documents, verdicts
from diffmbrl.pipeline.workflow import Workflow

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/diffmbrl"
LOCK = (ROOT / "requirements.txt").read_text()

# Lowest first: a package may import from those before it, and from its own.
LAYERS = (
    {"errors", "keys", "layout", "registry", "tables", "numerics", "settings"},
    {"mdp", "solve", "nets"},
    {"envs", "agents"},
    {"pipeline.stage", "sweep", "stats"},
    {"implicit", "omd", "rpg"},
    {"plots"},
    {"config", "pipeline", "pinned"},
    {"cli"},
)


def locked() -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", LOCK, flags=re.M))


def test_every_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    names = {re.split(r"[\[<>=! ]", name)[0].lower().replace("_", "-") for name in asked}
    assert names <= locked(), sorted(names - locked())


def test_extras_lie_beside_the_lock():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    versions = dict(
        re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[.*\])?==([^\s;\\]+)", LOCK, flags=re.M)
    )
    asked = {e: [Requirement(text) for text in extras[e]] for e in extras if e != "dev"}
    assert set(asked) == {"slurm", "gpu", "ssh", "webdav", "mjx"}
    for wanted in (requirement for several in asked.values() for requirement in several):
        assert {s.operator for s in wanted.specifier} == {">=", "<"}, wanted
        if wanted.name in versions:
            assert wanted.specifier.contains(versions[wanted.name]), wanted


def test_both_containers_are_set_up_alike():
    docker, apptainer = (
        (ROOT / "containers" / n).read_text() for n in ("Dockerfile", "diffmbrl.def")
    )
    for recipe in (docker, apptainer):
        assert re.findall(r"BASE=(\S+)", recipe)[0] == "python:3.12-slim"
        assert "containers/set-up" in recipe
        assert "make" in recipe.splitlines()[-1]
    assert "make venv VENV=/opt/venv" in (ROOT / "containers/set-up").read_text()


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


PLAN = {"rules", "config", "rule"}  # modules of papers and plots that say what is run


def layer(name: str) -> int:
    parts = name.split(".")
    if len(parts) > 1 and parts[1] in PLAN:
        parts = ["pipeline"]
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
    if paper in config.papers():
        others = set(config.papers()) - {paper}
        assert not {o for o in imports(path) if o.split(".")[0] in others}


def test_the_machinery_knows_no_paper_no_jax_and_no_plot():
    for path in (PACKAGE / "pipeline").glob("*.py"):
        strangers = {
            name for name in imports(path) if name.split(".")[0] in (*config.papers(), "plots")
        }
        assert not strangers, f"{path.name}: {strangers}"
        assert not re.search(r"\b(jax|plots)\.|import jax", path.read_text()), path.name


WORKFLOW = Workflow(config.load(ROOT))


def test_every_figure_has_its_module_rule_and_file():
    drawn = {bound.rule.name: bound for bound in WORKFLOW.rules if "fig_" in bound.rule.name}
    assert set(drawn) == {path.stem for path in (PACKAGE / "plots").glob("fig_*.py")}
    for name, bound in drawn.items():
        assert bound.rule.stage == f"plots.{name}"
        _, paper, number = name.split("_", 2)
        file = Path(bound.outputs["pdf"])
        assert file.as_posix().startswith(f"figures/{{scale}}/{paper}/fig_")
        assert file.name.lower().startswith(f"fig_{number}_")


def test_every_file_that_dvc_yaml_names_is_made_by_a_rule():
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    made = {path for paper in config.papers() for path in WORKFLOW.targets(paper)}
    named = [*dvc["metrics"], *(f for plot in dvc["plots"] for v in plot.values() for f in v["y"])]
    assert set(named) <= made
    assert all((ROOT / file).is_file() for file in dvc["params"])


def test_documents_say_what_the_tables_of_claims_say(monkeypatch):
    """Where this fails: `diffmbrl claims --write`."""
    monkeypatch.chdir(ROOT)
    found, missing = verdicts.of_all(WORKFLOW, config.papers())
    assert not missing
    for path, text in documents.documents(WORKFLOW, found).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: stale"


def test_every_claim_names_a_figure_that_a_rule_draws(monkeypatch):
    monkeypatch.chdir(ROOT)
    drawn = {bound.rule.name for bound in WORKFLOW.rules}
    found, _ = verdicts.of_all(WORKFLOW, config.papers())
    ids = [j.id for judged in found.values() for j in judged]
    assert len(ids) == len(set(ids))
    assert {j.figure for judged in found.values() for j in judged if j.figure} <= drawn


def test_every_stage_has_one_rule_and_reads_what_a_rule_makes():
    assert len({bound.rule.stage for bound in WORKFLOW.rules}) == len(WORKFLOW.rules)
    for bound in WORKFLOW.rules:
        for instance in bound.rule.instances(WORKFLOW.config.settings(bound.paper, "paper")):
            for read in bound.inputs.values():
                assert read({**instance, "scale": "paper"})


def test_settings_that_replay_narrows_are_given_to_the_stage():
    found = 0
    for bound in WORKFLOW.rules:
        axes = getattr(importlib.import_module(f"diffmbrl.{bound.rule.stage}"), "AXES", {})
        found += bool(axes)
        for setting in axes.values():
            assert setting.partition(".")[0] in bound.rule.keys, (bound.rule.stage, setting)
    assert found


def test_planning_does_not_import_jax_or_a_plot():
    code = (
        "import sys\nfrom diffmbrl.config import load\n"
        "from diffmbrl.pipeline.workflow import Workflow\nfrom diffmbrl.pipeline import captions\n"
        "work = Workflow(load('.'))\n"
        "print(len([p for b in work.rules for p in b.params]), work.targets('omd')[0])\n"
        "print({'jax', 'numpy', 'matplotlib'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "set()"


ENTRIES = {
    f"{folder}.{name}"
    for paper in config.papers()
    for folder in importlib.import_module(f"diffmbrl.{paper}.config").REGISTRIES.values()
    for name in registry.names(folder)
}


def reached(path: Path) -> set[str]:
    """The modules that importing one leads to, packages' own modules included."""
    seen, queue = set(), [".".join(path.relative_to(PACKAGE).with_suffix("").parts)]
    while queue:
        name = queue.pop()
        base = PACKAGE.joinpath(*name.split("."))
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if name and name not in seen and file.is_file():
            seen.add(name)
            queue += [*imports(file), name.rpartition(".")[0]]
    return seen


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_entries_of_registries_are_loaded_by_name_only(path):
    """So an edit of one entry concerns the jobs that use it, and no others."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    assert not (reached(path) & ENTRIES) - {name}


def test_figures_depend_on_no_physics():
    for path in PACKAGE.glob("plots/fig_[io]*.py"):
        physics = {name for name in reached(path) if name.startswith("envs")}
        assert not physics, f"{path.stem}: {physics}"
