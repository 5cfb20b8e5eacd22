"""Configuration: files under config/, checked against workflow/schemas/, resolved by scale.

A paper's settings at a scale are its schema's defaults, overlaid by config/<paper>.yaml,
by its part of config/scales/<scale>.yaml, and by what the command line gives.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from diffmbrl.errors import ConfigError

PAPERS = ("implicit", "omd", "rpg")
TOP_LEVEL = "config"


def load(root: Path | str = ".", overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The checked configuration, every scale resolved.

    Args:
        root: the project's folder.
        overrides: values from the command line: top-level keys, or a paper's name with a
            mapping of its keys.

    Returns:
        The top-level keys, and under `scales` for each scale and paper its settings.

    Raises:
        ConfigError: a key or value that the schema refuses, or a file that is not YAML.
    """
    root, overrides = Path(root), dict(overrides or {})
    papers = {name: _typed(overrides.pop(name)) for name in PAPERS if name in overrides}
    for name, value in papers.items():
        if not isinstance(value, Mapping):
            raise ConfigError(f"--config {name}={value!r}: must be a mapping of {name}'s keys")
    schemas = {name: _schema(root, name) for name in (TOP_LEVEL, *PAPERS)}
    file = f"config/{TOP_LEVEL}.yaml"
    top = _merge(_defaults(schemas[TOP_LEVEL]), _read(root / file))
    top = _merge(top, overrides)
    _check(schemas[TOP_LEVEL], top, file)
    known = scales(root)
    check_scale(top["scale"], known, f"{file}: scale = {json.dumps(top['scale'])}")
    top["scales"] = {scale: {} for scale in known}
    for scale in known:
        layers = _read(root / f"config/scales/{scale}.yaml")
        for name in layers:
            if name not in PAPERS:
                raise ConfigError(
                    f"config/scales/{scale}.yaml: {name}: unknown paper; use {', '.join(PAPERS)}"
                )
        for paper in PAPERS:
            settings = _defaults(schemas[paper])
            for layer in (_read(root / f"config/{paper}.yaml"), layers.get(paper) or {}):
                settings = _merge(settings, layer)
            settings = _merge(settings, papers.get(paper, {}))
            _check(schemas[paper], settings, f"config/{paper}.yaml (scale {scale})")
            top["scales"][scale][paper] = settings
    return top


def scales(root: Path | str = ".") -> list[str]:
    """The scales: the files of config/scales/, in the order in which results are looked for."""
    found = {path.stem for path in (Path(root) / "config/scales").glob("*.yaml")}
    ours = [name for name in ("laptop", "paper", "smoke") if name in found]
    return ours + sorted(found.difference(ours))


def check_scale(scale: str, known: list[str], where: str) -> None:
    """Refuses a scale that has no file; `where` is what the error says it was given as."""
    if scale not in known:
        raise ConfigError(
            f"{where}: unknown; use one of {', '.join(known) or 'none'} "
            "(the files of config/scales/)"
        )


def canonical_scale(config: Mapping[str, Any], scale: str, paper: str) -> str:
    """The scale whose files hold a paper's results: equal settings share one set of results."""
    for other in config["scales"]:
        if config["scales"][other][paper] == config["scales"][scale][paper]:
            return other
    raise KeyError(scale)


def lookup(settings: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, such as `learning_rates.chain.explicit`."""
    value: Any = settings
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{key}: no such key ({part} is not among {_names(value)})")
        value = value[part]
    return value


def _typed(value: Any) -> Any:
    """Values of a nested override with their YAML types: Snakemake hands all of them as strings."""
    if isinstance(value, Mapping):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


def _names(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Mapping) else "any"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; run from the project's folder") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys to values")
    return value


def _schema(root: Path, name: str) -> dict[str, Any]:
    return _read(root / f"workflow/schemas/{name}.schema.yaml")


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            values[key] = copy.deepcopy(part["default"])
        elif part.get("type") == "object":
            values[key] = _defaults(part)
    return values


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _check(schema: Mapping[str, Any], values: Mapping[str, Any], file: str) -> None:
    errors = sorted(Draft202012Validator(schema).iter_errors(values), key=lambda e: list(e.path))
    if errors:
        raise ConfigError("\n".join(f"{file}: {_explain(error)}" for error in errors))


def _explain(error) -> str:
    key = ".".join(map(str, error.path))
    at = f"{key} = {json.dumps(error.instance)}: " if key else ""
    rule, limit = error.validator, error.validator_value
    match rule:
        case "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            unknown = sorted(set(error.instance) - set(known))
            return f"{key or 'top level'}: unknown key {unknown[0]!r}; known: {', '.join(known)}"
        case "exclusiveMaximum":
            return f"{at}must be below {limit}"
        case "exclusiveMinimum":
            return f"{at}must be above {limit}"
        case "minimum" | "maximum":
            return f"{at}must be at {'least' if rule == 'minimum' else 'most'} {limit}"
        case "minItems":
            return f"{at}must have at least {limit} item{'s' if limit > 1 else ''}"
        case "contains":
            return f"{at}must hold {json.dumps(limit.get('const', limit))}"
        case "uniqueItems":
            return f"{at}must not repeat a value"
        case "enum":
            return f"{at}unknown; use one of {', '.join(map(str, limit))}"
        case "type":
            return f"{at}must be of type {limit}"
        case _:
            return f"{at}{error.message}"
