"""Testbeds that are taken down after what carries them was started again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from testbed.api import lifecycle
from testbed.errors import PermanentError, TemporaryError
from testbed.runtime.base import Report, Runtime, Teardown


class Restarting:
    """A runtime whose task log answers when it was asked for the third time."""

    def __init__(self, *, started: bool) -> None:
        self.started = started
        self.asked = 0

    def start_stopped(self, *, report: Report = lambda line: None) -> bool:
        return self.started

    def own_log(self, name: str) -> str | None:
        self.asked += 1
        if self.asked < 3:
            raise TemporaryError("mysql-0 does not accept connections")
        return None

    def was_up(self, name: str) -> bool:
        return True

    def down(self, name: str, *, report: Report = lambda line: None) -> Teardown:
        return Teardown(name, (), 0.0, None)


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lifecycle, "ASK_AGAIN_S", 0.0)


def test_a_task_log_that_was_just_started_is_waited_for() -> None:
    place = Restarting(started=True)

    assert lifecycle.take_down(cast("Runtime", place), "lab").name == "lab"

    assert place.asked == 3


def test_one_that_was_running_is_asked_once() -> None:
    place = Restarting(started=False)

    with pytest.raises(PermanentError, match="--discard"):
        lifecycle.take_down(cast("Runtime", place), "lab")

    assert place.asked == 1
