"""What the captions of Snakemake's report say: what a file shows, and what made it."""

import ast
import json
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError
from diffmbrl.pipeline import fingerprint, manifest


class Provenance(dict):
    """By output: its title and its manifest's facts, as a caption's template wants them.

    Facts are read when a caption asks, so that planning a run does not pay for them; a dict,
    because Snakemake wants its config to be data.
    """

    def __missing__(self, output: str) -> dict[str, Any]:
        try:
            made = manifest.read(manifest.path_of(output))
        except (FileNotFoundError, DataError):
            return {"title": str(output), "facts": {}, "inputs": [], "table": []}
        proof, report = made["proof"], made["report"]
        commit = report["commit"][:10] if report["commit"] else "none"
        return {
            "title": _title(proof["stage"]),
            "facts": {
                "stage": proof["stage"],
                "made": f"{report['started']}, in {report['seconds']} s",
                "on": report.get("device", report["platform"]),
                "commit": commit + (" with uncommitted edits" if report["dirty"] else ""),
                "sha256": manifest.recorded(made),
                **{
                    name: manifest.describe(value)
                    for name, value in manifest.settings_of(made).items()
                },
                **{f"accepted {e['when']}": e["reason"] for e in made.get("accepted", ())},
            },
            "inputs": [[e["path"], e["sha256"][:16]] for e in manifest.inputs_of(made)],
            "table": _table(Path(output)),
        }


def _title(stage: str) -> str:
    """The first line of a stage's docstring."""
    path = fingerprint.ROOT.joinpath(*stage.split(".")).with_suffix(".py")
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
    return f"{value:.3g}" if isinstance(value, float) else manifest.describe(value)
