"""What is recorded of a serving run as JSON documents of ``EventBatch``, and back without loss.

A request and a window are arrays of their fields, in order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from testbed.model.serving.record import RequestRecord, WindowRecord

_dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_request(record: RequestRecord) -> bytes:
    """Return a request as a JSON document."""
    return _dumps(record).encode()


def decode_requests(documents: Sequence[bytes]) -> list[RequestRecord]:
    """Return the requests of documents.

    Raises: ValueError or TypeError: one of these is not the document of a request.
    """
    return [_request(values) for values in _arrays(documents)]


def encode_window(record: WindowRecord) -> bytes:
    """Return a window as a JSON document."""
    return _dumps([*record[:3], [dict(counts) for counts in record.counts], *record[4:]]).encode()


def decode_windows(documents: Sequence[bytes]) -> list[WindowRecord]:
    """Return the windows of documents.

    Raises: ValueError or TypeError: one of these is not the document of a window.
    """
    return [_window(values) for values in _arrays(documents)]


def _arrays(documents: Sequence[bytes]) -> list[Any]:
    """Return the values of many JSON documents, which are read in one go."""
    values: list[Any] = json.loads(b"[%s]" % b",".join(documents))
    if len(values) != len(documents):
        raise ValueError("several documents in one")
    return values


def _request(values: Any) -> RequestRecord:
    record = RequestRecord(*values)
    for name, value in zip(record._fields, record, strict=True):
        if type(value) is not int and not (value is None and name in _NULLABLE):
            raise ValueError(f"a request whose {name} is {value!r}")
    return record


_NULLABLE: Final = frozenset({"peer", "server"})


def _window(values: Any) -> WindowRecord:
    record = WindowRecord(*values)
    counts = tuple(record.counts)
    if not all(
        isinstance(each, dict) and all(type(count) is int for count in each.values())
        for each in counts
    ):
        raise ValueError(f"a window with the counts {record.counts!r}")
    if not all(type(value) is int for value in (*record[:3], *record[4:])):
        raise ValueError(f"a window whose numbers are {(*record[:3], *record[4:])}")
    return record._replace(counts=counts)
