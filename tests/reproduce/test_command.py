"""``testbed reproduce`` from the command line to files that can be looked at."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from testbed.experiment.reproduce.definitions import FIGURES
from testbed.experiment.reproduce.methods import METHODS
from testbed.experiment.reproduce.page import Workplace
from testbed.experiment.reproduce.points import PointResult, PointStore
from testbed.experiment.reproduce.study import Study
from testbed.files import working_in
from tests.cli.conftest import Command, home, testbed

__all__ = ["home", "testbed"]

TINY = ("--log-episodes", 2, "--offline-steps", 4, "--online-episodes", 10)


def test_a_figure_is_computed_drawn_and_judged(testbed: Command, tmp_path: Path) -> None:
    out = tmp_path / "reproduction"
    sizes = ("--quick", "--topologies", 1, "-e", 2, "--jobs", 1, *TINY)

    said = testbed("reproduce", "fig3", "--out", out, *sizes)

    assert said.code == 0, said.err
    count = len(METHODS)
    assert f"{count} points to compute" in said.err
    assert f"{count}/{count}" in said.err
    assert "Fine-tuning online improves on the offline policy." in said.out
    short = (
        "These verdicts do not count, because this run is a short one: 2 instead of 500 episodes"
    )
    assert f"fig3: {short}" in said.err
    folder = out / "fig3"
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure.svg").read_text().count("<path") > 10
    with (folder / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == list(METHODS)
    with (folder / "curves.csv").open() as stream:
        curve = [row for row in csv.DictReader(stream) if row["method"] == "o2o"]
    assert [row["episodes"] for row in curve] == ["0", "10"]
    assert not list((out / "points" / "unfinished").iterdir())
    for page in ("index.html", "report.md"):
        text = (out / page).read_text()
        assert "RATC, masked" in text
        assert "fig3/figure.png" in text
        assert short in text
        assert "does not count: a short run" in text

    again = testbed("reproduce", "fig3", "--out", out, *sizes, "--json")

    assert again.code == 0, again.err
    assert f"{count} points are stored already" in again.err
    document = again.document["figures"][0]
    assert document == json.loads((folder / "result.json").read_text())
    assert document["points"] == {"stored": count, "wanted": count}
    assert document["interval_over"] == "episodes"
    assert not document["counts"]
    assert [each["online_episodes"] for each in document["leads"]] == [0, 10]
    assert all(each["low"] is None for each in document["leads"])
    assert "after so many online episodes" in (out / "report.md").read_text()
    assert "after so many online episodes" in (out / "index.html").read_text()
    rates = {row["method"]: row["success_rate"] for row in document["rates"]}
    assert rates["random"] < rates["oracle"] <= rates["bound"]


def test_what_is_stored_is_drawn_without_the_rest(testbed: Command, tmp_path: Path) -> None:
    study = Study(networks=3, episodes=2)
    store = PointStore(tmp_path / "out" / "points")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reproduce.json").write_text("{}")
    for setting, point in study.points(FIGURES["fig5b"]):
        if point.method in {"ratc", "rda"}:
            better = (point.method == "ratc") == (setting.x < "0.8")
            rate = 0.9 + 0.005 * better - 0.1 * float(setting.x)
            assert point.network.seed is not None
            store.put(point, PointResult((rate, rate + 0.001 * point.network.seed / 500)))

    said = testbed("reproduce", "fig5b", "--out", tmp_path / "out", "--topologies", 3, "-e", 2,
                   "--draw", "--json")  # fmt: skip

    assert said.code == 0, said.err
    document = said.document["figures"][0]
    wanted = 3 * 5 * len(METHODS)
    assert document["points"] == {"stored": 30, "wanted": wanted}
    assert document["counts"]
    found = {finding["claim"]: finding["verdict"] for finding in document["findings"]}
    judged = {claim: verdict for claim, verdict in found.items() if verdict != "not run"}
    assert list(judged.values()) == ["agrees so far", "agrees", "agrees"]
    assert f"{wanted - 30} points are missing" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fig7",), "one of fig3, fig4, fig5a"),
        (("fig3", "--topologies", 0), "--topologies"),
        (("fig3", "--recipe", "secret"), "one of default, paper"),
        (("fig3", "--network"), "fig8 alone"),
        (("fig8", "--network", "--time-scale", 0), "--time-scale"),
        (("fig3", "--draw"), "holds no results of `testbed reproduce`"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_written(
    testbed: Command, tmp_path: Path, arguments: tuple[object, ...], says: str
) -> None:
    said = testbed("reproduce", *arguments, "--out", tmp_path / "out")

    assert said.code == 2
    assert says in said.err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(testbed: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")

    said = testbed("reproduce", "fig3", "--out", tmp_path)

    assert said.code == 2
    assert [each.name for each in tmp_path.glob("*.json")] == []


def test_two_reproductions_do_not_work_in_one_folder(testbed: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Workplace(out).claim()
    arguments = ("reproduce", "fig3", "-m", "ratc", "--topologies", 1, "-e", 2, "--out", out)

    with working_in(out, "reproduction"):
        said = testbed(*arguments)
        drawn = testbed(*arguments, "--draw")

    assert said.code == 2
    assert f"another reproduction is working in {out}" in said.err
    assert drawn.code == 0, drawn.err
    assert not (out / "points").exists()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_figure_of_the_testbed_is_also_made_on_the_network(
    testbed: Command, tmp_path: Path
) -> None:
    # Faster than the machine can be faithful; that is not what is tested here.
    said = testbed("reproduce", "fig8", "--network", "--quick", "--topologies", 1, "-e", 2, *TINY,
                   "-m", "o2o", "-m", "ratc", "-m", "bound", "--time-scale", 0.2,
                   "--include-invalid", "--out", tmp_path / "out", "--json")  # fmt: skip

    assert said.code == 0, said.err
    (document,) = said.document["figures"]
    assert document["settings"]["driver"] == "network"
    assert document["points"] == {"stored": 9, "wanted": 9}
    assert document["x"] == ["1000", "2000", "3000"]
    assert all(0.0 < row["success_rate"] <= 1.0 for row in document["rates"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "run on the real network at time scale 0.2" in text
    assert "Runs outside their limits of fidelity were not refused." in text


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_quick_run_finds_what_is_certain(testbed: Command, tmp_path: Path) -> None:
    said = testbed("reproduce", "fig5b", "fig4", "--out", tmp_path / "out", "--quick", "--json")

    assert said.code == 0, said.err
    load, logs = said.document["figures"]
    if load["figure"] != "fig5b":
        load, logs = logs, load
    assert all(each["points"]["stored"] == each["points"]["wanted"] for each in (load, logs))
    assert not load["counts"]
    found = {finding["claim"]: finding for finding in load["findings"]}
    falls = found["The success rate of every method falls as more tasks arrive."]
    lines = {each["what"]: each["verdict"] for each in falls["comparisons"]}
    for method in ("RATC", "RDA", "Random"):
        assert lines[f"{method}, line through 3 settings, 0.6 to 1.0"] == "agrees"
    rates = {(row["x"], row["method"]): row["success_rate"] for row in load["rates"]}
    for x in load["x"]:
        assert rates[x, "random"] < rates[x, "ratc"] < rates[x, "oracle"] <= rates[x, "bound"]
        assert rates[x, "per-destination"] > rates[x, "rda-masked"]
