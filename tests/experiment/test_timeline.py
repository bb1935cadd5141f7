"""Time lines on the page of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from testbed.experiment import timeline
from testbed.experiment.summary import summarise
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path_factory.mktemp("log") / "log.sqlite")) as opened:
        drawn = plan(load("quickstart", ["slots.count=12"]))
        for scheduler in ("ratc", "local"):
            record_run(drawn, opened, scheduler=scheduler, episodes=3)
        record_run(drawn, opened, scheduler="local", episodes=3, first_episode=100)
        yield opened


def test_the_episode_in_which_runs_differ_most_is_drawn(log: TaskLog) -> None:
    runs = [summarise(log, run.id) for run in log.runs()[:2]]
    ratc, local = (run.by_episode for run in runs)
    episode = max(ratc, key=lambda number: (abs(ratc[number] - local[number]), -number))

    page = "".join(timeline.parts(log, runs))

    assert f"Episode {episode}, in which the success rates" in page
    for run, drawn in zip(runs, SVG.findall(page), strict=True):
        root = ElementTree.fromstring(drawn)
        executed = {
            str(each[0].text).split(",")[0].removeprefix("task ")
            for each in root
            if each.get("class") == "executing"
        }
        rows = list(log.tasks(run.run.id, episode=episode))
        assert executed == {str(row.task_id) for row in rows if row.execution}
        failed = [each for each in root if each.get("class") == "failed"]
        assert len(failed) == sum(row.outcome != "succeeded" for row in rows)


def test_bars_of_a_lane_do_not_overlap(log: TaskLog) -> None:
    page = "".join(timeline.parts(log, [summarise(log, log.runs()[0].id)]))
    root = ElementTree.fromstring(SVG.findall(page)[0])
    ends: dict[str, int] = {}
    bars = [each for each in root if each.get("class") in ("executing", "waiting", "sending")]
    assert len(bars) > 20
    for bar in bars:
        begin, lane = int(bar.attrib["x"]), bar.attrib["y"]
        assert begin >= ends.get(lane, 0)
        ends[lane] = begin + int(bar.attrib["width"])


def test_runs_without_a_shared_episode_have_none(log: TaskLog) -> None:
    first, _, other = (summarise(log, run.id) for run in log.runs())
    assert timeline.parts(log, [first, other]) == []
