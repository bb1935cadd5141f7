"""YAML text to plain data, strictly: duplicate keys are errors, ``1e3`` is a number, no dates.

Also applies the CLI's ``--set key.path=value``. What the data means is the schema's business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import yaml

from testbed.errors import Problem
from testbed.scenario.units import shown

LARGEST_FILE: Final = 4 * 1024 * 1024
_MOST_VALUES: Final = 3_000_000
"""More than a matrix for the largest network holds; aliases can blow a small file up to this."""

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


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, with exponents, and with duplicate keys collected."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.duplicates: list[tuple[str, yaml.Mark, yaml.Mark]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    self.duplicates.append((key.value, key.start_mark, seen[key.value]))
                seen.setdefault(key.value, key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def parse(raw: bytes, where: str) -> Any:
    """The data of the one YAML document in ``raw``; ``where`` names it in problems.

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


def _data(text: str, where: str) -> Any:
    try:
        loader = _Loader(text)
        data = loader.get_single_data()
        duplicates = loader.duplicates
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        seen = " ".join(str(part) for part in (error.problem, error.context) if part)
        raise DocumentError(Problem(at, f"not valid YAML: {seen}", "")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(
            Problem(f"{where}:{line}", "a control character", "allowed: printable UTF-8 text")
        ) from None
    except RecursionError:
        raise DocumentError(Problem(where, "nested too deeply", "")) from None
    except (yaml.YAMLError, ValueError) as error:
        # SafeLoader lets ValueError through for a tagged scalar that is not what its tag says.
        reason = " ".join(str(error).split())
        raise DocumentError(Problem(where, f"not valid YAML: {reason}", "")) from None
    if duplicates:
        raise DocumentError(
            *(
                Problem(
                    f"{where}:{mark.line + 1}:{mark.column + 1}",
                    f"key '{key}' stands here a second time, first in line {first.line + 1}",
                    "allowed: every key once",
                )
                for key, mark, first in duplicates
            )
        )
    _refuse_strange(data, where)
    return data


def _refuse_strange(data: Any, where: str) -> None:
    # Aliases make a few lines stand for billions of values, or for themselves.
    waiting, count = [data], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > _MOST_VALUES:
            raise DocumentError(
                Problem(where, "aliases that repeat or contain each other without end", "")
            )
        if isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, str) and not _is_unicode(value):
            raise DocumentError(
                Problem(where, f"{shown(value)} is no Unicode text", "allowed: UTF-8 text")
            )
        elif isinstance(value, list):
            waiting.extend(value)


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
                        f"'{key}' is no index into {here}",
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
