"""Messages nobody would send, drawn from a seed: valid ones changed, and bytes that are none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from testbed.rpc.generated import edge_pb2 as pb

NUMBERS: Final = (0, 1, 2, 3, -1, 7, 255, 10**6, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63))
TEXTS: Final = (
    *("", "0", "ratc", "drl", "local", "nonsense", "os:system", "subprocess:Popen", "..", "/"),
    *("shipped/per-destination", "shipped//etc/passwd", "policies/../../x", "file:///etc/passwd"),
    *("a" * 5000, "\x00", "é\u202e", "%s%n", "{}", "[]", "null", "[" * 3000, '{"policy": 3}'),
    *('{"policy": "shipped/per-destination"}', "1e999", "' OR 1=1 --", "unix:/tmp/x", "1.2.3.4:5"),
)


class Messages:
    """Draws messages of any type; ``valid`` holds examples by type, ``texts`` more texts."""

    def __init__(self, seed: int, valid: Mapping[str, list[Message]], texts: list[str]) -> None:
        self._draws = random.Random(seed)
        self._valid = valid
        self._texts = [*TEXTS, *texts]

    @property
    def draws(self) -> random.Random:
        """The source of all draws."""
        return self._draws

    def bytes_of(self, kind: str, *, readable: bool = False) -> bytes:
        """The next input for a method that takes messages of this type, serialized.

        With ``readable`` it is a message of this type, whatever its values are.
        """
        draw = self._draws.random()
        if draw < 0.1 and not readable:
            return self._draws.randbytes(self._draws.randrange(60))
        examples = self._valid.get(kind, [])
        if examples and draw < 0.6:
            message = type(examples[0])()
            message.CopyFrom(self._draws.choice(examples))
            for _ in range(self._draws.randrange(3)):
                self._change(message)
        else:
            message = getattr(pb, kind)()
            self._fill(message, 0)
        raw = bytearray(message.SerializeToString())
        if readable:
            return bytes(raw)
        if raw and self._draws.random() < 0.3:
            for _ in range(self._draws.randint(1, 4)):
                raw[self._draws.randrange(len(raw))] = self._draws.randrange(256)
        if raw and self._draws.random() < 0.1:
            del raw[self._draws.randrange(len(raw)) :]
        return bytes(raw)

    def _fill(self, message: Message, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            if self._draws.random() < 0.8:
                self._set(message, field, depth)

    def _change(self, message: Message) -> None:
        if fields := message.DESCRIPTOR.fields:
            self._set(message, self._draws.choice(fields), 0)

    def _set(self, message: Message, field: Any, depth: int) -> None:
        if field.is_repeated:
            values = getattr(message, field.name)
            del values[:]
            for _ in range(self._draws.choice((0, 1, 2, 50))):
                if field.type == field.TYPE_MESSAGE:
                    self._fill(values.add(), depth + 1)
                else:
                    values.append(self._value(field))
        elif field.type == field.TYPE_MESSAGE:
            if depth < 3:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self._fill(inner, depth + 1)
        else:
            setattr(message, field.name, self._value(field))

    def _value(self, field: Any) -> Any:
        draws = self._draws
        if field.type == field.TYPE_BOOL:
            return draws.random() < 0.5
        if field.type == field.TYPE_BYTES:
            return draws.choice((b"", b"{}", b"x" * 3000, draws.randbytes(20)))
        if field.type == field.TYPE_STRING:
            if draws.random() < 0.2:
                return self._damaged(draws.choice(self._texts))
            return draws.choice(self._texts)
        number = draws.choice(NUMBERS)
        if field.type == field.TYPE_INT32:
            return max(-(2**31), min(2**31 - 1, number))
        return number

    def _damaged(self, text: str) -> str:
        """A document with one value replaced, or a text with a part cut out."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and document:
            self._replace(document)
            return json.dumps(document)
        if not text:
            return text
        start = self._draws.randrange(len(text))
        return text[:start] + text[start + self._draws.randrange(20) :]

    def _replace(self, document: dict[str, Any]) -> None:
        key = self._draws.choice(sorted(document))
        inner = document[key]
        if isinstance(inner, dict) and inner and self._draws.random() < 0.6:
            self._replace(inner)
            return
        others: list[Callable[[], Any]] = [
            lambda: None,
            lambda: -1,
            lambda: 10**30,
            lambda: 0.5,
            lambda: "x",
            list,
            dict,
            lambda: [[0]],
            lambda: [1] * 2000,
        ]
        document[key] = self._draws.choice(others)()
