"""A network that is up as a venue: no run is left under way, whatever interrupts it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.experiment.live.network import NetworkVenue
from testbed.experiment.live.venue import Order
from testbed.rpc.operator import OperatorClient
from testbed.rpc.repeated import mark_of, start
from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan
from testbed.storage.tasklog import open_task_log

LABEL = "learn here: update 1"
MARK = mark_of(Path("here"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    runtime = LocalRuntime(tmp_path_factory.mktemp("home"))
    small = plan(load("quickstart", ["nodes.count=2", "slots.count=5", "timeScale=0.5"]))
    yield runtime.up(small, "here")
    runtime.down("here")


class InterruptedAtTheStart(OperatorClient):
    """Ctrl-C comes when the controller has started a run, before it is known here."""

    def start_run(self, **order: Any) -> str:
        run = super().start_run(**order)
        signal.raise_signal(signal.SIGINT)
        return run


def ran(testbed: Testbed, client: OperatorClient, order: Order, told: list[str]) -> str:
    """The id of the run that a venue made of ``order``; ``told`` gets its warnings."""
    drawn = client.plan()
    assert isinstance(drawn, Plan)
    with open_task_log(testbed.store, create=False) as log:
        venue = NetworkVenue(
            client,
            client.watch_run,
            drawn,
            log,
            "",
            mark=MARK,
            include_invalid=True,
            warn=told.append,
        )
        return venue.run(order, lambda done, message: None)


def test_a_run_that_was_left_under_way_is_stopped_and_no_other(up: Testbed) -> None:
    told: list[str] = []
    with OperatorClient(up.address, up.token) as client:
        other = f"{LABEL} [{mark_of(Path('there'))}]"
        foreign = client.start_run(scheduler="ratc", episodes=500, label=other)
        with pytest.raises(UsageError, match=f"run {foreign} is under way"):
            ran(up, client, Order(None, 7, 1, LABEL), told)
        assert told == []
        client.stop_run(foreign)
        # Whatever it was for: the settings may have changed.
        mine = f"learn here: gate 4 [{MARK}]"
        left = client.start_run(scheduler="ratc", episodes=500, label=mine)

        run = ran(up, client, Order(None, 7, 1, LABEL), told)

        assert told == [f"run {left} was left under way, so it is stopped"]
        found = client.status().run
        assert found is not None
        assert (found.progress.run, found.progress.first_episode) == (run, 7)


@pytest.mark.parametrize(
    "begin",
    [
        lambda up, client: ran(up, client, Order(None, 0, 500, LABEL), []),
        lambda up, client: start(client, scheduler="ratc", episodes=500),
    ],
    ids=["learning", "any command"],
)
def test_a_run_whose_start_is_interrupted_does_not_go_on(
    up: Testbed, begin: Callable[[Testbed, OperatorClient], str]
) -> None:
    with InterruptedAtTheStart(up.address, up.token) as client:
        with pytest.raises(KeyboardInterrupt):
            begin(up, client)

        found = client.status().run
        assert found is not None
        assert (found.progress.episodes, found.progress.state) == (500, "stopped")
