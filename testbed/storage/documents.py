"""Reads JSON documents of others strictly, and files of others within bounds.

Cards and manifests come from stores that other people write to. Whatever stands there, reading it
ends soon, takes little memory, and fails with a ``ValueError`` that says what is wrong.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

LARGEST_NUMBER: Final = 2**64
"""Whole numbers beyond this are refused: no field of ours needs them."""

DEEPEST: Final = 30
"""Objects and arrays within each other; more are refused."""


def read_object(text: str | bytes, largest: int) -> dict[str, Any]:
    """Return the JSON object in ``text``, which may have ``largest`` bytes.

    Raises: ValueError: it is none, is too large or nested too deeply, names a key twice, or holds
    numbers or characters that JSON does not know.
    """
    if len(text) > largest:
        raise ValueError(f"has more than {largest} bytes")
    try:
        data = text.decode("utf-8") if isinstance(text, bytes) else text
        found = json.loads(
            data, object_pairs_hook=_unique, parse_constant=_refused, parse_int=_whole
        )
        _check(found, 0)
        # A half of a surrogate pair has no UTF-8 form and can be neither hashed nor printed.
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise ValueError("is not JSON: not UTF-8 text") from None
    except UnicodeEncodeError:
        raise ValueError("is not JSON: a text holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError(f"is nested more than {DEEPEST} levels deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"holds {_kind(found)} instead of an object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"names {key[:60]!r} twice")
        found[key] = value
    return found


def _refused(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= LARGEST_NUMBER:
        raise ValueError(f"holds the number {digits[:20]}…, which is too large")
    return number


def _check(value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is too large")
    if isinstance(value, dict):
        for each in value.values():
            _check(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, depth + 1)


def _kind(value: object) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def read_file(path: Path, largest: int, *, exactly: int | None = None) -> bytes:
    """Return the bytes of a plain file; its size is compared before anything is read.

    ``exactly`` is the size that it has to have; without it, any up to ``largest``. A pipe or a
    device is never waited for.

    Raises: OSError: it cannot be read. ValueError: it is not a regular file, or of another size.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a regular file")
        check_size(found.st_size, largest, exactly)
        # It may grow while it is read.
        data = file.read((largest if exactly is None else exactly) + 1)
    check_size(len(data), largest, exactly)
    return data


def check_size(size: int, largest: int, exactly: int | None) -> None:
    """Raise ValueError if ``size`` is not ``exactly`` that, or is above ``largest``."""
    if exactly is not None and size != exactly:
        raise ValueError(f"has {size} bytes instead of {exactly}")
    if size > largest:
        raise ValueError(f"has more than {largest} bytes")
