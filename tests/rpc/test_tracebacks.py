"""What gRPC logs stays bounded, whatever comes in."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
from google.protobuf.message import DecodeError

from testbed.logs import WINDOW_S, BoundedHandler, Repeats
from testbed.rpc import tracebacks
from testbed.rpc.tracebacks import OnlyDefects


class Log:
    """A log as processes write it, with what gRPC says of calls that failed."""

    def __init__(self, logger: logging.Logger) -> None:
        self.now = 100.0
        self._logger = logger
        self._stream = io.StringIO()
        self.handler = BoundedHandler(self._stream, Repeats(lambda: self.now))

    def say(self, error: BaseException) -> None:
        try:
            raise error
        except BaseException as raised:
            self._logger.error(
                "Unexpected [%s] in %s", type(raised).__name__, "/a/b", exc_info=raised
            )

    @property
    def text(self) -> str:
        return self._stream.getvalue()


@pytest.fixture
def log() -> Iterator[Log]:
    logger = logging.getLogger("tests.tracebacks")
    logger.propagate = False
    only, log = OnlyDefects(), Log(logger)
    logger.addFilter(only)
    logger.addHandler(log.handler)
    yield log
    logger.removeHandler(log.handler)
    logger.removeFilter(only)


def test_a_traceback_is_logged_once(log: Log) -> None:
    for number in range(50):
        log.say(ValueError(f"number {number}"))
    assert log.text.count("Traceback") == 1
    assert log.text.count("Unexpected") == 1
    log.now += WINDOW_S + 1
    log.say(ValueError("once more"))
    assert "49 more times in 61 s: Unexpected [ValueError] in /a/b" in log.text
    assert log.text.count("Traceback") == 1
    # Another kind at the same place is another thing.
    log.say(KeyError("other"))
    assert log.text.count("Traceback") == 2


def test_a_message_that_cannot_be_read_has_none(log: Log) -> None:
    for _ in range(20):
        log.say(DecodeError("Wire format was corrupt"))
    assert "Traceback" not in log.text
    assert log.text == (
        "Unexpected [DecodeError] in /a/b: a message cannot be read: Wire format was corrupt\n"
    )


def test_the_end_of_a_process_is_not_logged(log: Log) -> None:
    log.say(asyncio.CancelledError())
    assert not log.text


def test_one_filter_is_enough() -> None:
    logger = logging.getLogger("grpc._cython.cygrpc")
    tracebacks.bound()
    tracebacks.bound()
    assert sum(isinstance(each, OnlyDefects) for each in logger.filters) == 1
