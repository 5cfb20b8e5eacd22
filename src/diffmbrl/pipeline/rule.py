"""Rules as data: a paper says once what its stages read, make and use; Snakemake's rules follow.

A paper is a package with a module `rules` that holds `RULES` and a module `config` that holds
`Settings`. Paths are given within the kind's folder, scale and paper: the output
`results/{domain}.parquet` of paper `implicit` is `data/results/{scale}/implicit/{domain}.parquet`.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from diffmbrl.layout import LAYOUT

Wildcards = Mapping[str, str]
ALL_CORES = 8  # threads of the long jobs; Snakemake gives them at most the cores that it has


def every(**names: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of some wildcards' values."""
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*names.values())]


@dataclass(frozen=True)
class Rule:
    """One stage, as the workflow runs it.

    Attributes:
        stage: its module, such as `implicit.train`.
        outputs: by role, where each output lies.
        inputs: by role, which output of which stage it reads, such as `implicit.collect.dataset`,
            or several: of all that a stage makes, what agrees with this job's own wildcards, and
            with one that is given, as in `rpg.train.snapshots[estimator=rp_dp]`.
        settings: the configuration's values that the stage is given: dotted keys of the paper's
            settings, each by its last part or as `name=key`, with wildcards in braces; `{scale}`
            alone stands for the scale's name. Wildcards are given too, always.
        over: from the paper's settings, the wildcards' values of every job; None: one job.
        facts: by setting, the registry of whose entries the stage is given labels and the like:
            of those that the paper's settings of that name hold, or of all if it has none.
        threads: how many cores a job can use, for a job's wildcards.
        memory: in MB, what a job asks of a cluster; None: by what manifests report.
        minutes: the same of its time.
        shown: roles of the outputs that the report shows.
        name: of Snakemake's rule; by default the stage with underscores.
    """

    stage: str
    outputs: Mapping[str, str]
    inputs: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    settings: Sequence[str] = ()
    over: Callable[[Mapping[str, Any]], list[dict[str, str]]] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    threads: Callable[[Wildcards], int] = lambda wildcards: 1
    memory: int | None = None
    minutes: int | None = None
    shown: Sequence[str] = ()
    name: str = ""

    def __post_init__(self):
        if not self.name:
            object.__setattr__(self, "name", self.stage.replace(".", "_"))

    def instances(self, settings: Mapping[str, Any]) -> list[dict[str, str]]:
        """The wildcards of every job of a scale, but for `scale` itself."""
        return self.over(settings) if self.over else [{}]

    def path(self, paper: str, role: str) -> str:
        """An output's path, wildcards in braces."""
        kind, _, rest = self.outputs[role].partition("/")
        return f"{LAYOUT.made[kind].as_posix()}/{{scale}}/{paper}/{rest}"

    @property
    def keys(self) -> dict[str, str]:
        """The dotted key of each setting, by the setting's name."""
        pairs = (text.rpartition("=") for text in self.settings if text != "{scale}")
        return {name or key.rpartition(".")[2]: key for name, _, key in pairs}


def fill(pattern: str, wildcards: Wildcards) -> str:
    """A pattern with its wildcards filled in; other braces are left alone."""
    return re.sub(r"{(\w+)}", lambda m: str(wildcards.get(m[1], m[0])), pattern)


def within(case: str, rules: Iterable[Rule]) -> list[Rule]:
    """Rules that have jobs only at the scales whose setting `cases` names this one."""

    def over(rule: Rule, settings: Mapping[str, Any]) -> list[dict[str, str]]:
        return rule.instances(settings) if case in settings["cases"] else []

    return [replace(rule, over=partial(over, rule)) for rule in rules]
