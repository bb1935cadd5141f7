"""Refuses YAML that reads otherwise than it looks, or that stands for more than it holds.

YAML 1.1, which PyYAML reads, takes ``010`` for 8, ``1:30`` for 90 and ``no`` for false; YAML 1.2
does not (https://yaml.org/spec/1.2.2/#10321-tag-resolution). A scenario is read the same by both.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml

from testbed.errors import Problem
from testbed.scenario.units import shown

MOST_VALUES: Final = 3_000_000
"""More than a matrix for the largest network holds; aliases can blow a small file up to this."""
_MOST_MERGED: Final = 10_000
"""Keys that merge keys (``<<``) bring into one mapping."""
DEEPEST: Final = 50
"""Levels of lists and mappings; a scenario has six."""
_LONGEST_NUMBER: Final = 40
"""Characters of a number; the longest float has 25."""
_DIGITS: Final = re.compile(r"[0-9]{5000}")

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_DATA: Final = frozenset(
    f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL: Final = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)
_LIKE_A_NUMBER: Final = re.compile(
    r"[-+]?(?:0[oO][0-7_]+|0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?"
    r"|0[0-9_]+|[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?)"
)
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(?:inf|Inf|INF|nan|NaN|NAN|infinity|Infinity)")
_WORDS: Final = frozenset({"true", "false"})

_AS_IT_LOOKS: Final = (
    "allowed: a decimal number without leading zeros, underscores or colons; text in quotes"
)


class Loader(yaml.SafeLoader):
    """A SafeLoader that reads ``1e3`` as a number and no dates, and stops at deep nesting."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node. Raises: MarkedYAMLError: below more than ``DEEPEST`` levels."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested too deeply, more than {DEEPEST} levels",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


class Dumper(yaml.SafeDumper):
    """A SafeDumper that puts every text in quotes that ``Loader`` would not read as that text."""


def _text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    node = yaml.ScalarNode(f"{_TAG}str", text)
    read_as = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    other = read_as != node.tag or any(pattern.fullmatch(text) for pattern in _OTHERWISE)
    return dumper.represent_scalar(node.tag, text, style="'" if other else None)


_OTHERWISE: Final = (_LIKE_A_NUMBER, _NOT_FINITE, _DECIMAL)
Dumper.add_representer(str, _text)


def unreadable(text: str, where: str) -> Problem | None:
    """Return the problem of a text that would take long even to split into words, if it has one."""
    found = _DIGITS.search(text)
    if found is None:
        return None
    line = text.count("\n", 0, found.start()) + 1
    return Problem(f"{where}:{line}", "a number of thousands of digits", _length())


def problems(root: yaml.Node, where: str) -> list[Problem]:
    """Return all that is strange in a composed document, each with its line; nothing is built.

    The work grows with the text, not with what aliases make of it.
    """
    found: list[Problem] = []
    sizes: dict[int, int] = {}
    merged: dict[int, int] = {}
    below: set[int] = set()
    # Each node twice: before its children, and (True) after them.
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, done = waiting.pop()
        key = id(node)
        if done:
            below.discard(key)
            sizes[key] = 1 + sum(sizes.get(id(child), 0) for child in _children(node))
            merged[key] = _merged(node, merged)
            if merged[key] > _MOST_MERGED:
                return [*found, Problem(_at(where, node), "merge keys that bring in too much", "")]
            if sizes[key] > MOST_VALUES:
                return [*found, _endless(where, node)]
            continue
        if key in below:
            return [*found, _endless(where, node)]
        if key in sizes:
            continue
        found += _strange(node, where)
        below.add(key)
        waiting.append((node, True))
        waiting += [(child, False) for child in reversed(_children(node))]
    return found


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _merged(node: yaml.Node, merged: dict[int, int]) -> int:
    if not isinstance(node, yaml.MappingNode):
        return 0
    count = 0
    for key, value in node.value:
        if key.tag == f"{_TAG}merge":
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            count += sum(merged.get(id(each), 0) for each in sources)
        else:
            count += 1
    return count


def _strange(node: yaml.Node, where: str) -> list[Problem]:
    if node.tag not in _PLAIN_DATA:
        seen = f"not valid YAML: the tag {shown(node.tag.replace(_TAG, '!!'))}"
        return [Problem(_at(where, node), seen, "allowed: texts, numbers, lists and mappings")]
    if isinstance(node, yaml.MappingNode):
        return _twice(node, where)
    if isinstance(node, yaml.ScalarNode) and (reason := _misread(node)):
        return [Problem(_at(where, node), *reason)]
    return []


def _twice(node: yaml.MappingNode, where: str) -> list[Problem]:
    first: dict[str, int] = {}
    found = []
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
            continue
        if key.value in first:
            seen = f"key '{_cut(key.value)}' stands here a second time"
            found.append(
                Problem(
                    _at(where, key),
                    f"{seen}, first in line {first[key.value]}",
                    "allowed: every key once",
                )
            )
        first.setdefault(key.value, key.start_mark.line + 1)
    return found


def _misread(node: yaml.ScalarNode) -> tuple[str, str] | None:
    """Return what is seen and allowed if the scalar is not what it looks like."""
    text, kind = node.value, node.tag.removeprefix(_TAG)
    plain = not node.style
    number = kind in {"int", "float"}
    if number and len(text) > _LONGEST_NUMBER:
        return f"a number of {len(text)} characters", _length()
    if (number or plain) and _NOT_FINITE.fullmatch(text):
        return f"{text} is not a finite number", "allowed: finite numbers; text in quotes"
    if kind == "bool" and text.lower() not in _WORDS:
        seen = f"{_cut(text)} is {_yes(text)} to some readers of YAML and a word to others"
        return seen, "allowed: true or false; the word in quotes"
    if (number or plain) and _LIKE_A_NUMBER.fullmatch(text):
        seen = f"{_cut(text)} is read as different numbers by different readers of YAML"
        return seen, _AS_IT_LOOKS
    wanted = {"int": _WHOLE, "float": _DECIMAL}.get(kind)
    if wanted is not None and not wanted.fullmatch(text):
        return f"not valid YAML: {shown(text)} is not of type {kind}", _AS_IT_LOOKS
    if kind == "float" and not math.isfinite(float(text)):
        return f"{_cut(text)} is too large a number", "allowed: up to 1e308"
    return None


def _yes(text: str) -> str:
    return "true" if text.lower() in {"yes", "on", "y"} else "false"


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _length() -> str:
    return f"allowed: numbers of up to {_LONGEST_NUMBER} characters"


def _at(where: str, node: yaml.Node) -> str:
    return f"{where}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _endless(where: str, node: yaml.Node) -> Problem:
    return Problem(_at(where, node), "aliases that repeat or contain each other without end", "")
