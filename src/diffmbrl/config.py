"""Configuration: files under config/, checked against the papers' types, resolved by scale.

A paper's settings at a scale are config/<paper>.yaml, overlaid by its part of
config/scales/<scale>.yaml and by what the command line gives. At scale `smoke` the registries'
entries give their own values first.
"""

import copy
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from diffmbrl import registry
from diffmbrl.errors import ConfigError
from diffmbrl.layout import LAYOUT
from diffmbrl.settings import Group, Several, problems

TOP_LEVEL = "config"
SMOKE = "smoke"


class TopLevel(Group):
    """What is run, and on what."""

    scale: Annotated[
        str,
        Field(
            description="How much is run, a file of config/scales/. Paths carry the scale, so "
            "scales never overwrite each other."
        ),
    ]
    papers: Annotated[Several[str], Field(description="The papers that target `all` rebuilds.")]
    judged: Annotated[
        Several[str],
        Field(
            description="The scales whose results decide a claim's verdict, widest first; "
            "others count only where asked for."
        ),
    ]
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        Field(description="Where training runs; auto takes a GPU where JAX sees one."),
    ]
    environment: Annotated[
        Literal["locked", "any"],
        Field(
            description="locked refuses to run with packages that are not those of "
            "requirements.txt; any runs with them, and results say so."
        ),
    ]


@dataclass(frozen=True)
class Config:
    """The checked configuration.

    Attributes:
        scale, papers, judged, device, environment: the top-level keys.
        scales: by scale and paper, the paper's settings as plain data. A scale has the papers that
            its file names.
    """

    scale: str
    papers: list[str]
    judged: list[str]
    device: str
    environment: str
    scales: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @property
    def known_papers(self) -> list[str]:
        """Every paper of the project."""
        return papers()

    def settings(self, paper: str, scale: str) -> Mapping[str, Any]:
        """A paper's settings at a scale.

        Raises:
            ConfigError: the scale's file does not name the paper.
        """
        if paper not in self.scales[scale]:
            raise ConfigError(self.without(paper, scale))
        return self.scales[scale][paper]

    def without(self, paper: str, scale: str) -> str:
        """What is said of a paper that a scale does not have."""
        return (
            f"scale {scale} has no {paper}: {LAYOUT.config}/scales/{scale}.yaml does not name it; "
            f"scales that do: {', '.join(self.scales_of(paper)) or 'none'}"
        )

    def scales_of(self, paper: str) -> list[str]:
        """The scales that a paper is run at."""
        return [scale for scale, found in self.scales.items() if paper in found]

    def home_of(self, paper: str, scale: str) -> str:
        """The scale whose files hold a paper's results: equal settings share one set of results."""
        settings = self.settings(paper, scale)
        return next(s for s in self.scales_of(paper) if self.scales[s][paper] == settings)


@cache
def papers() -> list[str]:
    """The papers: packages of the project with a module `rules`."""
    return sorted(path.parent.name for path in LAYOUT.root.glob("*/rules.py"))


def settings_type(paper: str) -> type[BaseModel]:
    """The type of a paper's settings."""
    return _module(paper).Settings


def load(root: Path | str = ".", overrides: Mapping[str, Any] | None = None) -> Config:
    """The checked configuration, every scale resolved.

    Args:
        root: the project's folder.
        overrides: values from the command line: top-level keys, or a paper's name with a
            mapping of its keys.

    Raises:
        ConfigError: a key or value that is refused, or a file that is not YAML.
    """
    root, overrides = Path(root), dict(overrides or {})
    theirs = {name: _typed(overrides.pop(name)) for name in papers() if name in overrides}
    for name, value in theirs.items():
        if not isinstance(value, Mapping):
            raise ConfigError(f"--config {name}={value!r}: must be a mapping of {name}'s keys")
    file = f"{LAYOUT.config}/{TOP_LEVEL}.yaml"
    top = _check(TopLevel, {**_read(root / file), **overrides}, file)
    for index, name in enumerate(top["papers"]):
        if name not in papers():
            raise ConfigError(
                f"{file}: papers.{index} = {json.dumps(name)}: unknown; use one of "
                f"{', '.join(papers())}"
            )
    known = scales(root)
    check_scale(top["scale"], known, f"{file}: scale = {json.dumps(top['scale'])}")
    for index, name in enumerate(top["judged"]):
        check_scale(name, known, f"{file}: judged.{index} = {json.dumps(name)}")
    resolved = {scale: _resolve(root, scale, theirs) for scale in known}
    if not set(top["papers"]) & set(resolved[top["scale"]]):
        raise ConfigError(
            f"{file}: papers = {json.dumps(top['papers'])}: scale {top['scale']} has none of them; "
            f"{LAYOUT.config}/scales/{top['scale']}.yaml names "
            f"{', '.join(resolved[top['scale']]) or 'no paper'}"
        )
    return Config(**top, scales=resolved)


def _resolve(root: Path, scale: str, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of the papers that a scale's file names."""
    layers = _read(root / f"{LAYOUT.config}/scales/{scale}.yaml")
    for name in layers:
        if name not in papers():
            raise ConfigError(
                f"{LAYOUT.config}/scales/{scale}.yaml: {name}: unknown paper; use one of "
                f"{', '.join(papers())}"
            )
    settings = {}
    for paper in (name for name in papers() if name in layers):
        file = f"{LAYOUT.config}/{paper}.yaml"
        values = _read(root / file)
        for key, folder in _registries(paper).items():
            values = _with_entries(values, key, folder, scale)
        for layer in (layers.get(paper) or {}, overrides.get(paper, {})):
            values = _merge(values, layer)
        where = f"{file} (scale {scale})"
        for key, folder in _registries(paper).items():
            _check_entries(values, key, folder, where)
        settings[paper] = _check(settings_type(paper), values, where)
    return settings


def scales(root: Path | str = ".") -> list[str]:
    """The scales: the files of config/scales/, in the order in which results are looked for."""
    found = {path.stem for path in (Path(root) / LAYOUT.config / "scales").glob("*.yaml")}
    ours = [name for name in ("laptop", "paper", SMOKE) if name in found]
    return ours + sorted(found.difference(ours))


def check_scale(scale: str, known: list[str], where: str) -> None:
    """Refuses a scale that has no file; `where` is what the error says it was given as."""
    if scale not in known:
        raise ConfigError(
            f"{where}: unknown; use one of {', '.join(known) or 'none'} "
            f"(the files of {LAYOUT.config}/scales/)"
        )


def lookup(settings: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, such as `domains.chain.steps`."""
    value: Any = settings
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            names = ", ".join(map(str, value)) if isinstance(value, Mapping) else "any"
            raise ConfigError(f"{key}: no such key ({part} is not among {names})")
        value = value[part]
    return value


def _module(paper: str) -> Any:
    return importlib.import_module(f"{LAYOUT.package}.{paper}.config")


def _registries(paper: str) -> Mapping[str, str]:
    """By key of a paper's settings, the registry whose entries' names are the keys below it."""
    return getattr(_module(paper), "REGISTRIES", {})


def _with_entries(values: Mapping, key: str, folder: str, scale: str) -> dict[str, Any]:
    """Settings overlaid, at scale smoke, by the smoke values of the entries that are configured."""
    configured = _at(values, key)
    if scale != SMOKE or not isinstance(configured, Mapping):
        return dict(values)
    own: dict[str, Any] = {
        name: smoke
        for name in configured
        if name in registry.names(folder) and (smoke := registry.fact(folder, name, "SMOKE"))
    }
    for part in reversed(key.split(".")):
        own = {part: own}
    return _merge(values, own)


def _at(values: Mapping, key: str) -> Any:
    """The value at a dotted key, None where it is not there."""
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, Mapping) else {}
    return values or None


def _check_entries(values: Mapping, key: str, folder: str, where: str) -> None:
    """Refuses names that are no entries of a registry, wherever they stand as keys."""
    known = registry.names(folder)
    for name in _at(values, key) or {}:
        if name not in known:
            raise ConfigError(
                f"{where}: {key}: unknown key {name!r}; known: {', '.join(known)} "
                f"(the modules of {registry.path_of(folder)})"
            )


def _typed(value: Any) -> Any:
    """Values of a nested override with their YAML types: Snakemake hands all of them as strings."""
    if isinstance(value, Mapping):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; run from the project's folder") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys to values")
    return value


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Values overlaid by others: mappings key by key, null takes a key away."""
    merged = dict(base)
    for key, value in layer.items():
        if value is None:
            merged.pop(key, None)
            continue
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _check(group: type[BaseModel], values: Mapping[str, Any], file: str) -> dict[str, Any]:
    try:
        return group.model_validate(dict(values)).model_dump()
    except ValidationError as error:
        raise ConfigError("\n".join(f"{file}: {line}" for line in problems(error, group))) from None
