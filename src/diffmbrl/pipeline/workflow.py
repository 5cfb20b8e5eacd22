"""What the Snakemake rules call: a rule's params from the configuration, and targets."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from diffmbrl.config import PAPERS, canonical_scale, lookup
from diffmbrl.pipeline import fingerprint, processes, records
from diffmbrl.pipeline.files import canonical


class Pipeline:
    """The configuration, as the rules see it.

    Attributes:
        config: the checked configuration, from `diffmbrl.config.load`.
    """

    def __init__(self, config: Mapping[str, Any]):
        """Wraps a checked configuration."""
        self.config = config

    def scale(self, paper: str) -> str:
        """The scale whose files a paper's targets name (equal settings share results)."""
        return canonical_scale(self.config, self.config["scale"], paper)

    def settings(self, paper: str, scale: str) -> Mapping[str, Any]:
        """A paper's settings at a scale."""
        return self.config["scales"][scale][paper]

    def stage(
        self, module: str, *wildcards: str, **keys: str
    ) -> tuple[str | Callable[..., str], ...]:
        """A rule's params: its stage's fingerprint, one string each.

        `name@hash` for the code that the stage can reach and for the lock, `name=<canonical
        json>` for each setting. Strings, and positional, because Snakemake then sees every
        change, and names it.

        Args:
            module: the stage, such as `implicit.train`.
            *wildcards: names of wildcards whose values the stage is given.
            **keys: for each other setting, the dotted key of its value, paper first;
                wildcards in the key are filled in.
        """
        code = tuple(fingerprint.of_stage(module))
        literal = (_param(name, partial(_wildcard, name)) for name in wildcards)
        configured = (_param(name, partial(self._value, key)) for name, key in keys.items())
        return (*code, *literal, *configured)

    def _value(self, key: str, wildcards: Mapping[str, str]) -> Any:
        paper, _, rest = key.format(**wildcards).partition(".")
        return lookup(self.settings(paper, wildcards["scale"]), rest)


def _wildcard(name: str, wildcards: Mapping[str, str]) -> str:
    return wildcards[name]


def _param(name: str, value: Callable[[Mapping[str, str]], Any]) -> Callable[..., str]:
    def param(wildcards) -> str:
        found = value(dict(wildcards.items()))
        return f"{name}={canonical(found)}"

    return param


def begin() -> None:
    """What a Snakefile does first: makes itself known to its jobs, and its records right."""
    os.environ[processes.PARENT] = str(os.getpid())
    processes.note("snakemake")
    records.reconcile()


def papers(config: Mapping[str, Any]) -> list[str]:
    """The papers that target `all` rebuilds, in the project's order."""
    return [paper for paper in PAPERS if paper in config["papers"]]
