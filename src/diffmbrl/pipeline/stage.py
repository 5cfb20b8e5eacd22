"""What a stage is: a module with `run(job)`.

It gets its settings, the paths of its inputs and where to write its outputs, and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
