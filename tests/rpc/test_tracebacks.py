"""What gRPC logs stays bounded, whatever comes in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError

from testbed.rpc import tracebacks
from testbed.rpc.tracebacks import OnceEach


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[BaseException], None]:
    logger = logging.getLogger("tests.tracebacks")
    only = OnceEach()
    logger.addFilter(only)

    def say(error: BaseException) -> None:
        try:
            raise error
        except BaseException as raised:
            logger.error("Unexpected [%s] in %s", type(raised).__name__, "/a/b", exc_info=raised)

    return say


def test_a_traceback_is_logged_once(
    log: Callable[[BaseException], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("testbed.rpc.tracebacks.time.monotonic", lambda: now)
    for number in range(50):
        log(ValueError(f"number {number}"))
    assert caplog.text.count("Traceback") == 1
    assert len(caplog.records) == 1
    now += 1.5
    log(ValueError("once more"))
    assert len(caplog.records) == 2
    assert "again: once more (49 more since the last such line)" in caplog.text
    assert caplog.text.count("Traceback") == 1
    # Another kind at the same place is another thing.
    log(KeyError("other"))
    assert caplog.text.count("Traceback") == 2


def test_a_message_that_cannot_be_read_has_none(
    log: Callable[[BaseException], None], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        log(DecodeError("Wire format was corrupt"))
    assert "Traceback" not in caplog.text
    assert len(caplog.records) == 1
    assert "in /a/b: a message cannot be read: Wire format was corrupt" in caplog.text


def test_the_end_of_a_process_is_not_logged(
    log: Callable[[BaseException], None], caplog: pytest.LogCaptureFixture
) -> None:
    log(asyncio.CancelledError())
    assert not caplog.records


def test_one_filter_is_enough() -> None:
    logger = logging.getLogger("grpc._cython.cygrpc")
    tracebacks.bound()
    tracebacks.bound()
    assert sum(isinstance(each, OnceEach) for each in logger.filters) == 1
