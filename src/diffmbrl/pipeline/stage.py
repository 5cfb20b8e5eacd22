"""What a stage is: a module with `run(job)`.

It gets its settings, the paths of its inputs and where to write its outputs, and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.errors import UserError

Inputs = Mapping[str, Sequence[Path]]
Outputs = Mapping[str, Path]


@dataclass(frozen=True)
class Job:
    """What a stage is given.

    Attributes:
        settings: the config values that the stage uses, by name.
        inputs: paths of the inputs, by name.
        outputs: where to write each output, by name; moved into place on success.
        threads: how many cores the job may use.
        scratch: a folder for unfinished work; it outlives a failed job, so that the next
            one with the same settings can go on from there.
    """

    settings: Mapping[str, Any]
    inputs: Inputs
    outputs: Outputs
    threads: int
    scratch: Path

    def input(self, name: str) -> Path:
        """The path of an input that is one file."""
        (path,) = self.inputs[name]
        return path


def parse_settings(strings: Sequence[str]) -> dict[str, Any]:
    """Settings from `name=<canonical json>` strings, the form they have in a rule's params."""
    settings = {}
    for string in strings:
        name, equals, value = string.partition("=")
        try:
            settings[name] = json.loads(value) if equals else None
        except json.JSONDecodeError:
            raise UserError(f"{string!r}: the value is not JSON") from None
        if not equals:
            raise UserError(f"{string!r}: give settings as name=<json>")
    return settings
