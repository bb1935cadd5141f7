"""YAML text to plain data, strictly: see ``testbed.scenario.strict``.

Also applies the CLI's ``--set key.path=value``. What the data means is the schema's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import yaml

from testbed.errors import Problem
from testbed.scenario import strict
from testbed.scenario.units import shown

LARGEST_FILE: Final = 4 * 1024 * 1024
_MOST_PROBLEMS: Final = 20

_ONE_OF: Final = (
    frozenset({"uniform", "choice"}),
    frozenset({"queueLength", "queueLengthPer4Cores", "backlog"}),
)
"""Keys of which a mapping holds one: setting another replaces it."""

_SHORTHANDS: Final = {
    "seeds": ("topology", "workload", "faults", "schedulers"),
    "scheduler": ("name",),
    "application": ("name",),
    "payload": ("mode",),
}
"""Top-level keys where a plain value stands for a mapping; see ``schema.Shorthand``."""


class DocumentError(Exception):
    """The text is not a document; carries what is wrong with it."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


def parse(raw: bytes, where: str) -> Any:
    """Return the data of the one YAML document in ``raw``; ``where`` names it in problems.

    Raises: DocumentError, with line and column.
    """
    if len(raw) > LARGEST_FILE:
        raise DocumentError(
            Problem(where, f"{len(raw)} bytes are too many", f"allowed: up to {LARGEST_FILE}")
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentError(
            Problem(f"{where}:{line}", "bytes that are not UTF-8", "allowed: UTF-8 text")
        ) from None
    return _data(text, where)


def value(text: str, where: str) -> Any:
    """Return the data of a value that was given on the command line, as strictly as a file.

    Raises: DocumentError, with line and column.
    """
    return _data(text, where)


def _data(text: str, where: str) -> Any:
    if (problem := strict.unreadable(text, where)) is not None:
        raise DocumentError(problem)
    try:
        loader = strict.Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        if found := strict.problems(root, where):
            raise DocumentError(*found[:_MOST_PROBLEMS])
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise DocumentError(_not_yaml(error, where)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(
            Problem(f"{where}:{line}", "a control character", "allowed: printable UTF-8 text")
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DocumentError(Problem(where, f"not valid YAML: {reason}", "")) from None
    _refuse_strange(data, where)
    return data


def _not_yaml(error: yaml.MarkedYAMLError, where: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    at = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
    seen = " ".join(str(part) for part in (error.problem, error.context) if part)
    if "'\\t'" in seen:
        return Problem(at, "not valid YAML: a tab", "allowed: blanks for indentation")
    if seen.startswith("nested"):
        return Problem(at, seen, "")
    return Problem(at, f"not valid YAML: {seen}", "")


def _refuse_strange(data: Any, where: str) -> None:
    waiting, seen = [data], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if not _is_unicode(value):
                raise DocumentError(
                    Problem(where, f"{shown(value)} is not Unicode text", "allowed: UTF-8 text")
                )
        elif isinstance(value, dict | list) and id(value) not in seen:
            # An alias is the same object again.
            seen.add(id(value))
            waiting.extend(value)
            if isinstance(value, dict):
                waiting.extend(value.values())


def _is_unicode(text: str) -> bool:
    # An escape such as "\ud800" makes half a character, which nothing can store or print.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def override(data: Any, settings: Sequence[str]) -> list[Problem]:
    """Apply ``key.path=value`` settings to ``data`` in place; values are YAML.

    Lists are entered by index (``nodes.cores.0=8``). Setting ``seeds.topology`` where the file has
    one seed keeps that seed for the other purposes.
    """
    problems = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            seen = f"{shown(setting)} has no key" if equals else f"{shown(setting)} has no '='"
            problems.append(Problem("--set", seen, "allowed: key.path=value, nodes.count=20"))
            continue
        try:
            value = _data(text, f"--set {path}")
            _assign(data, keys, value)
        except DocumentError as error:
            problems.extend(error.problems)
    return problems


def _assign(data: Any, keys: list[str], value: Any) -> None:
    place: Any = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        here = ".".join(keys[:depth])
        if isinstance(place, list):
            if not key.isascii() or not key.isdecimal() or int(key) >= len(place):
                raise DocumentError(
                    Problem(
                        f"--set {'.'.join(keys)}",
                        f"'{key}' is not an index into {here}",
                        f"allowed: 0 to {len(place) - 1}" if place else "the list is empty",
                    )
                )
            if last:
                place[int(key)] = value
            else:
                place = place[int(key)]
            continue
        if not isinstance(place, dict):
            raise DocumentError(
                Problem(
                    f"--set {'.'.join(keys)}",
                    f"{here} is {shown(place)}, which has no keys",
                    f"allowed: {here}=value",
                )
            )
        for alternatives in _ONE_OF:
            if key in alternatives and alternatives.issuperset(place):
                place.clear()
        if last:
            place[key] = value
            return
        below = place.get(key)
        if below is None:
            below = place[key] = {}
        elif depth == 0 and key in _SHORTHANDS and not isinstance(below, dict | list):
            below = place[key] = dict.fromkeys(_SHORTHANDS[key], below)
        elif not isinstance(below, dict) and keys[depth + 1] in {"uniform", "choice"}:
            # A distribution in place of a constant or a list.
            below = place[key] = {}
        place = below
