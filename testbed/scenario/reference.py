"""The tables of keys in the docs, made from the schemas: each key, what may stand there, default.

``python -m testbed.scenario.reference docs/scenario.md docs/serving-scenario.md`` brings the pages
up to date; each has a mark that names the model.
"""

from __future__ import annotations

import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from testbed.scenario.check import FAMILIES
from testbed.scenario.schema import Drawn, In, Places, Scenario, ScenarioFile, Shorthand

_TABLES: Final = re.compile(
    r"(<!-- made from the schema of (\w+) by testbed\.scenario\.reference: begin -->\n).*"
    r"(\n<!-- end -->)",
    re.DOTALL,
)

_ONCE_PER: Final = {
    "task": "may be [drawn](scenario.md#values) per task",
    "node": "may be [drawn](scenario.md#values) per node, or a list with one value per node",
    "link": "may be [drawn](scenario.md#values) per link, or a matrix",
    "fault": "may be [drawn](scenario.md#values) per occurrence",
    "gap": "may be [drawn](scenario.md#values) per occurrence, also as `{exponential: 5s}`",
}


def keys(part: type[BaseModel] = Scenario, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Return every key that may stand in a file, dotted, in the order of the schema."""
    for name, field in _fields(part):
        key = f"{prefix}{name}"
        yield key, field
        for below in _parts(field.annotation):
            yield from keys(below, f"{key}{_inside(field)}")


def _fields(part: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the keys of a mapping with their fields, in the order of a file."""
    found = {field.alias or name: field for name, field in part.model_fields.items()}
    order = part.layout if issubclass(part, ScenarioFile) else tuple(found)
    return [(key, found[key]) for key in order]


def _inside(field: FieldInfo) -> str:
    """Return what stands between a key and the keys in it."""
    annotation = field.annotation
    origins = {typing.get_origin(each) for each in (annotation, *typing.get_args(annotation))}
    return "[]." if list in origins else ".NAME." if dict in origins else "."


def tables(schema: type[ScenarioFile]) -> str:
    """Return the tables as Markdown, one per top-level key that is a mapping."""
    simple, sections = [], []
    for key, field in _fields(schema):
        parts = list(_parts(field.annotation))
        if not parts:
            simple.append((key, field))
            continue
        intro = " ".join((field.description or parts[0].__doc__ or "").split())
        if issubclass(parts[0], Shorthand):
            first = parts[0].stands_for[0]
            many = len(parts[0].stands_for) > 1
            stands = "all of them" if many else f"`{key}.{first}`"
            intro += f" A plain value stands for {stands}."
        rows = _rows(keys(parts[0], f"{key}{_inside(field)}"))
        sections.append(f"### {key}\n\n{intro}\n\n{rows}")
    return "\n\n".join([f"### Top level\n\n{_rows(iter(simple))}", *sections])


def updated(page: str) -> str:
    """``page`` with its tables as the schema has them now.

    Raises: ValueError if the page has no place for them.
    """
    place = _TABLES.search(page)
    if place is None:
        raise ValueError("no mark for the tables")
    begin, model, end = place.groups()
    text = f"{begin}\n{tables(FAMILIES.named(model).schema)}\n{end}"
    return page[: place.start()] + text + page[place.end() :]


def _rows(fields: Iterator[tuple[str, FieldInfo]]) -> str:
    lines = ["| key | what may stand there | default | meaning |", "|---|---|---|---|"]
    for key, field in fields:
        mapping = any(_parts(field.annotation)) and typing.get_origin(field.annotation) is not list
        if mapping and not field.default:
            continue  # Its keys follow, and say all.
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{key}` | {_allowed(field)} | {_default(field)} | {meaning} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if default is PydanticUndefined:
        return "needed" if field.is_required() else "none"
    if default is None:
        return "none"
    if isinstance(default, str):
        return f"`{default}`" if default else "empty"
    return f"`{json.dumps(default)}`"


def _allowed(field: FieldInfo) -> str:
    annotation = field.annotation
    if words := _words(annotation):
        return f"{' or '.join(f'`{each}`' for each in words)}, or a list for each node"
    for mark in (*field.metadata, *_marks(field.annotation)):
        if isinstance(mark, In):
            return mark.quantity.allowed
        if isinstance(mark, Places):
            return mark.allowed
        if isinstance(mark, Drawn):
            return f"{mark.quantity.allowed}; {_ONCE_PER[mark.once_per]}"
    if typing.get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if annotation is bool:
        return "`true` or `false`"
    origin = typing.get_origin(annotation)
    if any(_parts(annotation)):
        return "a list of mappings" if origin is list else "a mapping"
    if origin is list:
        return "a list of texts"
    return "a mapping" if origin is dict else "a text"


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _parts(argument)


def _words(annotation: Any) -> list[str]:
    """Return the words that may stand in place of other forms."""
    return [
        str(word)
        for form in typing.get_args(annotation)
        if typing.get_origin(form) is Literal
        for word in typing.get_args(form)
    ]


def _marks(annotation: Any) -> Iterator[object]:
    yield from getattr(annotation, "__metadata__", ())
    for argument in typing.get_args(annotation):
        yield from _marks(argument)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(updated(path.read_text("utf-8")), "utf-8")
