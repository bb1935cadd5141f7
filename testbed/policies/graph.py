"""Looks through an ONNX file before anything loads it: no files beside it, no foreign operators.

The file is read as what it is on the wire, a protobuf message, with nothing but the standard
library: nodes have no ``onnx``. Field numbers are those of onnx.proto3 of ONNX 1.18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from testbed.errors import Problem

DEEPEST: Final = 20
"""Graphs, attributes and functions within each other; more are refused."""

DOMAINS: Final = frozenset({"", "ai.onnx"})
"""Operators of these domains are allowed: those that ONNX itself defines."""

REPEATING: Final = frozenset({"Loop", "Scan", "SequenceMap"})
"""Operators that repeat a graph depending on data; without them every node runs once."""

_Value: TypeAlias = "int | memoryview"
_Message: TypeAlias = Mapping[int, str]

_MESSAGES: Final[Mapping[str, _Message]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""The fields of each message that hold messages in which a tensor or an operator may be."""

_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(slots=True)
class _Found:
    """Operators and functions found so far, as (domain, name)."""

    external: set[str] = field(default_factory=set)
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)


def problems_of(model: bytes, source: str = "actor.onnx") -> list[Problem]:
    """Return what forbids to load this model; nothing for one that may be tried."""
    found = _Found()
    if model[4:8] == b"ORTM":
        return [Problem(source, "is in the format of ONNX Runtime", "an ONNX model")]
    try:
        _walk("model", memoryview(model), found, 0)
    except ValueError as error:
        return [Problem(source, str(error), "a complete file that is an ONNX model")]
    problems = [
        Problem(
            f"{source}: tensor {name!r}"[:120],
            "keeps its data in another file, which no checksum covers",
            "a model with all data in the one file",
        )
        for name in sorted(found.external)[:5]
    ]
    foreign = {each for each in found.operators - found.functions if each[0] not in DOMAINS}
    problems += [
        Problem(
            f"{source}: operator {name[:40]!r}",
            f"is of the domain {domain[:40]!r}",
            "operators of ONNX itself only",
        )
        for domain, name in sorted(foreign)[:5]
    ]
    problems += [
        Problem(f"{source}: operator {name!r}", "may run without end", "a policy without loops")
        for name in sorted({name for _, name in found.operators} & REPEATING)
    ]
    return problems


def _walk(kind: str, message: memoryview, found: _Found, depth: int) -> None:
    """Look through one message. Raises: ValueError: it is none, or nested too deeply."""
    if depth > DEEPEST:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    within = _MESSAGES[kind]
    texts: dict[int, str] = {}
    external = False
    for number, value in _fields(message):
        if kind == "tensor":
            external = external or number == _EXTERNAL_DATA
            external = external or (number == _DATA_LOCATION and value != 0)
        if isinstance(value, memoryview):
            if number in within:
                _walk(within[number], value, found, depth + 1)
            elif number in _NAMES.get(kind, ()):
                texts[number] = str(value, "utf-8", "replace")
    if external:
        found.external.add(texts.get(8, ""))
    if kind == "node":
        found.operators.add((texts.get(7, ""), texts.get(4, "")))
    elif kind == "function":
        found.functions.add((texts.get(10, ""), texts.get(1, "")))


_NAMES: Final[Mapping[str, tuple[int, ...]]] = {
    "tensor": (8,),
    "node": (4, 7),
    "function": (1, 10),
}
"""Fields that hold the names of tensors, of operators with their domain, and of functions."""


def _fields(message: memoryview) -> Iterator[tuple[int, _Value]]:
    """Yield number and value of each field. Raises: ValueError: this is no message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: _Value = 0
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif wire in (_FIXED64, _FIXED32):
            # Nothing that is looked for has a fixed size; told apart from 0 all the same.
            value, at = 1, at + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError("is no ONNX model")
        if number == 0 or at > len(message):
            raise ValueError("is no ONNX model, or not a whole one")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    found = 0
    for position in range(10):
        if at >= len(message):
            raise ValueError("is no ONNX model, or not a whole one")
        byte = message[at]
        at += 1
        found |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return found, at
    raise ValueError("is no ONNX model")
