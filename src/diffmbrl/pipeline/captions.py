"""What the captions of Snakemake's report say: what a file shows, and what made it."""

import ast
import json
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import manifests
from diffmbrl.pipeline.proof import describe


class Provenance(dict):
    """By output: its title and its manifest's facts, as a caption's template wants them.

    Facts are read when a caption asks, so that planning a run does not pay for them; a dict,
    because Snakemake wants its config to be data.
    """

    def __missing__(self, output: str) -> dict[str, Any]:
        try:
            manifest = manifests.read(output)
        except (FileNotFoundError, DataError):
            return {"title": str(output), "facts": {}, "inputs": [], "table": []}
        proof, report = manifest.proof, manifest.report
        commit = report["commit"][:10] if report["commit"] else "none"
        return {
            "title": title(proof.stage),
            "facts": {
                "stage": proof.stage,
                "made": f"{report['started']}, in {report['seconds']} s",
                "platform": proof.platform,
                "commit": commit + (" with uncommitted edits" if report["dirty"] else ""),
                "sha256": manifest.sha256,
                **{name: describe(value) for name, value in proof.fingerprint.settings.items()},
                **{f"accepted {e['when']}": e["reason"] for e in manifest.accepted},
            },
            "inputs": [[file.path, file.sha256[:16]] for file in manifest.inputs],
            "table": _table(Path(output)),
        }


def title(stage: str) -> str:
    """The first line of a stage's docstring."""
    path = LAYOUT.root.joinpath(*stage.split(".")).with_suffix(".py")
    try:
        text = ast.get_docstring(ast.parse(path.read_bytes())) or stage
    except OSError:
        return stage
    return text.splitlines()[0]


def _table(path: Path) -> list[list[str]]:
    """Rows of a JSON file of verdicts, {what: {column: value}}, header first; [] for others."""
    if path.suffix != ".json":
        return []
    verdicts = {
        name: value
        for name, value in json.loads(path.read_text(encoding="utf-8")).items()
        if isinstance(value, dict)
    }
    columns = list(dict.fromkeys(column for value in verdicts.values() for column in value))
    rows = [[name, *(_cell(value.get(c, "")) for c in columns)] for name, value in verdicts.items()]
    return [["", *columns], *rows] if rows else []


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else describe(value)
