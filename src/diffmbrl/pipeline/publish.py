"""Publishing: only what is current and proven goes to DVC."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import audit, explain, report
from diffmbrl.pipeline.released import listed, object_at_hand, object_path


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
        _dvc("push")
        _check_remote(folders)
    kept = [p.as_posix() for p in (LAYOUT.manifests, *LAYOUT.released) if p.is_dir()]
    return [
        f"audit: {found.checked} outputs as recorded",
        f"dvc: {', '.join(folders) or 'nothing'}{', pushed' if push else ''}",
        *(f"left to git, which tracks files in it: {folder}" for folder in in_git),
        f"now: git add {' '.join(kept)} && git commit",
    ]


def _folders() -> tuple[list[str], list[str]]:
    """Folders of one scale that are for DVC, and those in which git tracks files."""
    scales = [p for top in LAYOUT.versioned for p in sorted(top.glob("*")) if p.is_dir()]
    names = [path.as_posix() for path in scales if any(path.rglob("*"))]
    in_git = [name for name in names if report.git("ls-files", name)]
    return [name for name in names if name not in in_git], in_git


def _check_remote(folders: Sequence[str]) -> None:
    """Whether the remote has every object: `dvc push` looks for a folder's list alone.

    Raises:
        NotReady: an object is not there, which one, and what to do.
    """
    if not folders:
        return
    remote = _dvc("config", "core.remote").strip()
    there = {Path(line).name for line in _dvc("ls-url", "-R", f"remote://{remote}").split()}
    for folder in folders:
        pointer = Path(f"{folder}.dvc").read_bytes()
        whole = yaml.safe_load(pointer)["outs"][0]["md5"]
        for name, md5 in listed(pointer, lambda md5: object_at_hand(md5) or b"[]").items():
            if object_path(md5).name not in there:
                raise NotReady(
                    f"remote {remote} has lost {object_path(md5)} ({folder}/{name}), and dvc takes "
                    f"it for there while the folder's list is: delete {object_path(whole)} in the "
                    "remote and publish again"
                )


def _dvc(*arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReady(f"dvc {' '.join(arguments)}: {_told(done.stderr + done.stdout)}")
    return done.stdout


def _told(said: str) -> str:
    """The line of what DVC said that tells what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return errors[0] if errors else "failed without a message"
