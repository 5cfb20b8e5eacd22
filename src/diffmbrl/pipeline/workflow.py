"""The workflow: every paper's rules over the configuration, as Snakemake is given them."""

import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import diffmbrl.pinned  # noqa: F401  (jobs inherit the pins)
from diffmbrl import registry
from diffmbrl.config import Config, load, lookup
from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import fingerprint, manifests, processes, queue, records, snakemake
from diffmbrl.pipeline.proof import Fingerprint
from diffmbrl.pipeline.resources import Need, need
from diffmbrl.pipeline.rule import Rule, Wildcards, fill
from diffmbrl.pipeline.snakemake import Planned, declared

_SOURCE = re.compile(r"(?P<stage>[\w.]+)\.(?P<role>\w+)(\[(?P<chosen>\w+=\w+)\])?")


def begin(overrides: Mapping[str, Any], theirs: Any) -> "Workflow":
    """What a Snakefile does first: checks everything, and puts Snakemake's records right.

    Args:
        overrides: Snakemake's `config`: what the command line gave.
        theirs: Snakemake's `workflow`.

    Raises:
        UserError: something is not as it must be; one line says what.
    """
    snakemake.check(theirs)
    workflow = Workflow(load(".", overrides), snakemake.submits(theirs))
    os.environ[processes.PARENT] = str(os.getpid())
    processes.note("snakemake")
    if workflow.submits:  # a job's own Snakemake makes the job, whatever the records say
        records.reconcile({bound.rule.stage: bound.rule.name for bound in workflow.rules})
    return workflow


def start(theirs: Any) -> None:
    """What a Snakefile does when a real run starts: keeps what it may replace, and hears SIGTERM.

    Args:
        theirs: Snakemake's `workflow`.
    """
    records.keep()
    snakemake.end_on_sigterm()
    executor = snakemake.cluster(theirs)
    if executor is not None:
        queue.remember(executor)


def jobs_of(files: Iterable[str]) -> dict[str, Planned]:
    """By output, the jobs that make some files and what those are made from.

    Files that no job of any scale makes have none.
    """
    made = {path for bound in Workflow(load()).rules for path in bound.every_output()}
    wanted = [file for file in files if file in made]
    jobs = snakemake.plan(targets=wanted) if wanted else []
    return {output: job for job in jobs for output in job.outputs}


class Workflow:
    """All rules of all papers.

    Attributes:
        config: the checked configuration.
        submits: whether it hands out jobs, as a job's own Snakemake on a node does not.
        rules: in the papers' order.
    """

    def __init__(self, config: Config, submits: bool = True):
        """Finds the papers' rules."""
        self.config, self.submits = config, submits
        self.rules = [
            Bound(self, paper, rule)
            for paper in config.known_papers
            for rule in importlib.import_module(f"{LAYOUT.package}.{paper}.rules").RULES
        ]

    @cached_property
    def by_stage(self) -> dict[str, "Bound"]:
        """Each stage's rule."""
        return {bound.rule.stage: bound for bound in self.rules}

    def targets(self, paper: str) -> list[str]:
        """Every output of every rule of a paper, at the configured scale.

        Every stage's, not only the last ones': an output that is deleted is then made again,
        unless it is an intermediate one. Of a paper that the scale does not have, one file that
        nothing makes and whose name says why.
        """
        if paper not in self.config.scales[self.config.scale]:
            return [self.config.without(paper, self.config.scale)]
        scale = self.config.home_of(paper, self.config.scale)
        settings = self.config.settings(paper, scale)
        return [
            fill(path, {**wildcards, "scale": scale})
            for bound in self.rules
            if bound.paper == paper
            for wildcards in bound.rule.instances(settings)
            for path in bound.outputs.values()
            if not LAYOUT.is_intermediate(path)
        ]


@dataclass(frozen=True)
class Bound:
    """A rule of a paper within the workflow: what a Snakemake rule is made from."""

    workflow: Workflow
    paper: str
    rule: Rule
    _known: dict[tuple, list[str]] = field(default_factory=dict, compare=False, repr=False)
    _needs: dict[str, Need] = field(default_factory=dict, compare=False, repr=False)
    _groups: dict[tuple, dict] = field(default_factory=dict, compare=False, repr=False)

    @property
    def outputs(self) -> dict[str, str]:
        """Patterns of the outputs' paths, by role."""
        return {role: self.rule.path(self.paper, role) for role in self.rule.outputs}

    @property
    def inputs(self) -> dict[str, Callable[[Wildcards], list[str]]]:
        """Functions from a job's wildcards to the inputs' paths, by role."""
        return {
            role: declared(partial(self._input, source), "wildcards")
            for role, source in self.rule.inputs.items()
        }

    @property
    def log(self) -> str:
        """The pattern of the log's path."""
        names = [f"{{{name}}}" for name in self._wildcards]
        return f"logs/{{scale}}/{self.paper}/{'-'.join([self.rule.name, *names])}.log"

    @property
    def constraints(self) -> dict[str, str]:
        """Regular expressions of the wildcards: the values that they have at any scale.

        The scale's looks ahead to the end of the path: only files of configured jobs match, so
        that none can be made that the configuration does not have.
        """
        values: dict[str, dict[str, None]] = {name: {} for name in self._wildcards}
        for instance in self._instances_at_all_scales:
            for name in values:
                values[name][instance[name]] = None
        ends = [path[path.index("{scale}") :] for path in self.outputs.values()]
        files = [fill(end, job) for job in self._instances_at_all_scales for end in ends]
        return {
            "scale": f"(?=(?:{'|'.join(map(re.escape, files))})$)[^/]+",
            **{name: "|".join(found) or "none" for name, found in values.items()},
        }

    @property
    def params(self) -> list[Callable[[Wildcards], str]]:
        """The fingerprint as functions from wildcards to one string each.

        One string each, and positional, because Snakemake then sees every change, and names it.
        """
        counts = [len(self._strings(instance)) for instance in self._instances_at_all_scales]
        indices = range(max(counts, default=0))
        return [declared(partial(self._string, index), "wildcards") for index in indices]

    @property
    def command(self) -> Callable[..., str]:
        """The shell command of a job but for its threads, of its wildcards, inputs and outputs.

        Snakemake records no params that are derived from inputs and outputs, so this one triggers
        nothing. Threads, which would make Snakemake work out every job's resources, come after it.
        """
        return declared(self._command, "wildcards", "input", "output")

    def _command(self, wildcards: Wildcards, input: Any, output: Any) -> str:
        wildcards = dict(wildcards.items())
        config = self.workflow.config
        words = [sys.executable, "-m", f"{LAYOUT.package}.cli", "run", self.rule.stage]
        for role in self.rule.inputs:
            words += ["--input", role, *_paths(input.get(role))]
        for role in self.rule.outputs:
            words += ["--output", role, str(output.get(role))]
        words += ["--device", config.device, "--environment", config.environment]
        words += ["--log", fill(self.log, wildcards)]
        return shlex.join([*words, "--plan", *self._strings(wildcards)])

    @property
    def threads(self) -> Callable[[Wildcards], int]:
        """A function from a job's wildcards to the cores that it can use."""
        return declared(lambda wildcards: self.rule.threads(dict(wildcards.items())), "wildcards")

    @property
    def resources(self) -> dict[str, Callable[..., int]]:
        """What a job asks of a cluster, as functions from its wildcards and attempt.

        Jobs that compute ask for a `gpu` where the device is one. A job's own Snakemake asks for
        no memory and time: it has been given them.
        """
        asked: dict[str, Callable[..., int]] = {}
        if self.workflow.submits:
            asked = {
                "mem_mb": declared(self._memory, "wildcards", "attempt"),
                "runtime": declared(self._minutes, "wildcards", "attempt"),
            }
        return asked | ({"gpu": lambda wildcards: 1} if self._computes_on_gpu else {})

    def _memory(self, wildcards: Wildcards, attempt: int) -> int:
        return self._need(wildcards["scale"]).at(attempt).memory

    def _minutes(self, wildcards: Wildcards, attempt: int) -> int:
        return self._need(wildcards["scale"]).at(attempt).minutes

    def _need(self, scale: str) -> Need:
        if scale not in self._needs:
            path = next(iter(self.outputs.values()))
            reports = [
                (instance["scale"], manifests.report_of(fill(path, instance)))
                for instance in self._instances_at_all_scales
            ]
            rule = self.rule
            self._needs[scale] = need(scale, reports, rule.memory, rule.minutes)
        return self._needs[scale]

    @property
    def _computes_on_gpu(self) -> bool:
        """Whether `device: gpu` makes the jobs of this rule need one."""
        if self.workflow.config.device != "gpu":
            return False
        entries = {
            entry
            for instance in self._instances_at_all_scales
            for entry in fingerprint.entries_of(self.rule.stage, self._settings(instance))
        }
        return fingerprint.needs_setup(self.rule.stage, *sorted(entries))

    def fingerprint(self, wildcards: Wildcards) -> Fingerprint:
        """What decides a job's bytes beside its inputs."""
        return fingerprint.of_job(self.rule.stage, self._settings(wildcards))

    def _settings(self, wildcards: Wildcards) -> dict[str, Any]:
        given: dict[str, Any] = {k: value for k, value in wildcards.items() if k != "scale"}
        if "{scale}" in self.rule.settings:
            given["scale"] = wildcards["scale"]
        values = self.workflow.config.settings(self.paper, wildcards["scale"])
        for name, key in self.rule.keys.items():
            given[name] = lookup(values, fill(key, wildcards))
        for name, folder in self.rule.facts.items():
            facts = registry.facts(folder)
            run = values.get(name, facts)
            given[name] = {entry: facts[entry] for entry in facts if entry in run}
        return given

    def _strings(self, wildcards: Wildcards) -> list[str]:
        key = tuple(sorted(wildcards.items()))
        if key not in self._known:
            self._known[key] = self.fingerprint(wildcards).strings()
        return self._known[key]

    def _string(self, index: int, wildcards: Wildcards) -> str:
        strings = self._strings(dict(wildcards.items()))
        return strings[min(index, len(strings) - 1)]  # a set for Snakemake: repeats do not count

    def _input(self, sources: str | Sequence[str], wildcards: Wildcards) -> list[str]:
        found = []
        for source in [sources] if isinstance(sources, str) else sources:
            parsed = _SOURCE.fullmatch(source)
            bound = self.workflow.by_stage.get(parsed["stage"]) if parsed else None
            if not parsed or not bound or parsed["role"] not in bound.rule.outputs:
                raise UserError(f"{self.rule.stage}: reads {source}, which no rule makes")
            chosen = dict(pair.split("=") for pair in filter(None, [parsed["chosen"]]))
            found += bound.instances_like(parsed["role"], {**dict(wildcards.items()), **chosen})
        return found

    def instances_like(self, role: str, wildcards: Wildcards) -> list[str]:
        """The paths of an output in all jobs that agree with some wildcards."""
        scale = wildcards["scale"]
        names = tuple(name for name in self._wildcards if name in wildcards)
        values = tuple(wildcards[name] for name in names)
        path = self.outputs[role]
        alike = self._alike(scale, names).get(values, [])
        return [fill(path, {**instance, "scale": scale}) for instance in alike]

    def _alike(self, scale: str, names: tuple[str, ...]) -> dict[tuple, list[dict[str, str]]]:
        """A scale's jobs by the values of some of their wildcards, so that no job looks at all."""
        if (scale, names) not in self._groups:
            groups = self._groups.setdefault((scale, names), {})
            settings = self.workflow.config.settings(self.paper, scale)
            for instance in self.rule.instances(settings):
                groups.setdefault(tuple(instance[name] for name in names), []).append(instance)
        return self._groups[scale, names]

    def every_output(self) -> Iterator[str]:
        """The paths of all outputs of all jobs, at every scale."""
        for instance in self._instances_at_all_scales:
            yield from (fill(path, instance) for path in self.outputs.values())

    @cached_property
    def _instances_at_all_scales(self) -> list[dict[str, str]]:
        config = self.workflow.config
        return [
            {**instance, "scale": scale}
            for scale in config.scales_of(self.paper)
            for instance in self.rule.instances(config.settings(self.paper, scale))
        ]

    @cached_property
    def _wildcards(self) -> list[str]:
        first = next(iter(self._instances_at_all_scales), {})
        return [name for name in first if name != "scale"]


def _paths(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(map(str, value))
