"""``testbed reproduce dfaas``: its cases, what is said of them, and the files to look at."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from testbed.experiment.reproduce.papers import dfaas
from testbed.experiment.reproduce.requests import (
    Case,
    CaseResult,
    CaseStore,
    Check,
    Statement,
    play_all,
    simulated,
)
from testbed.experiment.reproduce.requests_page import rates_over_time, write
from tests.cli.conftest import Command, home, testbed

__all__ = ["home", "testbed"]

CASES = {case.name: case for case in dfaas.SIMULATED}


@pytest.fixture(scope="module")
def results() -> Mapping[str, CaseResult]:
    return {name: simulated(case) for name, case in CASES.items()}


@pytest.mark.parametrize("statement", dfaas.STATEMENTS, ids=lambda each: each.text[:50])
def test_what_the_paper_says_comes_out(
    statement: Statement, results: Mapping[str, CaseResult]
) -> None:
    finding = statement.judge(results)
    assert finding["verdict"] == "agrees", finding["found"]
    assert len(finding["comparisons"]) >= 1


def test_every_case_is_needed_by_a_statement_and_has_its_own_key() -> None:
    needed = {name for statement in dfaas.STATEMENTS for name in statement.cases}
    assert needed == CASES.keys()
    assert len({case.key for case in CASES.values()}) == len(CASES)
    assert set(dfaas.QUICK) <= CASES.keys()
    quick = dfaas.chosen(network=False, quick=True)
    assert {name for each in quick.statements for name in each.cases} == set(dfaas.QUICK)


@pytest.mark.parametrize("quick", [False, True])
def test_the_cases_of_the_network_are_judged_by_what_came_out(quick: bool) -> None:
    """Played in the simulator here: what their statements say is of any driver."""
    [case] = (chosen := dfaas.chosen(network=True, quick=quick)).cases
    plan = case.plan()
    assert plan.network.expiry >= plan.timetable.period
    played = simulated(case)
    found = [each.judge({case.name: played})["verdict"] for each in chosen.statements]
    assert found == ["agrees"] * 3
    late = dataclasses.replace(
        played, disagreeing=1, answered={0: {**played.answered[0], "node 1": (0,) * 150}}
    )
    found = [each.judge({case.name: late})["verdict"] for each in chosen.statements]
    assert found == ["differs", "agrees", "differs"]


def test_a_statement_differs_by_any_number_outside_its_tolerance() -> None:
    result = CaseResult({0: {"node 0": (10, 12), "503": (1, 0)}})
    statement = Statement(
        "It is so.",
        ("one",),
        lambda found: [
            Check("first", found["one"].per_second(0, "node 0", 0, 2), 11, 0.5),
            Check("second", found["one"].total("503"), 0, 0),
            Check("third", found["one"].total("502"), 0, 0),
        ],
    )
    finding = statement.judge({"one": result})
    assert finding["verdict"] == "differs"
    assert finding["found"] == "second: 1 (expected 0)."
    assert statement.judge({})["verdict"] == "not run"


def test_a_case_is_played_once_and_found_again(tmp_path: Path) -> None:
    store = CaseStore(tmp_path)
    case = Case("short", "dfaas", ("horizon.length=3s", "routing.offset=1s"))
    seen: list[tuple[int, int, int]] = []
    for _ in range(2):
        play_all([case], store, lambda told: seen.append((told.done, told.total, told.stored)))
    assert seen == [(0, 1, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1)]
    stored = store.get(case)
    assert stored == simulated(case)
    assert stored is not None
    assert (stored.seconds, stored.total("503")) == (3, 120)
    [file] = tmp_path.iterdir()
    file.write_text("{")
    assert store.get(case) is None


def test_page_figure_and_table_say_what_came_out(
    tmp_path: Path, results: Mapping[str, CaseResult]
) -> None:
    cases = (CASES[dfaas.FIGURE], CASES["unknown sender"])
    only = {dfaas.FIGURE: results[dfaas.FIGURE]}
    document = write(tmp_path, "A title", "A remark.", cases, only, dfaas.STATEMENTS, cases[0].name)
    assert document == json.loads((tmp_path / "result.json").read_text())
    assert document["missing"] == ["unknown sender"]
    assert [each["verdict"] for each in document["findings"]][:5] == ["agrees"] * 4 + ["not run"]
    page, report = (tmp_path / "index.html").read_text(), (tmp_path / "report.md").read_text()
    for text in ("A title", "A remark.", "agrees", "503: 2400"):
        assert text in page
        assert text in report
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sum(int(row["requests"]) for row in rows) == 15_000
    [axes] = rates_over_time(only[dfaas.FIGURE]).axes
    assert [line.get_label() for line in axes.lines] == [
        "node 0",
        "node 1",
        "node 2",
        "503, no peer",
    ]
    assert np.asarray(axes.lines[2].get_ydata())[59:61].tolist() == [0, 24]


def test_the_command_writes_the_page_and_goes_on_where_it_stopped(
    testbed: Command, tmp_path: Path
) -> None:
    out = tmp_path / "reproduction"
    said = testbed("reproduce", "dfaas", "--quick", "--out", out)
    assert said.code == 0, said.err
    assert "4/4" in said.err
    assert "Once load is balanced, no more 503 occur." in said.out
    assert "testbed reproduce dfaas" in said.err + said.out
    again = testbed("reproduce", "dfaas", "--quick", "--out", out, "--json")
    assert "4 points are stored already" in again.err
    assert {each["verdict"] for each in again.document["findings"]} == {"agrees"}
    assert Path(again.document["page"]).is_file()


def test_options_that_mean_nothing_here_are_refused(testbed: Command, tmp_path: Path) -> None:
    said = testbed("reproduce", "dfaas", "fig3", "-e", 3, "--out", tmp_path / "out")
    assert said.code == 2
    assert "FIGURE: given; leave it out" in said.err
    assert "--episodes: given; leave it out" in said.err
    assert not (tmp_path / "out").exists()


def test_seconds_of_a_horizon_that_is_no_whole_number_of_them() -> None:
    result = simulated(Case("odd", "dfaas", ("horizon.length=2500ms", "routing.offset=1s")))
    assert (result.seconds, result.total("node 0"), result.total("503")) == (3, 30, 95)
