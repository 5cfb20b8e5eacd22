"""Registries: a folder of modules, one per entry, found rather than listed.

The entries of `implicit.domains` are the modules of src/diffmbrl/implicit/domains/. An entry's
module holds what the entry is, and its facts: module-level constants such as `LABEL = "Chain"`,
which are read without importing the module, so that a workflow can be planned without JAX. Facts
reach a stage as settings; `SMOKE` holds the entry's settings at scale smoke.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from diffmbrl.errors import ConfigError, UserError
from diffmbrl.layout import LAYOUT

NEEDED = ("LABEL", "ORDER")


def path_of(folder: str) -> Path:
    """Where a registry's modules are."""
    return LAYOUT.root.joinpath(*folder.split("."))


def names(folder: str) -> list[str]:
    """The entries of a registry such as `implicit.domains`, in their ORDER.

    Raises:
        UserError: there is no such folder, or an entry lacks LABEL or ORDER.
    """
    return list(_entries(folder))


def load(folder: str, name: str) -> ModuleType:
    """The module of an entry, imported.

    Raises:
        ConfigError: there is no such entry.
    """
    check(f"{folder}.{name}")
    return importlib.import_module(f"{LAYOUT.package}.{folder}.{name}")


def check(entry: str) -> None:
    """Refuses an entry that is not there, such as `implicit.domains.maze`."""
    folder, _, name = entry.rpartition(".")
    if name not in names(folder):
        raise ConfigError(
            f"{folder}: has no entry {name!r}; it has {', '.join(names(folder))} (the modules "
            f"of {path_of(folder)})"
        )


def facts(folder: str) -> dict[str, dict[str, Any]]:
    """What figures and rules need to know of each entry, in its order: LABEL, COLOR and such."""
    return {
        name: {key: value for key, value in found.items() if key != "SMOKE"}
        for name, found in _entries(folder).items()
    }


def fact(folder: str, name: str, key: str) -> Any:
    """One fact of an entry, None where it states none."""
    return _entries(folder)[name].get(key)


@cache
def _entries(folder: str) -> dict[str, dict[str, Any]]:
    paths = [path for path in path_of(folder).glob("*.py") if path.stem != "__init__"]
    found = {path.stem: _read(path) for path in paths}
    if not found:
        raise UserError(f"{folder}: no such registry (no modules in {path_of(folder)})")
    return dict(sorted(found.items(), key=lambda entry: (entry[1]["ORDER"], entry[0])))


def _read(path: Path) -> dict[str, Any]:
    """The facts of an entry's module."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: does not parse: {error.msg}") from None
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in LAYOUT.facts:
                try:
                    found[name] = ast.literal_eval(node.value)
                except ValueError:
                    raise UserError(
                        f"{path}:{node.lineno}: {name} must be a literal, since it is read "
                        "without importing the module"
                    ) from None
    for name in NEEDED:
        if name not in found:
            raise UserError(f"{path}: {name} is missing; every entry of a registry needs it")
    return found
