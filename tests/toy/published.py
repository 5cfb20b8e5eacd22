"""The toy project under DVC, and clones of it."""

import shutil
from pathlib import Path

from toy.project import Project, built


def publishable(root: Path, url: str = "dvc-store", **settings: str) -> Project:
    """The built project under DVC, its data out of git, with a default remote.

    Args:
        root: where it is laid out.
        url: of the remote; by default a folder that a clone brings along.
        **settings: of the remote, kept out of git.
    """
    project = built(root)
    project.run("dvc", "init", "--quiet")
    project.run("dvc", "remote", "add", "--quiet", "--default", "store", url)
    configure(project, **settings)
    project.git("rm", "-r", "-q", "--cached", "data/datasets", "data/results")
    project.git("add", ".dvc", ".dvcignore")
    project.git("commit", "-q", "-m", "DVC")
    return project


def configure(project: Project, **settings: str) -> None:
    """Gives the remote settings that git does not see."""
    for name, value in settings.items():
        project.run("dvc", "remote", "modify", "--quiet", "--local", "store", name, value)


def clone(project: Project, root: Path) -> Project:
    """A fresh clone, with no data."""
    project.git("clone", "-q", ".", str(root))
    shutil.copytree(project.root / "bin", root / "bin")  # ignored by git: where `diffmbrl` is
    copy = Project(root)
    assert not (root / "data/results").exists() or not list((root / "data/results").rglob("*.p*"))
    return copy
