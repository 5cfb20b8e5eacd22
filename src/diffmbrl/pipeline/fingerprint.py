"""Which code a stage's result depends on, as one hash per module.

A module's hash is over its parsed source, so comments, docstrings and formatting do not count.
A stage's closure is every project module that importing it can reach, wherever in the source
the import stands, and the package's data files that those modules name. Registry entries are
imported by name at run time: the closure of a job includes those of the entries that it uses.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from diffmbrl import registry
from diffmbrl.config import lookup
from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline.files import Remembered
from diffmbrl.pipeline.proof import Fingerprint

_LENGTH = 12  # hex digits of a hash in a fingerprint


def of_job(stage: str, settings: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint that a job has today.

    Args:
        stage: the stage's module within the package, such as `implicit.train`.
        settings: the configuration's values that it is given.

    Raises:
        UserError: there is no such module, or one does not parse.
    """
    code = _code(stage)
    entries = {
        entry: {k: v for k, v in _code(entry, True).items() if k not in code}
        for entry in entries_of(stage, settings)
    }
    return Fingerprint(code, _lock(LAYOUT.lock.absolute()), settings, entries)


def entries_of(stage: str, settings: Mapping[str, Any]) -> list[str]:
    """The registry entries that a job uses, such as `implicit.domains.chain`.

    A stage says `USES = {"domain": "implicit.domains"}` where its setting `domain` names an entry
    (dotted where it is nested, and it may be a list), and `{"=chain": "implicit.domains"}` where
    it always uses that one.

    Raises:
        UserError: there is no such entry.
    """
    _closure(stage)
    uses = _parse(_full(stage))["uses"].items()
    entries = {f"{folder}.{name}" for key, folder in uses for name in _named(key, settings)}
    for entry in entries:
        registry.check(entry)
    return sorted(entries)


def closure(*modules: str) -> set[str]:
    """The project modules that importing some modules can reach."""
    return set().union(*map(_closure, modules))


def _named(key: str, settings: Mapping[str, Any]) -> list[str]:
    if key.startswith("="):
        return [key[1:]]
    value = lookup(settings, key)
    return [value] if isinstance(value, str) else list(value)


@cache
def _closure(module: str) -> frozenset[str]:
    name = _full(module)
    if path_of(name) is None:
        raise UserError(f"{name}: no such stage (no module {name} under {LAYOUT.root})")
    return frozenset(_reach([name, *(_full(m) for m in LAYOUT.always)]))


def needs_setup(*modules: str) -> bool:
    """Whether a stage computes on a device, which then has to be set up."""
    return _full(LAYOUT.setup) in closure(*modules)


def is_machinery(module: str) -> bool:
    """Whether a module carries bytes and makes none."""
    return any(module == m or module.startswith(f"{m}.") for m in map(_full, LAYOUT.machinery))


def forget() -> None:
    """Makes the next fingerprint look at the files again."""
    for function in (_parse, _closure, _code, _lock, path_of):
        function.cache_clear()


def save() -> None:
    """Keeps parsed modules for the next process."""
    _remembered().save()


def _full(module: str) -> str:
    return f"{LAYOUT.package}.{module}"


@cache
def _code(module: str, is_entry: bool = False) -> dict[str, str]:
    """The hashes of a closure; of a registry entry's own module, without its facts."""
    found = {}
    for name in _closure(module):
        parsed, path = _parse(name), path_of(name)
        assert path is not None
        own = is_entry and name == _full(module)
        found[name] = parsed["hash without facts" if own else "hash"]
        for text in parsed["strings"]:
            for data in (path.parent / text, LAYOUT.root / text):
                if data.is_relative_to(LAYOUT.root) and ".." not in data.parts and data.is_file():
                    digest = hashlib.sha256(data.read_bytes()).hexdigest()[:_LENGTH]
                    found[data.relative_to(LAYOUT.root).as_posix()] = digest
    return found


def _reach(start: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    queue = [name for name in start if path_of(name)]
    while queue:
        module = queue.pop()
        if module in seen or is_machinery(module):
            continue
        seen.add(module)
        parsed = _parse(module)
        parents = module.split(".")
        queue += [".".join(parents[:i]) for i in range(1, len(parents))]
        queue += [name for name in parsed["imports"] if path_of(name)]
        if parsed["numeric"] and path_of(_full(LAYOUT.setup)):
            queue.append(_full(LAYOUT.setup))
    return seen


@cache
def path_of(module: str) -> Path | None:
    """The source file of a project module, None where there is no such module."""
    base = LAYOUT.root.joinpath(*module.split(".")[1:])
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if module.partition(".")[0] == LAYOUT.package and path.is_file():
            return path
    return None


@cache
def _lock(path: Path) -> str:
    """Hash of the locked requirements; comments do not count."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{LAYOUT.lock}: not found; run from the project's folder") from None
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:_LENGTH]


@cache
def _remembered() -> Remembered:
    return Remembered("modules", _read)


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
    whole = _hash(tree)
    tree.body = [statement for statement in tree.body if not _is_fact(statement)]
    return {
        "hash": whole,
        "hash without facts": _hash(tree),
        "uses": _uses(tree),
        "imports": sorted(imports),
        "strings": sorted(strings),
        "numeric": any(n.partition(".")[0] in LAYOUT.numeric for n, level in imports if not level),
    }


def _hash(tree: ast.Module) -> str:
    return hashlib.sha256(",".join(_canonical(tree)).encode()).hexdigest()[:_LENGTH]


def _is_fact(statement: ast.stmt) -> bool:
    """Whether a statement sets a fact of a registry entry, which travels as a setting."""
    return (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in LAYOUT.facts
    )


def _uses(tree: ast.Module) -> dict[str, str]:
    """The registries of which a stage's settings name entries."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="USES")], value=ast.Dict() as value):
                return ast.literal_eval(value)
    return {}


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
