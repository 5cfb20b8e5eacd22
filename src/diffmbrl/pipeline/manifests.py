"""Manifests on disk: where they lie, and how they are read and written.

The manifest of an output lies in git at data/manifests/<path of the output>.json. A rerun that
proves the same leaves the file, report included, alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline.files import write_atomic
from diffmbrl.pipeline.proof import Manifest


def path_of(output: Path | str) -> Path:
    """Where the manifest of an output lies."""
    return LAYOUT.manifests / f"{output}.json"


def write(manifest: Manifest) -> None:
    """Writes a manifest, unless the one in place already proves the same."""
    try:
        if read(manifest.output).seal == manifest.seal:
            return
    except (DataError, FileNotFoundError):
        pass
    write_atomic(path_of(manifest.output), manifest.text())


def read(output: Path | str) -> Manifest:
    """The manifest of an output, checked for being whole.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is not a manifest, was edited by hand, or is another output's.
    """
    path = path_of(output)
    manifest = Manifest.parse(path.read_text(encoding="utf-8"), str(path))
    if path_of(manifest.output) != path:
        raise DataError(f"{path}: is the manifest of {manifest.output}")
    return manifest


def report_of(output: Path | str) -> dict[str, Any]:
    """What an output's manifest reports, unchecked; {} where it cannot be read."""
    try:
        return json.loads(path_of(output).read_text(encoding="utf-8"))["report"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def every() -> Iterator[str]:
    """The outputs that have a manifest, in order."""
    for path in sorted(LAYOUT.manifests.rglob("*.json")):
        if not path.name.startswith("."):
            yield path.relative_to(LAYOUT.manifests).as_posix().removesuffix(".json")


def intermediate_elsewhere() -> Iterator[str]:
    """Intermediate outputs that have a manifest and are not here, in order."""
    for output in every():
        if LAYOUT.is_intermediate(output) and not Path(output).is_file():
            yield output


def outputs_on_disk() -> Iterator[str]:
    """Paths of all files that a stage may have made, in order."""
    for folder in LAYOUT.made.values():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".dvc" and not path.name.startswith("."):
                yield path.as_posix()
