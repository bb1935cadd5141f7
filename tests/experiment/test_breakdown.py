"""Success and use in parts, as computed by hand from few tasks, and as figures draw them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from testbed.experiment import breakdown, dots
from testbed.experiment.summary import RunSummary, summarise
from testbed.experiment.task_report import outcome_table
from testbed.model.units import SECOND
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log

EPISODES = 9
TASKS: dict[str, list[Any]] = {
    "episode": [0, 0, 0, 1],
    "task": [1, 2, 3, 4],
    "source": [0, 0, 1, 0],
    "destination": [0, 1, 1, None],
    "outcome": ["succeeded", "dropped", "succeeded", "dropped"],
    "size_bytes": [1_000_000, 2_000_000, 3_000_000, 4_000_000],
    "cycles": [10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9],
    "transmission": [None, 300_000, None, None],
    "execution": [100_000, None, 500_000, None],
    "deciding": [0.0, 0.0, 0.0, float("nan")],
    "elapsed": [1, 2, 3, 4],
}
"""Three tasks in episode 0, one in episode 1."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path_factory.mktemp("log") / "log.sqlite")) as opened:
        drawn = plan(load("quickstart", ["slots.count=12"]))
        for scheduler in ("ratc", "local"):
            record_run(drawn, opened, scheduler=scheduler, episodes=EPISODES)
        yield opened


@pytest.fixture(scope="module")
def runs(log: TaskLog) -> list[RunSummary]:
    return [summarise(log, run.id) for run in log.runs()]


@pytest.fixture
def few(runs: list[RunSummary]) -> RunSummary:
    return RunSummary(runs[0].run, TASKS)


def test_offered_load_is_the_work_over_the_capacity(few: RunSummary) -> None:
    network = few.run.plan.topology
    seconds = breakdown.arrival_time(few) / SECOND
    found = breakdown.by_load([few])
    assert found["episode"].tolist() == [0, 1]
    assert found["offered_load"].tolist() == pytest.approx(
        [6e9 / (sum(network.capacity_hz) * seconds), 4e9 / (sum(network.capacity_hz) * seconds)]
    )
    assert found["success_rate"].tolist() == pytest.approx([2 / 3, 0.0])


def test_success_by_node_is_a_mean_over_the_episodes_with_tasks_there(few: RunSummary) -> None:
    found = breakdown.by_node([few]).set_index("node")
    assert found["mean"].to_dict() == pytest.approx({0: (1 / 2 + 0) / 2, 1: 1.0})
    assert found["episodes"].to_dict() == {0: 2, 1: 1}
    assert found["tasks"].to_dict() == {0: 3, 1: 1}


def test_success_by_size_is_of_quarters(few: RunSummary) -> None:
    assert breakdown.size_edges([few]) == pytest.approx([1e6, 1.75e6, 2.5e6, 3.25e6, 4e6])
    found = breakdown.by_size([few])
    assert found["mean"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert found["from_bytes"].tolist() == pytest.approx([1e6, 1.75e6, 2.5e6, 3.25e6])
    alike = RunSummary(few.run, {**TASKS, "size_bytes": [5] * 4})
    assert breakdown.by_size([alike]).empty


def test_links_and_processors_are_in_use_for_a_share_of_the_time(few: RunSummary) -> None:
    time = breakdown.arrival_time(few)
    (link,) = breakdown.links([few]).to_dict("records")
    assert (link["source"], link["destination"], link["tasks"], link["mb"]) == (0, 1, 1, 2.0)
    assert link["mean"] == pytest.approx(300_000 / time / 2), "nothing in the second episode"
    busy = breakdown.processors([few]).set_index("node")["mean"]
    assert busy[0] == pytest.approx(100_000 / time / 2)
    assert busy[1] == pytest.approx(500_000 / time / 2)
    assert busy[2] == 0.0


def test_parts_agree_with_the_whole(runs: list[RunSummary]) -> None:
    for run in runs:
        load = breakdown.by_load([run])
        assert load["success_rate"].mean() == pytest.approx(run.success_rate.mean)
        assert breakdown.by_node([run])["tasks"].sum() == run.count
        assert breakdown.by_size([run])["tasks"].sum() == run.count
        assert sum(run.outcome_shares.values()) == pytest.approx(1.0)
        assert run.outcome_shares["succeeded"] == pytest.approx(run.success_rate.mean)


def test_columns_of_shares_add_up_to_100(runs: list[RunSummary]) -> None:
    for run, row in zip(runs, outcome_table(runs).to_dict("records"), strict=True):
        shares = [float(each) for name, each in row.items() if str(name).endswith(", %")]
        assert sum(round(10 * each) for each in shares) == 1000
        assert row["sum"] == "100.0"
        assert row["succeeded, %"] == f"{100 * run.success_rate.mean:.1f}"
    shown = runs[0].columns_of(runs, lambda metric, found: metric.mean(found))
    cells = {column.head: column.cells for column in shown}
    for number in range(len(runs)):
        parts = [cells[head][number].split()[0] for head in ("SUCCESS", "DROPPED", "FAILED")]
        assert sum(round(10 * float(each)) for each in parts) == 1000


def test_figures_draw_a_dot_for_every_value(runs: list[RunSummary]) -> None:
    load = breakdown.by_load(runs)
    axes = breakdown.load_drawn(load).axes[0]
    found = [np.asarray(each.get_offsets()) for each in axes.collections]
    drawn = np.concatenate([each for each in found if len(each)])
    assert {round(float(x), 6) for x, _ in drawn} >= {
        round(100 * each, 6) for each in load["offered_load"]
    }
    nodes = breakdown.by_node(runs)
    figure = breakdown.nodes_drawn(nodes, "success rate, %")
    names = [each.get_text() for each in figure.axes[0].get_yticklabels()]
    assert names == [f"node {node}" for node in range(runs[0].run.plan.topology.size)]
    assert len(breakdown.sizes_drawn(breakdown.by_size(runs)).axes[0].get_yticklabels()) == 4
    busiest = breakdown.links_drawn(breakdown.links(runs)).axes[0].get_yticklabels()
    assert 0 < len(busiest) <= dots.MOST_ROWS


def test_runs_of_one_name_are_told_apart(runs: list[RunSummary]) -> None:
    again = replace(runs[0], run=replace(runs[0].run, info=replace(runs[0].run.info, id="again")))
    found = breakdown.by_node([runs[0], again])
    assert set(found["scheduler"]) == {f"ratc [{runs[0].run.id}]", "ratc [again]"}
