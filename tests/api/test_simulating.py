"""Simulation, comparison and replay from Python give what the command gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import testbed as tb
from testbed.cli import main

SMALL = {"nodes.count": 4, "slots.count": 20}
SETTINGS = ("--set", "nodes.count=4", "--set", "slots.count=20")


class Here:
    """Stays, and counts what it decided."""

    name = "here"

    def __init__(self) -> None:
        self.decided: list[int] = []

    def decide(self, observation: tb.Observation) -> tb.Decision:
        self.decided.append(observation.node)
        assert set(self.decided) == {observation.node}, "nodes share a scheduler"
        return tb.Decision(observation.node)


class Made:
    """As ``Here``, made with its context."""

    def __init__(self, context: tb.SchedulerContext) -> None:
        self.name = "made"
        self._node = context.node

    def decide(self, observation: tb.Observation) -> tb.Decision:
        return tb.Decision(self._node)


class Broken:
    """Answers what is no answer."""

    name = "broken"

    def decide(self, observation: tb.Observation) -> int:
        return 3


@pytest.fixture
def plan() -> tb.LoadedPlan:
    return tb.load("quickstart", set=SMALL)


def test_it_is_the_simulation_of_the_command(
    plan: tb.LoadedPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "log.sqlite")
    command = ["sim", "quickstart", *SETTINGS, "-s", "ratc", "-e", "3", "--json"]
    assert main.run([*command, "--storage", store]) == 0
    told = json.loads(capsys.readouterr().out)
    log = tb.open_log(store)

    result = tb.simulate(plan, "ratc", episodes=3)

    [stored] = log.runs(scheduler="ratc").results()
    assert told["runs"][0]["success_rate"]["by_episode"] == {
        str(key): value for key, value in result.by_episode.items()
    }
    same = [column for column in stored.tasks if column != "run"]
    assert stored.tasks[same].equals(result.tasks[same])
    assert stored.summary.run.info.scenario == plan.text

    assert main.run([*command, "--storage", store, "--tasks-only"]) == 0
    few = log.runs(scheduler="ratc").results()[-1]
    again = tb.simulate(plan, "ratc", episodes=3, tasks_only=True)
    # How long a decision took is told by the events alone.
    ended = [column for column in same if column != "deciding"]
    for each in (few, again):
        assert each.tasks[ended].equals(stored.tasks[ended])
        assert each.events.empty
        assert each.decisions.empty
    assert not stored.events.empty


def test_a_scheduler_of_ones_own_meets_the_same_tasks(plan: tb.LoadedPlan) -> None:
    found = tb.compare(plan, ["local", Here(), Made], episodes=4)

    assert found["here"].by_episode == found["made"].by_episode == found["local"].by_episode
    assert found["here"].plan.scheduler.name == "here"
    assert set(found.table["scheduler"]) == {"local", "here", "made"}
    assert len(found.pairs) == len(found.verdicts) == 3


def test_runs_are_compared_by_any_metric(plan: tb.LoadedPlan) -> None:
    found = tb.compare(plan, ["local", "ratc"], episodes=5)

    same = found.paired(lambda result: result.by_episode)
    late = found.paired(lambda result: result.tasks.groupby("episode")["elapsed"].mean())

    assert same["difference"].tolist() == found.pairs["difference"].tolist()
    assert same["p_value"].tolist() == found.pairs["p_value"].tolist()
    first, second = (
        found[name].tasks.groupby("episode")["elapsed"].mean()
        for name in (late["first"][0], late["second"][0])
    )
    assert late["difference"][0] == pytest.approx((first - second).mean())
    assert late["low"][0] < late["difference"][0] < late["high"][0]
    with pytest.raises(tb.UsageError, match="share no episode"):
        found.paired(lambda result: {0: float("nan")})


def test_two_of_one_scheduler_are_told_apart_by_their_options(plan: tb.LoadedPlan) -> None:
    drl = [tb.SchedulerSpec("drl", {"deterministic": each}) for each in (True, False)]

    found = tb.compare(plan, drl, episodes=1)

    labels = {result.summary.run.info.label for result in found}
    assert labels == {"deterministic=True", "deterministic=False"}


def test_what_a_scheduler_of_ones_own_does_wrong_is_told(plan: tb.LoadedPlan) -> None:
    result = tb.simulate(plan, Broken(), episodes=1)  # type: ignore[arg-type]

    assert result.state == "degraded"
    assert result.outcomes["lost"] == len(result.tasks)
    assert "broken" in result.document["code_failures"][0]


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ("ratcc", "did you mean 'ratc'"),
        (object(), "is no scheduler"),
        (Here, None),
        (tb.SchedulerSpec("ratc", {"nothing": 1}), "unknown option"),
    ],
)
def test_a_scheduler_that_cannot_be_used_is_refused(
    plan: tb.LoadedPlan, scheduler: Any, told: str | None
) -> None:
    with pytest.raises(tb.UsageError, match=told or "is called with a SchedulerContext"):
        tb.simulate(plan, scheduler, episodes=1)


def test_an_instance_takes_no_options(plan: tb.LoadedPlan) -> None:
    with pytest.raises(tb.UsageError, match="takes no options"):
        tb.simulate(plan, Here(), options={"a": 1}, episodes=1)


def test_figures_are_drawn_and_show_themselves(plan: tb.LoadedPlan) -> None:
    found = tb.compare(plan, ["ratc", "local"], episodes=2)

    for name in (
        *("success", "outcomes", "latency", "queues", "topology", "load", "nodes"),
        "differences",
    ):
        assert found.figure(name)._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert plan.figure()._repr_png_()  # type: ignore[attr-defined]
    with pytest.raises(tb.UsageError, match="success, outcomes, latency, queues, topology"):
        found.figure("nothing")  # type: ignore[arg-type]


def test_views_for_notebooks_escape_what_they_show() -> None:
    plan = tb.load("quickstart", set={**SMALL, "metadata.name": "a-b"})
    result = tb.simulate(plan, "ratc", episodes=1, label="<b>&")

    assert "&lt;b&gt;&amp;" in result._repr_html_()
    assert "<b>&" not in result._repr_html_()
    assert "Plan of a-b" in plan._repr_html_()


def test_seed_and_settings_make_the_scenario_of_the_command() -> None:
    one = tb.load("quickstart", seed=3)

    assert set(one.scenario.seeds.model_dump().values()) == {3}
    assert one.hash == tb.load("quickstart", set={"seeds": 3}).hash
    assert one.hash != tb.load("quickstart", seed=4).hash
    assert json.loads(one.plan.to_json())["name"] == "quickstart"
    with pytest.raises(tb.UsageError, match=r"nodes\.count"):
        tb.load("quickstart", set={"nodes.count": -1, "slots.count": "many"})


def test_a_replay_of_the_same_scheduler_changes_nothing(plan: tb.LoadedPlan) -> None:
    result = tb.simulate(plan, "ratc", episodes=2)

    same = tb.replay(result)
    other = tb.replay(result, Here(), episode=1)

    assert same.replay.by_episode == result.by_episode
    assert list(other.replay.by_episode) == [1]
    assert other.replay.summary.run.info.replay_of == result.id
    assert "here" in other.verdict


def test_logs_select_runs(plan: tb.LoadedPlan, tmp_path: Path) -> None:
    with tb.open_log(tmp_path / "log.sqlite", create=True) as log:
        first = tb.simulate(plan, "ratc", episodes=1, label="one", log=log)
        second = tb.simulate(plan, "local", episodes=2, log=log)

        assert log.runs(scheduler="ratc").ids == log.runs(label="one").ids == [first.id]
        assert log.runs(scheduler="rda").table.empty
        assert log.runs().table["scheduler"].tolist() == ["ratc", "local"]
        assert [run.id for run in log.runs()[:1]] == [first.id]
        tasks = log.runs().tasks()
        assert (
            tasks.groupby("run", sort=False)["task"].count().tolist()
            == log.runs().table["tasks"].tolist()
        )
        assert set(log.runs().events().columns) > {"run", "scheduler"}
        # The ids of one second have their last four letters by chance.
        beginnings = (first.id[:-count] for count in (2, 1))
        named = next((each for each in beginnings if not second.id.startswith(each)), first.id)
        assert log.run(named).tasks.equals(first.tasks)
        assert log.runs().compare().table["scheduler"].tolist() == [
            "ratc (one)",
            "local",
        ]
        with pytest.raises(tb.UsageError, match="no run matches"):
            log.runs(scheduler="rda").tasks()
    with pytest.raises(tb.PrerequisiteMissing):
        tb.open_log(tmp_path / "nothing.sqlite")


def test_data_sets_are_built_found_and_exported(
    plan: tb.LoadedPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path))
    # A command run in this process has chosen its home for good.
    tb.use_home(None)
    result = tb.simulate(plan, "ratc", episodes=2)

    data = tb.build_data_set(result, "small")

    assert data.folder == tmp_path / "datasets" / "small"
    arrays = tb.open_data_set("small").load()
    assert len(arrays) == len(data) == len(data.frame) == 2 * 4 * 20
    assert (data.export(tmp_path / "csv", "csv")).is_dir()
    with pytest.raises(tb.UsageError, match="one of csv"):
        data.export(tmp_path / "no", "excel")
    with pytest.raises(tb.UsageError, match="different task logs"):
        tb.build_data_set([result, tb.simulate(plan, "local", episodes=1)], "two")
    with pytest.raises(tb.UsageError, match="small"):
        tb.open_data_set("smal")
