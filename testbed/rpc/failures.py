"""Errors of this toolkit across gRPC: the message as the call's details, the whole beside it."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable
from typing import Any, Final, NoReturn, TypeAlias, cast
from urllib.parse import quote, unquote

import grpc

from testbed.errors import (
    PermanentError,
    TemporaryError,
    TestbedError,
    from_document,
)

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_KEY: Final = "testbed-error-bin"
_LARGEST_DOCUMENT: Final = 3000
_LARGEST_MESSAGE: Final = 3000
"""Bytes of document and message that are sent: with their encoding (a third more, and up to three
times as much) they share the 8 KiB of metadata above which gRPC ends the call with nothing."""


async def abort(context: _Context, error: TestbedError) -> NoReturn:
    """End a call with ``error``, which `received` gives to the caller."""
    document = json.dumps(error.to_document()).encode()
    metadata = ((_KEY, document),) if len(document) <= _LARGEST_DOCUMENT else ()
    await context.abort(_status(error), _shortened(str(error)), metadata)


def received(error: grpc.RpcError) -> TestbedError | None:
    """Return the error that a call was ended with by `abort`; None if by anything else."""
    # Pairs, whatever the stubs say.
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key == _KEY:
            try:
                return from_document(json.loads(value))
            except ValueError:
                return None
    return None


def _shortened(message: str) -> str:
    """Return the beginning of ``message`` that fits into the metadata of a call."""
    encoded = quote(message, safe=string.punctuation + " ")
    if len(encoded) <= _LARGEST_MESSAGE:
        return message
    whole = re.sub("%.?$", "", encoded[:_LARGEST_MESSAGE])
    return unquote(whole, errors="ignore") + " [...]"


def _status(error: TestbedError) -> grpc.StatusCode:
    """Return the status that tells the kind of an error without its document.

    gRPC itself never answers ``ABORTED`` or ``DATA_LOSS``, so their details are ours.
    """
    if isinstance(error, TemporaryError):
        return grpc.StatusCode.ABORTED
    if isinstance(error, PermanentError):
        return grpc.StatusCode.DATA_LOSS
    return grpc.StatusCode.INVALID_ARGUMENT
