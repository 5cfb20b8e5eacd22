"""What the Snakemake rules call: a rule's params from the configuration, and targets."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from diffmbrl.config import PAPERS, canonical_scale, lookup


class Workflow:
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

    def stage(self, *wildcards: str, **keys: str) -> tuple[Callable[..., str], ...]:
        """A rule's params: one `name=<canonical json>` string for each setting of its stage.

        Args:
            *wildcards: names of wildcards whose values the stage is given.
            **keys: for each other setting, the dotted key of its value, paper first;
                wildcards in the key are filled in.
        """
        literal = tuple(_param(name, lambda wc, name=name: wc[name]) for name in wildcards)
        return literal + tuple(
            _param(name, lambda wc, key=key: self._value(key, wc)) for name, key in keys.items()
        )

    def _value(self, key: str, wildcards: Mapping[str, str]) -> Any:
        paper, _, rest = key.format(**wildcards).partition(".")
        return lookup(self.settings(paper, wildcards["scale"]), rest)


def _param(name: str, value: Callable[[Mapping[str, str]], Any]) -> Callable[..., str]:
    def param(wildcards) -> str:
        found = value(dict(wildcards.items()))
        return f"{name}={json.dumps(found, sort_keys=True, separators=(',', ':'))}"

    return param


def papers(config: Mapping[str, Any]) -> list[str]:
    """The papers that target `all` rebuilds, in the project's order."""
    return [paper for paper in PAPERS if paper in config["papers"]]
