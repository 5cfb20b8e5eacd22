"""Fingerprints: which code a stage's result depends on, as one hash a module.

A module's hash is over its parsed source, so comments, docstrings and formatting do not count.
A stage's closure is every project module that importing it can reach, wherever in the source
the import stands, and the package's data files that those modules name.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from diffmbrl.errors import UserError
from diffmbrl.pipeline.files import Remembered

PACKAGE = __name__.partition(".")[0]
ROOT = Path(importlib.util.find_spec(PACKAGE).origin).parent  # type: ignore[union-attr,arg-type]
LOCK = Path("requirements.txt")
MACHINERY = f"{PACKAGE}.pipeline"  # carries bytes and makes none: its edits rerun nothing
NUMERICS = f"{PACKAGE}.sweep.device"  # what the wrapper sets up for stages that use JAX
JAX = {"jax", "equinox", "optax", "lineax", "optimistix", "diffrax"}
_LENGTH = 12  # hex digits of a hash in a fingerprint


def of_stage(stage: str) -> list[str]:
    """A stage's code and lock, `name@hash` each, sorted.

    Args:
        stage: the stage's module within the package, such as `implicit.train`.

    Raises:
        UserError: there is no such module, or one does not parse.
    """
    return sorted([*_code(stage), f"{LOCK}@{_lock()}"])


def closure(stage: str) -> set[str]:
    """The project modules that a stage's import can reach."""
    name = f"{PACKAGE}.{stage}"
    if path_of(name) is None:
        raise UserError(f"{name}: no such stage (no module {name} under {ROOT})")
    return _reach(name)


def uses_jax(stage: str) -> bool:
    """Whether a stage needs the device and the numerics of JAX."""
    return NUMERICS in closure(stage)


def forget() -> None:
    """Makes the next fingerprint look at the files again."""
    for function in (_parse, _code, _lock, path_of):
        function.cache_clear()


def save() -> None:
    """Keeps parsed modules for the next process."""
    _remembered().save()


@cache
def _code(stage: str) -> tuple[str, ...]:
    found = {}
    for module in closure(stage):
        parsed = _parse(module)
        found[module] = parsed["hash"]
        folder = path_of(module).parent  # type: ignore[union-attr]
        for name in parsed["strings"]:
            for path in (folder / name, ROOT / name):
                if path.is_relative_to(ROOT) and ".." not in path.parts and path.is_file():
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:_LENGTH]
                    found[path.relative_to(ROOT).as_posix()] = digest
    return tuple(f"{name}@{digest}" for name, digest in found.items())


def _reach(start: str) -> set[str]:
    seen, queue = set(), [start]
    while queue:
        module = queue.pop()
        if module in seen or module == MACHINERY or module.startswith(f"{MACHINERY}."):
            continue
        seen.add(module)
        parsed = _parse(module)
        parents = module.split(".")
        queue += [".".join(parents[:i]) for i in range(1, len(parents))]
        queue += [name for name in parsed["imports"] if path_of(name)]
        if parsed["jax"] and path_of(NUMERICS):
            queue.append(NUMERICS)
    return seen


@cache
def path_of(module: str) -> Path | None:
    """The source file of a project module, None where there is no such module."""
    base = ROOT.joinpath(*module.split(".")[1:])
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if module.partition(".")[0] == PACKAGE and path.is_file():
            return path
    return None


@cache
def _lock() -> str:
    """Hash of the locked requirements; comments do not count."""
    try:
        lines = LOCK.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{LOCK}: not found; run from the project's folder") from None
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:_LENGTH]


@cache
def _remembered() -> Remembered:
    return Remembered("modules.json", _read)


@cache
def _parse(module: str) -> dict[str, Any]:
    path = path_of(module)
    assert path is not None
    parsed = dict(_remembered()(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    parsed["imports"] = [_absolute(name, level, package) for name, level in parsed["imports"]]
    return parsed


def _absolute(name: str, level: int, package: str) -> str:
    if level == 0:
        return name
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [name])])


def _read(path: Path) -> dict[str, Any]:
    """What a source file's fingerprint needs: hash, imports, and strings that may name data."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: does not parse: {error.msg}") from None
    imports, strings = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            imports.append((base, node.level))
            imports += [(f"{base}.{a.name}".strip("."), node.level) for a in node.names]
        elif isinstance(node, ast.Constant) and _may_name_data(node.value):
            strings.add(node.value)
    text = ",".join(_canonical(tree))
    return {
        "hash": hashlib.sha256(text.encode()).hexdigest()[:_LENGTH],
        "imports": sorted(imports),
        "strings": sorted(strings),
        "jax": any(name.partition(".")[0] in JAX for name, level in imports if not level),
    }


def _may_name_data(value: Any) -> bool:
    """Whether a constant could be the name of a data file: a dot inside, and short."""
    if not isinstance(value, str) or not 2 < len(value) < 100:
        return False
    return "." in value[:-1] and "\n" not in value and not value.endswith(".py")


def _canonical(node: Any) -> Iterator[str]:
    """A syntax tree as text, the same under every Python version that parses it alike."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for field, value in ast.iter_fields(node):
            if field == "body" and _documented(node, value):
                value = value[1:]
            empty = value is None and not isinstance(node, ast.Constant)
            if empty or value == []:
                continue
            if field not in ("ctx", "kind", "type_comment", "type_ignores"):
                yield field
                yield from _canonical(value)
        yield "."
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _canonical(item)
        yield "]"
    else:
        yield f"{type(node).__name__} {node!r}"


def _documented(node: ast.AST, body: Sequence[ast.stmt]) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, kinds) or not body or not isinstance(body[0], ast.Expr):
        return False
    value = body[0].value
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
