"""Types of settings: each key typed, bounded and described once, in its paper's module `config`.

Values stand in config/*.yaml and nowhere else; a type has no default.
"""

import json
from collections.abc import Hashable, Iterator, Mapping
from typing import Annotated, Any, NoReturn, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

T = TypeVar("T")


class Group(BaseModel):
    """A group of settings: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _distinct(values: list) -> list:
    keys = [_key(value) for value in values]
    if len(set(keys)) < len(keys):
        raise PydanticCustomError("distinct", "must not repeat a value")
    return values


def _key(value: Any) -> Hashable:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return value if isinstance(value, Hashable) else json.dumps(value)


Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Discount = Annotated[float, Field(ge=0, lt=1)]
Distinct = Annotated[list[T], AfterValidator(_distinct)]
Several = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]


def refuse(message: str) -> NoReturn:
    """Refuses values that do not go together; the message names keys, values and what is right."""
    raise PydanticCustomError("together", "{message}", {"message": message})


def multiple(group: BaseModel, key: str, of: str, within: str = "") -> None:
    """Refuses a count that is not a multiple of another."""
    value, unit = getattr(group, key), getattr(group, of)
    if value % unit:
        refuse(f"{within}{key} = {value}: must be a multiple of {of} = {unit}")


def describe(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a group, groups within it included, with what it means."""
    for name, field in settings.model_fields.items():
        yield f"{prefix}{name}", field.description or ""
        for inner, part in _groups(field.annotation):
            yield from describe(inner, f"{prefix}{name}.{part}")


def _groups(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The groups within a type, with what stands between: `<name>.` for a mapping's keys."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
        return
    part = "<name>." if getattr(annotation, "__origin__", None) is dict else ""
    for inner in get_args(annotation):
        for group, rest in _groups(inner):
            yield group, part + rest


def problems(error: ValidationError, group: type[BaseModel]) -> list[str]:
    """What a validation found, one line each: the key, its value, and what is right."""
    return [_explain(detail, group) for detail in error.errors(include_url=False)]


def _explain(detail: ErrorDetails, group: type[BaseModel]) -> str:
    where, context = detail["loc"], detail.get("ctx", {})
    key, kind = ".".join(map(str, where)), detail["type"]
    if kind == "together":
        return detail["msg"]
    if kind == "extra_forbidden":
        above = ".".join(map(str, where[:-1])) or "top level"
        known = sorted(_fields(group, where[:-1]))
        return f"{above}: unknown key {where[-1]!r}; known: {', '.join(known)}"
    if kind == "missing":
        return f"{key}: is missing; it has no default"
    value = json.dumps(detail["input"], default=str)
    return f"{key} = {value}: {_right(kind, context, detail['msg'])}"


def _right(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What a value must be."""
    words = {"int": "integer", "float": "number", "string": "string", "bool": "boolean",
             "list": "array", "dict": "object", "model": "object", "tuple": "array"}  # fmt: skip
    match kind:
        case "greater_than":
            return f"must be above {context['gt']:g}"
        case "less_than":
            return f"must be below {context['lt']:g}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}"
        case "multiple_of":
            return f"must be a multiple of {context['multiple_of']:g}"
        case "too_short":
            return f"must have at least {context['min_length']} item" + (
                "s" if context["min_length"] > 1 else ""
            )
        case "too_long":
            return f"must have at most {context['max_length']} items"
        case "literal_error":
            known = context["expected"].replace("'", "").replace(" or ", ", ")
            return f"unknown; use one of {known}"
        case _ if kind.endswith("_type") and kind.split("_")[0] in words:
            return f"must be of type {words[kind.split('_')[0]]}"
    return message


def _fields(group: Any, where: tuple) -> list[str]:
    """The names of the fields that a group has at a place within it."""
    groups = [group]
    for part in where:
        found = []
        for one in groups:
            field = one.model_fields.get(part)
            found += [g for g, _ in _groups(field.annotation)] if field else [one]
        groups = found
    return [name for one in groups for name in one.model_fields]
