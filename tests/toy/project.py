"""A scratch copy of the project whose one paper is the toy, and what tests do with it."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from diffmbrl.pipeline.processes import birth
from warm_server import COLD, python_path

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PARTS = ["__init__.py", "errors.py", "config.py", "cli.py", "layout.py", "numerics.py", "pinned.py",
         "registry.py", "settings.py"]  # fmt: skip
MADE = re.compile(r"((?:data|figures)/\S+): (made by|served from the store)")

DATA = {f"data/datasets/laptop/toy/{d}.json" for d in "ab"}
RUNS = {f"data/results/laptop/toy/{d}_{m}.parquet" for d in "ab" for m in "xy"}
SUMMARY = "data/stats/laptop/toy/summary.json"
FIGURE = "figures/laptop/toy/fig_1.pdf"
ALL = DATA | RUNS | {SUMMARY, FIGURE}  # a job goes by its first output


class Project:
    """A project folder, and commands in it."""

    def __init__(self, root: Path):
        self.root = root

    def run(self, *command: str, check: bool = True, **variables: str):
        """Runs a command in the folder; output and errors together as text."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(**variables), text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
        return done

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of commands: this copy's code, no one's configuration."""
        path = f"{self.root / 'bin'}{os.pathsep}{Path(sys.executable).parent}"
        return {
            **os.environ, "PYTHONPATH": python_path(self.root / "src"),
            "XDG_CACHE_HOME": str(self.root.parent / "cache"),
            "DVC_SITE_CACHE_DIR": str(self.root.parent / "cache"), "DVC_NO_ANALYTICS": "1",
            "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "DIFFMBRL_STORE_GB": "1",
            "PYTHONDONTWRITEBYTECODE": "1", **variables,
        }  # fmt: skip

    def snakemake(self, *arguments: str, check: bool = True, **variables: str):
        """Runs snakemake on two cores."""
        return self.run("snakemake", "--cores", "2", *arguments, check=check, **variables)

    def make(self, *arguments: str, **variables: str) -> tuple[set[str], set[str]]:
        """Runs snakemake; the jobs that were computed, and those served from the store."""
        said = self.snakemake(*arguments, **variables).stdout
        found = MADE.findall(said)
        return tuple({p for p, how in found if how.startswith(w)} for w in ("made", "served"))

    def diffmbrl(self, *arguments: str, check: bool = True, **variables: str):
        """Runs a diffmbrl command."""
        return self.run("diffmbrl", *arguments, check=check, **variables)

    def audit(self) -> dict:
        """What `diffmbrl audit --json` says; its exit code is as it says."""
        done = self.diffmbrl("audit", "--json", check=False)
        found = json.loads(done.stdout)
        assert done.returncode == found["code"]
        return found

    def pending(self) -> set[str]:
        """First outputs of the jobs that `diffmbrl status` calls out of date."""
        done = self.diffmbrl("status", "--json", check=False)
        return {job["outputs"][0] for job in json.loads(done.stdout)["pending"]}

    def nothing_to_do(self) -> bool:
        """Whether Snakemake itself says so."""
        return "Nothing to be done" in self.snakemake("-n").stdout

    def start(self, **variables: str) -> subprocess.Popen:
        """Starts snakemake in a process of its own and comes back at once."""
        with open(self.root / "said.log", "w") as log:
            return subprocess.Popen(
                ["snakemake", "--cores", "2"], cwd=self.root,
                env=self.environment(**COLD, **variables),
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def jobs(self) -> list[int]:
        """Pids of living jobs, as the project knows them."""
        found = []
        for path in (self.root / ".diffmbrl/running").glob("*.json"):
            try:
                entry = json.loads(path.read_text())
            except (FileNotFoundError, ValueError):
                continue
            if entry["what"] != "snakemake" and birth(entry["pid"]) == entry["birth"]:
                found.append(entry["pid"])
        return found

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces text in a file."""
        file = self.root / path
        text = file.read_text()
        assert old in text, (path, old)
        file.write_text(text.replace(old, new))

    def bytes(self) -> dict[str, bytes]:
        """The bytes of all that stages made."""
        folders = [self.root / "figures", *(self.root / "data").glob("[drs]*")]
        files = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
        return {p.relative_to(self.root).as_posix(): p.read_bytes() for p in files}

    def git(self, *arguments: str) -> str:
        """Runs git; its output."""
        return self.run("git", *arguments).stdout


def lay_out(root: Path) -> Project:
    """Writes the toy project into an empty folder, with nothing made yet."""
    package = root / "src/diffmbrl"
    package.mkdir(parents=True)
    for name in PARTS:
        shutil.copy(REPOSITORY / "src/diffmbrl" / name, package)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("pipeline", "stats"):
        shutil.copytree(REPOSITORY / "src/diffmbrl" / name, package / name, ignore=ignore)
    shutil.copytree(HERE / "stages", package / "toy", ignore=ignore)
    shutil.copytree(HERE / "config", root / "config")
    shutil.copytree(REPOSITORY / "workflow", root / "workflow")
    (root / "requirements.txt").write_text("# a comment\nnot-installed==1.0\n")
    (root / ".gitignore").write_text(
        ".snakemake/\n.diffmbrl/\n/logs/\nbin/\n__pycache__/\nsaid.log\n"
    )
    shim = root / "bin/diffmbrl"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffmbrl.cli "$@"\n')
    shim.chmod(0o755)
    project = Project(root)
    project.git("init", "-q")
    project.git("config", "user.email", "toy@example.org")
    project.git("config", "user.name", "Toy")
    commit(project, "nothing made yet")
    return project


def commit(project: Project, message: str) -> None:
    """Commits everything."""
    project.git("add", "-A")
    project.git("commit", "-q", "-m", message)


@cache
def _built() -> Path:
    root = Path(tempfile.mkdtemp(prefix="toy-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    project = lay_out(root / "project")
    computed, served = project.make()
    assert computed == ALL
    assert served == set()
    commit(project, "everything made")
    return root / "project"


def built(root: Path) -> Project:
    """A copy of the toy project with everything made and committed."""
    shutil.copytree(_built(), root, symlinks=True)
    shim = root / "bin/diffmbrl"
    assert shim.exists()
    return Project(root)
