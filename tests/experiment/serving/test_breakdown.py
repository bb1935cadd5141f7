"""Refused requests in parts, against what is counted in the rows of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from testbed.experiment.report import write_report
from testbed.experiment.serving import breakdown
from testbed.experiment.serving.summary import ServingSummary
from testbed.experiment.summary import summary_of
from testbed.scenario.load import draw, load
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log
from tests.experiment.pages import check_files

SECONDS = 90


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    """Two functions, of which one is asked for at two nodes, at rates that change."""
    with open_task_log(tmp_path_factory.mktemp("traces") / "log.sqlite") as opened:
        plan = draw(load("dfaas-traces", [f"horizon.length={SECONDS}s"]))
        for scheduler in ("slack", "all-local"):
            record_run(plan, opened, scheduler=scheduler, episodes=2, run_id=scheduler)
        yield opened


@pytest.fixture(scope="module")
def runs(log: TaskLog) -> list[ServingSummary]:
    found = [summary_of(log, name) for name in ("slack", "all-local")]
    assert all(isinstance(each, ServingSummary) for each in found)
    return found  # type: ignore[return-value]


def test_every_request_is_in_one_row_of_the_loads(log: TaskLog, runs: list[ServingSummary]) -> None:
    found = breakdown.by_load(runs)
    every = breakdown.interval(runs[0])
    assert every == 3
    for run in runs:
        rows = list(log.requests(run.run.id))
        counted = Counter(
            (row.episode, row.source, row.function, 3 * (row.at // 3_000_000)) for row in rows
        )
        mine = found[found["run"] == run.run.id]
        keys = mine[["episode", "node", "function", "begin_s"]].itertuples(index=False, name=None)
        assert dict(zip(keys, mine["requests"], strict=True)) == counted
        refused = (mine["refused_rate"] * mine["requests"]).sum()
        assert refused == pytest.approx(sum(row.outcome != "served" for row in rows))
    # resize is to be served 10 times a second at node 0, and is asked for 25 times.
    steady = found[(found["node"] == 0) & (found["function"] == "resize")]
    assert np.allclose(steady["offered_load"], 2.5, atol=0.05)


def test_shares_by_node_and_function_are_means_over_episodes(
    log: TaskLog, runs: list[ServingSummary]
) -> None:
    nodes, functions = breakdown.by_node(runs), breakdown.by_function(runs)
    rows = list(log.requests("slack"))
    for found, what in ((nodes, "source"), (functions, "function")):
        column = "node" if what == "source" else what
        mine = found[found["run"] == "slack"]
        assert set(mine[column]) == {getattr(row, what) for row in rows}
        for key, mean in zip(mine[column], mine["mean"], strict=True):
            shares = []
            for episode in (0, 1):
                own = [r for r in rows if getattr(r, what) == key and r.episode == episode]
                shares.append(sum(row.outcome != "served" for row in own) / len(own))
            assert mean == pytest.approx(sum(shares) / 2)
    hashed = functions[(functions["run"] == "slack") & (functions["function"] == "hash")]
    assert hashed["service_ms"].item() == 2.0
    assert 2.0 <= hashed["p50_ms"].item() <= hashed["p99_ms"].item()
    # 15 of 5 nodes in 90 s of 2 episodes.
    asked = sum(row.function == "hash" for row in rows)
    assert hashed["offered_load"].item() == pytest.approx(asked / (5 * 15 * SECONDS * 2))


def test_figures_have_what_the_frames_have(runs: list[ServingSummary]) -> None:
    found = breakdown.by_load(runs)
    values: tuple[Literal["refused_rate", "beyond_ms"], ...] = ("refused_rate", "beyond_ms")
    for value in values:
        figure = breakdown.load_drawn(found, value)
        assert figure is not None
        dots = figure.axes[0].collections
        places = found.groupby(["scheduler", "node", "function", "begin_s"]).ngroups
        offsets = [np.asarray(e.get_offsets()) for e in dots if isinstance(e, PathCollection)]
        drawn = sum(map(len, offsets))
        assert 0.9 * places < drawn <= places
        assert {text.get_text() for text in figure.legends[0].get_texts()} == {
            "slack",
            "all-local",
        }
    nothing = found.assign(beyond_ms=float("nan"))
    assert breakdown.load_drawn(nothing, "beyond_ms") is None
    (axes,) = breakdown.functions_drawn(breakdown.by_function(runs)).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["hash", "resize"]


def test_windows_tell_the_same_where_nothing_is_forwarded(
    tmp_path: Path, runs: list[ServingSummary]
) -> None:
    settings = [f"horizon.length={SECONDS}s", "log.requests=windows"]
    with open_task_log(tmp_path / "log.sqlite") as log:
        run = record_run(draw(load("dfaas-traces", settings)), log, scheduler="slack", episodes=2)
        fewer = summary_of(log, run)
        written = write_report(log, [run], tmp_path / "report")
    assert isinstance(fewer, ServingSummary)
    of_windows, of_requests = breakdown.by_function([fewer]), breakdown.by_function(runs[:1])
    assert of_windows["requests"].tolist() == of_requests["requests"].tolist()
    assert of_windows["mean"].tolist() == pytest.approx(of_requests["mean"].tolist())
    assert of_windows["p50_ms"].isna().all()
    assert {"load", "nodes", "functions"} <= set(written.figures)
    assert not {"load-times", "function-times"} & set(written.figures)


def test_the_page_has_the_parts(log: TaskLog, tmp_path: Path) -> None:
    written = write_report(log, ["slack", "all-local"], tmp_path / "report")
    assert {"load", "load-times", "nodes", "functions", "function-times"} <= set(written.figures)
    page = check_files(written.path)
    by_function = page.table("service, ms")
    assert [(row["function"], row["scheduler"]) for row in by_function] == [
        ("hash", "slack"),
        ("hash", "all-local"),
        ("resize", "slack"),
        ("resize", "all-local"),
    ]
