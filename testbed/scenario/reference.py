"""The tables of docs/scenario.md, made from the schema: every key, what may stand there, default.

``python -m testbed.scenario.reference docs/scenario.md`` brings the page up to date.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from testbed.scenario.schema import Drawn, In, Places, Scenario, Shorthand

BEGIN: Final = "<!-- made from the schema by testbed.scenario.reference: begin -->"
END: Final = "<!-- end -->"

_ONCE_PER: Final = {
    "task": "may be [drawn](#values) per task",
    "node": "may be [drawn](#values) per node, or a list with one value per node",
    "link": "may be [drawn](#values) per link, or a matrix",
    "fault": "may be [drawn](#values) per occurrence",
    "gap": "may be [drawn](#values) per occurrence, also as `{exponential: 5s}`",
}


def keys(part: type[BaseModel] = Scenario, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Return every key that may stand in a file, dotted, in the order of the schema."""
    for name, field in part.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field
        for below in _parts(field.annotation):
            inside = "[]." if typing.get_origin(field.annotation) is list else "."
            yield from keys(below, f"{key}{inside}")


def tables() -> str:
    """Return the tables as Markdown, one per top-level key that is a mapping."""
    simple, sections = [], []
    for name, field in Scenario.model_fields.items():
        key = field.alias or name
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
        inside = "[]." if typing.get_origin(field.annotation) is list else "."
        rows = _rows(keys(parts[0], f"{key}{inside}"))
        sections.append(f"### {key}\n\n{intro}\n\n{rows}")
    return "\n\n".join([f"### Top level\n\n{_rows(iter(simple))}", *sections])


def updated(page: str) -> str:
    """``page`` with its tables as the schema has them now.

    Raises: ValueError if the page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no '{BEGIN}' with '{END}' after it")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


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
    for mark in (*field.metadata, *_marks(field.annotation)):
        if isinstance(mark, In):
            return mark.quantity.allowed
        if isinstance(mark, Places):
            return mark.allowed
        if isinstance(mark, Drawn):
            return f"{mark.quantity.allowed}; {_ONCE_PER[mark.once_per]}"
    annotation = field.annotation
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


def _marks(annotation: Any) -> Iterator[object]:
    yield from getattr(annotation, "__metadata__", ())
    for argument in typing.get_args(annotation):
        yield from _marks(argument)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text("utf-8")), "utf-8")
