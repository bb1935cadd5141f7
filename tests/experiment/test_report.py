from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text

from testbed.errors import PermanentError, UsageError
from testbed.experiment import figures
from testbed.experiment.comparison import compare_runs
from testbed.experiment.frames import flows, queue_lengths
from testbed.experiment.report import DRAWING, READING, write_report
from testbed.experiment.summary import RunSummary, summarise
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.sim.record import About, record_run
from testbed.storage.tasklog import TaskLog, open_task_log
from tests.experiment.pages import check_files, checked

EPISODES = 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    """A log with ratc and local on the same tasks, and local on others."""
    with open_task_log(str(tmp_path_factory.mktemp("log") / "log.sqlite")) as opened:
        same = plan(load("quickstart", ["slots.count=12"]))
        other = plan(load("quickstart", ["slots.count=12", "seeds=9"]))
        record_run(same, opened, scheduler="ratc", episodes=EPISODES)
        record_run(same, opened, scheduler="local", episodes=EPISODES)
        record_run(other, opened, scheduler="local", episodes=EPISODES)
        record_run(same, opened, scheduler="local", episodes=EPISODES, first_episode=100)
        yield opened


@pytest.fixture(scope="module")
def ids(log: TaskLog) -> list[str]:
    return [run.id for run in log.runs()]


def test_a_summary_says_what_the_log_holds(log: TaskLog, ids: list[str]) -> None:
    summary = summarise(log, ids[0])
    rows = list(log.tasks(ids[0]))
    succeeded = sum(row.outcome == "succeeded" for row in rows)
    assert summary.outcomes["succeeded"] == succeeded
    assert sum(summary.outcomes.values()) == len(rows)
    first = [row.outcome == "succeeded" for row in rows if row.episode == 0]
    assert summary.by_episode[0] == pytest.approx(sum(first) / len(first))
    assert summary.success_rate.count == EPISODES
    away = [row for row in rows if row.destination is not None and row.destination != row.source]
    assert summary.offloaded == pytest.approx(len(away) / len(rows), abs=0.02)
    means = summary.times["mean_ms"]
    assert means["deciding"] == pytest.approx(2.0), "a probe and its answer, 1 ms each way"
    assert means.drop("total").sum() == pytest.approx(means["total"], rel=1e-6)


def test_no_time_is_negative_however_long_stages_were_measured(
    tmp_path: Path, log: TaskLog, ids: list[str]
) -> None:
    """On a network a stage takes longer than the model says, which ``elapsed`` is counted by."""
    path = tmp_path / "log.sqlite"
    with open_task_log(str(path)) as opened:
        record_run(log.run(ids[0]).plan, opened, scheduler="ratc", episodes=EPISODES)
        before = summarise(opened, opened.run("latest").id).times
        with closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE tasks SET execution = execution + 9000, transmission = 50000")
            database.commit()
        after = summarise(opened, opened.run("latest").id).times

    assert (after >= 0).all(axis=None)
    unchanged = ["deciding", "transmission_waiting", "execution_waiting", "total"]
    assert after.loc[unchanged].equals(before.loc[unchanged])
    assert after["mean_ms"]["execution"] == pytest.approx(before["mean_ms"]["execution"] + 9)


def test_flows_are_shares_of_the_tasks_of_a_node(log: TaskLog, ids: list[str]) -> None:
    size = log.run(ids[0]).plan.topology.size
    local = flows(summarise(log, ids[1]), size)
    assert local.trace() == pytest.approx(size), "every task of `local` stays where it arrived"
    sent = flows(summarise(log, ids[0]), size)
    assert sent.trace() < size
    assert sent.sum(axis=1) == pytest.approx([1.0] * size)


def test_queue_lengths_have_every_slot_of_every_node(log: TaskLog, ids: list[str]) -> None:
    size = log.run(ids[0]).plan.topology.size
    lengths = queue_lengths(log, ids[0])
    assert len(lengths) == EPISODES * 12 * size
    assert lengths["queue_length"].max() > 1


def test_runs_that_met_the_same_tasks_are_compared(log: TaskLog, ids: list[str]) -> None:
    comparison = compare_runs(log, ids[:2])
    (pair,) = comparison.pairs
    assert pair.first.run.info.scheduler == "ratc"
    assert pair.comparison.real is True
    assert "ratc is better than local" in pair.verdict
    assert [row[1] for row in comparison.table()] == ["ratc", "local"]
    json.dumps(comparison.document, allow_nan=False)


@pytest.mark.parametrize(("other", "said"), [(2, "quickstart"), (3, "--first-episode")])
def test_runs_that_met_other_tasks_are_not_compared(
    log: TaskLog, ids: list[str], other: int, said: str
) -> None:
    with pytest.raises(UsageError, match="met different tasks") as refused:
        compare_runs(log, [ids[0], ids[other]])
    assert said in str(refused.value)


def test_a_comparison_needs_two_runs(log: TaskLog, ids: list[str]) -> None:
    with pytest.raises(UsageError, match="two different runs"):
        compare_runs(log, [ids[0], ids[0]])


def test_a_report_holds_page_figures_tables_and_document(
    log: TaskLog, ids: list[str], tmp_path: Path
) -> None:
    said: list[tuple[str, int, int]] = []
    report = write_report(log, ids[:2], tmp_path / "out", lambda *told: said.append(told))
    page = report.path.read_text()
    assert "ratc is better than local" in page
    assert list(report.figures) == [
        *("differences", "success-rate", "outcomes", "load", "nodes", "processors", "sizes"),
        *("latency", "links", "queues", "topology"),
    ]
    assert page.count("<figure>") == len(report.figures)
    check_files(report.path)
    summary = pd.read_csv(report.tables["summary"])
    assert list(summary["scheduler"]) == ["ratc", "local"]
    assert summary["success rate"][0] == pytest.approx(summarise(log, ids[0]).success_rate.mean)
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert document["comparison"]["pairs"][0]["real"] is True
    tasks = sum(run["tasks"] for run in document["runs"])
    assert said[0] == (READING, 0, tasks)
    assert (READING, tasks, tasks) in said
    assert [done for part, done, _ in said if part == DRAWING] == list(range(12))


def test_the_page_says_what_compare_says(log: TaskLog, ids: list[str], tmp_path: Path) -> None:
    runs = [*ids[:2], record_run(log.run(ids[0]).plan, log, scheduler="rda", episodes=EPISODES)]
    page = checked(write_report(log, runs, tmp_path / "out").path)
    compared = compare_runs(log, runs)

    shown = {row["scheduler"]: row for row in page.table("success rate, %")}
    for run, scheduler, driver, episodes, rate, _, _ in compared.table():
        row = shown[scheduler]
        assert (row["run"], row["driver"], row["episodes"]) == (run, driver, episodes)
        assert f"{row['success rate, %']} %" == rate
        assert row["95 % interval"].split(" to ") == next(
            each[5].split(" .. ") for each in compared.table() if each[0] == run
        )
    rows = page.table("adjusted p")
    assert len(rows) == len(compared.pairs) == 3
    for row, pair in zip(rows, compared.pairs, strict=True):
        found = pair.document
        assert row["difference"] == f"{pair.first.title} − {pair.second.title}"
        assert row["mean, points"] == f"{100 * found['difference']:.1f}"
        low, high = (f"{100 * found[end]:.1f}" for end in ("low", "high"))
        assert row["95 % interval"] == f"{low} to {high}"
        assert row["adjusted p"] == f"{found['p_adjusted']:.2g}"
        assert row["could show, points"] == f"{100 * found['detectable']:.1f}"
        assert (row["verdict"] == "significant") is found["real"]
    data = pd.read_csv(tmp_path / "out" / "figures" / "differences.csv")
    assert data["p_adjusted"].tolist() == [pair.comparison.p_adjusted for pair in compared.pairs]
    text = (tmp_path / "out" / "index.html").read_text()
    assert "3 p values of the paired t tests are adjusted together by the method of Holm" in text


def test_the_page_says_how_it_was_made(log: TaskLog, ids: list[str], tmp_path: Path) -> None:
    scenario = "storage: {url: 'mysql://user:secret@host/log'}"
    drawn = log.run(ids[0]).plan
    run = record_run(drawn, log, scheduler="rda", episodes=1, about=About(scenario=scenario))
    page = write_report(log, [ids[0], run], tmp_path / "out").path
    text = page.read_text()
    assert f"testbed report {ids[0]} {run}" in text
    assert "mysql://user@host/log" in text
    assert "secret" not in text
    row = checked(page).table("seeds")[0]
    assert row["scenario"] == f"quickstart [{drawn.scenario_hash[:12]}]"
    assert f"workload {drawn.seeds.workload}" in row["seeds"]
    assert "edge-testbed" in row["versions"] or "python" in row["versions"]


def test_a_single_run_has_no_empty_cells(log: TaskLog, ids: list[str], tmp_path: Path) -> None:
    run = record_run(log.run(ids[0]).plan, log, scheduler="local", episodes=1)
    page = checked(write_report(log, [run], tmp_path / "out").path)
    assert page.table("success rate, %")[0]["95 % interval"] == "–"


@pytest.mark.browser
def test_the_page_fits_a_telephone(log: TaskLog, ids: list[str], tmp_path: Path) -> None:
    from tests.services.chromium import browser

    page = write_report(log, ids[:2], tmp_path / "out").path
    with browser() as opened:
        for width in (400, 1200):
            tab = opened.new_page(viewport={"width": width, "height": 900})
            tab.goto(page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # Tables that are wider can be moved on their own, and time lines can be zoomed.
        held = "[...document.querySelectorAll('table')].every(each => each.closest('.wide'))"
        assert tab.evaluate(held)
        line = tab.locator(".timeline svg").first
        before = line.get_attribute("viewBox")
        tab.locator(".timeline button").first.click()
        assert line.get_attribute("viewBox") != before


def test_long_names_of_runs_do_not_overlap(log: TaskLog, ids: list[str]) -> None:
    summary = summarise(log, ids[0])
    info = replace(summary.run.info, scheduler="least-completion", label="with a longer label")
    named = [RunSummary(replace(summary.run, info=info), summary.columns)] * 4
    figure = figures.success_rates(named)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 4
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))


def test_of_a_very_long_label_the_beginning_is_drawn(log: TaskLog, ids: list[str]) -> None:
    """Labels have a bound today; logs of earlier versions and of other programs may have any."""
    summary = summarise(log, ids[0])
    info = replace(summary.run.info, label="once more, with feeling; " * 4_000)
    named = RunSummary(replace(summary.run, info=info), summary.columns)
    assert len(named.title) > 100_000
    drawn = [
        figures.success_rates([named, summary]),
        figures.outcome_shares([named, summary]),
        figures.latency_breakdown([named, summary]),
        figures.queues_over_time([(named, queue_lengths(log, ids[0]))]),
        figures.topology(summary.run.plan.topology, named),
    ]
    for figure in drawn:
        texts = [text.get_text() for text in figure.findobj(Text)]
        assert any("ratc (once more," in text.replace("\n", " ") for text in texts)
        assert max(map(len, texts)) < 200


def test_nodes_of_a_matrix_of_links_have_whole_numbers() -> None:
    network = plan(load("paper-simulation")).topology
    figure = figures.topology(network)
    rates = figure.axes[1]
    assert all(float(tick).is_integer() for tick in (*rates.get_xticks(), *rates.get_yticks()))


def test_a_figure_of_flows_says_whose_they_are(log: TaskLog, ids: list[str]) -> None:
    summary = summarise(log, ids[0])
    figure = figures.topology(summary.run.plan.topology, summary)
    assert "under ratc" in figure.axes[0].get_title(loc="left")


def test_runs_of_different_scenarios_stand_side_by_side(
    log: TaskLog, ids: list[str], tmp_path: Path
) -> None:
    report = write_report(log, [ids[0], ids[2]], tmp_path / "out")
    assert report.document["comparison"] is None
    assert "not compared" in report.path.read_text()


def test_a_report_replaces_a_report_and_nothing_else(
    log: TaskLog, ids: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_report(log, ids[:1], out)
    (out / "stale.txt").write_text("of the earlier report")
    write_report(log, ids[:1], out)
    assert not (out / "stale.txt").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("keep me")
    with pytest.raises(UsageError, match="not of a report"):
        write_report(log, ids[:1], other)
    assert (other / "thesis.tex").read_text() == "keep me"


def test_a_folder_that_cannot_be_made_leaves_nothing(
    log: TaskLog, ids: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="choose another folder"):
        write_report(log, ids[:1], tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
