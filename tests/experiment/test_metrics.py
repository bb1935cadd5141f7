"""Metrics: their values, what is said of them, and that every one is known everywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from testbed.errors import UsageError
from testbed.experiment import metrics
from testbed.experiment.comparison import RunComparison, compare_runs, compare_summaries
from testbed.experiment.messages import MessageWindow
from testbed.experiment.metrics import METRICS, SUCCESS_RATE, Metric
from testbed.experiment.report import write_report
from testbed.experiment.summary import RunSummary, summarise
from testbed.model.events import DecisionRecord
from testbed.model.history import TaskRow
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.schedulers.asked import ANSWER_BYTES, QUESTION_BYTES
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log

ROOT = Path(__file__).resolve().parents[2]
EPISODES = 5
BUILT_IN = tuple(METRICS.built_in)

SMALL = pd.DataFrame(
    [
        (0, "succeeded", 0, 0, 10_000),
        (0, "succeeded", 0, 1, 30_000),
        (0, "dropped", 1, 1, 90_000),
        (0, "dropped", 1, None, 90_000),
        (1, "execution_failed", 0, 1, 50_000),
        (1, "transmission_failed", 1, 0, 50_000),
        (2, "lost", 0, None, 5_000),
        (2, "refused", 0, None, 5_000),
    ],
    columns=["episode", "outcome", "source", "destination", "elapsed"],
)
"""Four tasks, two tasks of which none succeeded, and two without a destination."""

SAID = pd.DataFrame(
    [
        (0, 0, 0, 4, 40, 3, 75, 0, 0),
        (0, 1, 0, 0, 0, 0, 0, 3, 75),
        (1, 0, 0, 0, 0, 0, 0, 0, 0),
        (2, 0, 0, *[math.nan] * 6),
    ],
    columns=list(MessageWindow._fields),
)
"""Four questions and three answers, none, and unknown ones."""

VERDICTS = [
    "ratc and rda: no real difference (3.8 points apart, adjusted p = 0.054; 5 episodes could show "
    "6.8 points or more)",
    "ratc is better than local by 17.8 points (adjusted p = 0.0029)",
    "rda is better than local by 14.1 points (adjusted p = 0.0073)",
]
ROWS = [
    ("91.3 %", "84.8 .. 97.7", "best"),
    ("87.5 %", "83.8 .. 91.1", "no real difference from the best"),
    ("73.4 %", "68.1 .. 78.7", "worse by 17.8 points"),
]
"""Verdicts about three runs by the success rate; p values are three, two and one times the single
ones, which were 0.00098, 0.0036 and 0.054."""

EXPECTED = {
    "success-rate": (0.5, 0.0, 0.0),
    "latency": (20.0, math.nan, math.nan),
    "latency-p95": (29.0, math.nan, math.nan),
    "dropped": (0.5, 0.0, 0.0),
    "refused": (0.0, 0.0, 0.5),
    "failed": (0.0, 1.0, 0.0),
    "offloaded": (1 / 3, 1.0, math.nan),
    "messages": (7.0, 0.0, math.nan),
    "message-bytes": (115.0, 0.0, math.nan),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with ratc, rda and local on the same tasks."""
    found = tmp_path_factory.mktemp("log") / "log.sqlite"
    drawn = plan(load("quickstart", ["slots.count=12"]))
    with open_task_log(str(found)) as opened:
        for scheduler in ("ratc", "rda", "local"):
            record_run(drawn, opened, scheduler=scheduler, episodes=EPISODES)
    return found


@pytest.fixture
def log(path: Path) -> Iterator[TaskLog]:
    with open_task_log(str(path)) as opened:
        yield opened


@pytest.fixture
def runs(log: TaskLog) -> list[RunSummary]:
    return [summarise(log, run.id) for run in log.runs()]


def edited(run: RunSummary, episodes: tuple[int, ...]) -> RunSummary:
    """The run as if no task of these episodes had succeeded."""
    ended = zip(run.columns["episode"], run.columns["outcome"], strict=True)
    outcomes = ["dropped" if number in episodes else outcome for number, outcome in ended]
    return RunSummary(run.run, {**run.columns, "outcome": outcomes})


def test_the_table_of_expected_values_is_complete() -> None:
    assert tuple(EXPECTED) == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_values_are_those_computed_by_hand(name: str) -> None:
    metric = metrics.find(name)
    found = metric.by_episode({"tasks": SMALL, "messages": SAID}[metric.frame])

    assert list(found) == [0, 1, 2]
    assert list(found.values()) == pytest.approx(EXPECTED[name], nan_ok=True)


def by_hand(name: str, rows: list[TaskRow], decisions: list[DecisionRecord]) -> float:
    done = [(row.elapsed or 0) / 1000 for row in rows if row.outcome == "succeeded"]
    decided = [row for row in rows if row.destination is not None]
    shares = {
        "success-rate": ("succeeded",),
        "dropped": ("dropped",),
        "refused": ("refused",),
        "failed": ("transmission_failed", "execution_failed"),
    }
    if name in shares:
        return sum(row.outcome in shares[name] for row in rows) / len(rows)
    if name == "offloaded":
        return sum(row.destination != row.source for row in decided) / len(decided)
    if name in ("messages", "message-bytes"):
        # Nobody is silent there: as many questions as answers, all for the full state.
        answers = sum(len(each.observation.answers) for each in decisions)
        return answers * (2 if name == "messages" else QUESTION_BYTES.states + ANSWER_BYTES.states)
    return {"latency": fmean(done), "latency-p95": float(np.quantile(done, 0.95))}[name]


@pytest.mark.parametrize("name", BUILT_IN)
def test_values_of_a_logged_run(name: str, log: TaskLog, runs: list[RunSummary]) -> None:
    found = runs[0].measured(metrics.find(name))

    for episode, value in found.by_episode.items():
        rows = list(log.tasks(runs[0].run.id, episode=episode))
        decisions = list(log.decisions(runs[0].run.id, episode=episode))
        assert value == pytest.approx(by_hand(name, rows, decisions))
    assert found.interval.mean == pytest.approx(fmean(found.by_episode.values()))
    assert (found.interval.count, found.without) == (EPISODES, ())


def test_the_default_is_the_success_rate_bit_for_bit(runs: list[RunSummary]) -> None:
    for run in runs:
        succeeded = run.tasks["outcome"] == "succeeded"
        plain = succeeded.groupby(run.tasks["episode"]).mean()
        assert list(run.by_episode.items()) == list(plain.to_dict().items())
        assert run.measured(SUCCESS_RATE).by_episode == run.by_episode
        assert run.measured(SUCCESS_RATE).interval == run.success_rate


def test_what_is_said_by_default_stays_as_it_was(runs: list[RunSummary]) -> None:
    compared = compare_summaries(runs)

    assert [pair.verdict for pair in compared.pairs] == VERDICTS
    assert [row[4:] for row in compared.table()] == ROWS
    pair = compared.document["pairs"][0]
    assert list(pair) == [
        *("better", "worse", "episodes", "difference", "low", "high", "p_value", "p_adjusted"),
        *("detectable", "real", "verdict"),
    ]
    assert set(compared.document) == {"warnings", "metric", "runs", "pairs"}
    for run in compared.document["runs"]:
        assert run["success_rate"] == run["measured"]


def test_the_page_by_default_has_no_other_metric(
    log: TaskLog, runs: list[RunSummary], tmp_path: Path
) -> None:
    ids = [run.run.id for run in runs]
    first = write_report(log, ids, tmp_path / "first")
    named = write_report(log, ids, tmp_path / "named", metric=metrics.find("success-rate"))

    assert first.path.read_bytes() == named.path.read_bytes()
    assert set(first.tables) == {"summary", "episodes", "times", "comparison"}
    assert "metric" not in first.figures


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_direction_orders_runs_and_pairs(name: str, runs: list[RunSummary]) -> None:
    metric = metrics.find(name)
    sign = 1 if metric.better == "lower" else -1
    compared = compare_summaries(runs, metric)

    means = [sign * compared.measured[run.run.id].interval.mean for run in compared.runs]
    assert means == sorted(means)
    assert all(sign * pair.comparison.difference.mean <= 0 for pair in compared.pairs)
    json.dumps(compared.document, allow_nan=False)


def said(compared: RunComparison) -> str:
    return " ".join(pair.verdict for pair in compared.pairs)


def test_verdicts_name_direction_and_unit(runs: list[RunSummary]) -> None:
    late, dropped, sent = (
        compare_summaries(runs, metrics.find(name)) for name in ("latency", "dropped", "offloaded")
    )

    assert "5 episodes could show" in said(late)
    two = compare_summaries([run for run in runs if run.title != "ratc"], late.metric)
    assert "rda is better than local: mean time of succeeded tasks lower by " in said(two)
    assert " ms (p = " in said(two)
    assert "points" not in said(late)
    assert "ratc is better than local: share of tasks dropped lower by " in said(dropped)
    assert "ratc and local: share of decided tasks sent to peers higher by " in said(sent)
    assert "better" not in said(sent)
    rows = {row[1]: row[-1] for row in dropped.table()}
    assert rows["local"].startswith("worse, higher by ")
    rows = {row[1]: row[-1] for row in sent.table()}
    assert rows["ratc"] == "highest"
    assert rows["local"].startswith("lower by ")
    pair = sent.document["pairs"][0]
    assert (pair["better"], pair["worse"]) == (None, None)
    assert pair["higher"] == sent.runs[0].run.id


def test_shares_end_at_0_and_1_and_times_do_not() -> None:
    latency, dropped = metrics.find("latency"), metrics.find("dropped")

    assert dropped.interval([0.0, 0.5]).low == 0.0
    assert dropped.interval([1.0, 0.5]).high == 1.0
    assert dropped.shown(dropped.interval([1.0, 0.5, 1.0])) == "83.3 (11.6 .. 100.0) %"
    times = latency.interval([10.0, 20.0, 30.0])
    assert times.high == pytest.approx(20 + 4.302653 * 10 / math.sqrt(3))
    assert latency.shown(times) == "20.0 ± 24.8 ms"
    assert latency.ends(times) == "-4.8 .. 44.8"
    assert latency.interval([0.5]).mean == 0.5
    assert latency.difference(-12.34) == "12.3 ms"
    assert dropped.difference(-0.1234) == "12.3 points"


def test_episodes_without_a_value_are_left_out_of_pairs_and_named(
    log: TaskLog, runs: list[RunSummary]
) -> None:
    ratc, rda, local = runs
    latency = metrics.find("latency")
    compared = compare_summaries([ratc, edited(rda, (1, 3)), local], latency)

    [told] = compared.left_out
    assert f"run {rda.run.id} (rda) has no value of 'latency' in episodes 1, 3; they are" in told
    assert told in compared.document["warnings"]
    shared = {
        frozenset((pair.first.run.id, pair.second.run.id)): pair.comparison.episodes
        for pair in compared.pairs
    }
    assert shared[frozenset((ratc.run.id, rda.run.id))] == (0, 2, 4)
    assert shared[frozenset((ratc.run.id, local.run.id))] == (0, 1, 2, 3, 4)
    assert compare_summaries(compared.runs, SUCCESS_RATE).left_out == ()


def test_a_run_without_any_value_comes_last_and_has_no_pair(runs: list[RunSummary]) -> None:
    latency = metrics.find("latency")
    ratc, rda, local = runs
    compared = compare_summaries([edited(ratc, tuple(range(EPISODES))), rda, local], latency)

    assert compared.runs[-1].run.id == ratc.run.id
    assert len(compared.pairs) == 1
    assert list(compared.table())[-1][3:] == (
        *("0", "none", "", "no value in an episode of the best"),
    )
    json.dumps(compared.document, allow_nan=False)
    with pytest.raises(UsageError, match="no two of these runs have a value of 'latency'"):
        compare_summaries([edited(each, tuple(range(EPISODES))) for each in runs], latency)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_page_of_metrics_has_a_row_for_each(name: str) -> None:
    metric = metrics.find(name)
    page, _, _ = (ROOT / "docs" / "metrics.md").read_text().partition("## Metrics of serving")
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]

    assert metric.name == name
    assert row.split("|")[3].strip() == metric.unit
    assert row.split("|")[4].strip() == (metric.better or "neither")


OWN = Metric(
    name="own",
    title="tasks",
    values=lambda tasks: tasks.groupby("episode").size().astype(float),
    unit="tasks",
    better="higher",
    digits=0,
)
RAISING = Metric(name="raising", title="x", values=lambda tasks: {0: 1 / 0}, better=None)
ELSEWHERE = Metric(name="elsewhere", title="x", values=lambda tasks: {99: 1.0}, better=None)


def entry_points(group: str) -> list[metadata.EntryPoint]:
    assert group == "edge_testbed.metrics"
    named = {"own": "OWN", "raising": "RAISING", "other": "OWN", "dropped": "OWN", "nothing": "X"}
    return [metadata.EntryPoint(key, f"{__name__}:{each}", group) for key, each in named.items()]


def test_another_package_adds_a_metric(monkeypatch: pytest.MonkeyPatch, log: TaskLog) -> None:
    ids = [run.id for run in log.runs()]
    monkeypatch.setattr(metadata, "entry_points", entry_points)

    assert metrics.names() == (*BUILT_IN, "nothing", "other", "own", "raising")
    assert metrics.find("dropped").unit == "%", "a built-in name stays what it is"
    compared = compare_runs(log, ids, metrics.find("own"))
    assert "no real difference (0 tasks apart, adjusted p = 1)" in compared.pairs[0].verdict
    with pytest.raises(UsageError, match="is no metric of that name"):
        metrics.find("other")
    with pytest.raises(UsageError, match="cannot be computed: ZeroDivisionError"):
        compare_runs(log, ids, metrics.find("raising"))
    with pytest.raises(UsageError, match=r"has values for episodes \[99\]"):
        compare_runs(log, ids, ELSEWHERE)
