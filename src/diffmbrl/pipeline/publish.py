"""Publishing: only what is current and proven goes to DVC."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffmbrl.errors import UserError
from diffmbrl.pipeline import audit, explain, report

VERSIONED = ("data/datasets", "data/results")
IN_GIT = ("data/manifests", "data/stats", "figures", "data/datasets", "data/results")


class NotReady(UserError):
    """Something is out of date, fails the audit, or cannot be pushed."""

    code = 5


def publish(config: Mapping[str, Any] | None = None, push: bool = True) -> list[str]:
    """Gives data and results to DVC and pushes them, if nothing is pending and the audit clean.

    Args:
        config: what `snakemake --config` would be given.
        push: whether to push to the default remote.

    Returns:
        What was done, and what to commit.

    Raises:
        NotReady: and why.
    """
    _, pending = explain.status(config)
    if pending:
        first = pending[0]
        raise NotReady(
            f"{len(pending)} jobs are pending, first {first.rule} for {first.outputs[0]} "
            f"({first.reasons[0]}); run snakemake"
        )
    found = audit.audit()
    if found.problems:
        worst = found.problems[0]
        raise NotReady(
            f"the audit found {len(found.problems)} problems, first {worst.path}: {worst.kind}: "
            f"{worst.detail}; see diffmbrl audit"
        )
    folders, in_git = _folders()
    if folders:
        _dvc("add", "--quiet", *folders)
    if push:
        _dvc("push", "--quiet")
    kept = [path for path in IN_GIT if Path(path).is_dir()]
    return [
        f"audit: {found.checked} outputs as recorded",
        f"dvc: {', '.join(folders) or 'nothing'}{', pushed' if push else ''}",
        *(f"left to git, which tracks files in it: {folder}" for folder in in_git),
        f"now: git add {' '.join(kept)} && git commit",
    ]


def _folders() -> tuple[list[str], list[str]]:
    """Folders of one scale that are for DVC, and those in which git tracks files."""
    scales = [p for top in VERSIONED for p in sorted(Path(top).glob("*")) if p.is_dir()]
    names = [path.as_posix() for path in scales if any(path.rglob("*"))]
    in_git = [name for name in names if report.git("ls-files", name)]
    return [name for name in names if name not in in_git], in_git


def _dvc(*arguments: str) -> None:
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = _last(done.stderr.splitlines())
        raise NotReady(f"dvc {' '.join(arguments)}: {said}")


def _last(lines: Sequence[str]) -> str:
    errors = [line for line in lines if line.startswith("ERROR")] or list(lines)
    return errors[0] if errors else "failed without a message"
