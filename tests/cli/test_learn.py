"""``testbed learn``: in the simulator it gets better; on real nodes it learns, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.cli.learn import _Teller
from testbed.experiment.live.venue import Step
from testbed.policies import load
from tests.cli.conftest import Command, Shell

SMALL = ("--set", "nodes.count=4", "--set", "slots.count=20")
QUICK = ("--update", 10, "--gate", 4, "--patience", 0)


def test_in_the_simulator_it_improves_on_ratc_from_logs_of_ratc(
    testbed: Command, home: Path
) -> None:
    setting = ("--set", "seeds.topology=202", "--set", "slots.count=30")
    said = testbed(
        *("learn", "paper-testbed", "--simulate", *setting, "--json"),
        *("--episodes", 90, "--update", 20, "--gate", 12),
    )
    assert said.code == 0, said.err
    document = said.document
    assert (document["ended"], document["curve"][0]["policy"]) == ("budget", "ratc")
    best = next(row for row in document["curve"] if row["best"])
    # Measured: more than 5 points; RATC is weak where nodes are overloaded.
    assert best["above_start"] > 0.02
    assert all(
        row["above_start_high"] > 0 for row in document["curve"] if row["verdict"] == "accepted"
    ), "nothing that was accepted is below RATC beyond noise"
    card = load(str(home / "artifacts"), document["best"]).card
    assert (card.asks, card.encoder) == ("state", "per-destination-v2")
    listed = testbed("runs", "list", "--label", "learn sim-paper-testbed", "--json").document
    assert {run["run"] for run in listed} == set(document["runs"].values())
    folder = home / "learn" / "sim-paper-testbed"
    assert {each.name for each in folder.iterdir()} >= {"learn.json", "curve.csv", "curve.svg"}


@pytest.mark.parametrize("start", ["random", "shipped"])
def test_every_start_runs_and_a_larger_budget_continues(
    testbed: Command, tmp_path: Path, start: str
) -> None:
    common = ("learn", "quickstart", "--simulate", *SMALL, *QUICK, "--start", start, "--json")
    first = testbed(*common, "--episodes", 20, "--out", tmp_path / "out")
    assert first.code == 0, first.err
    assert first.document["episodes"] <= 20
    more = testbed(*common, "--episodes", 34, "--out", tmp_path / "out")
    assert more.code == 0, more.err
    assert len(more.document["curve"]) == len(first.document["curve"]) + 1
    assert first.document["runs"].items() <= more.document["runs"].items()
    begins = more.document["curve"][0]["policy"]
    assert begins.startswith({"random": "policies/learned-", "shipped": "shipped/"}[start])


def test_what_cannot_be_learned_is_refused(testbed: Command, tmp_path: Path) -> None:
    said = testbed("learn", "quickstart")
    assert (said.code, "--simulate" in said.err) == (2, True)
    said = testbed("learn", "quickstart", "--simulate", "--start", "nothing")
    assert (said.code, "learn.start" in said.err) == (2, True)
    said = testbed("learn", "--name", "nosuch")
    assert said.code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    said = testbed("learn", "quickstart", "--simulate", "--out", tmp_path / "full")
    assert (said.code, "is not empty" in said.err) == (2, True)


@pytest.mark.long
def test_on_real_nodes_it_learns_and_leaves_the_best_policy_deployed(shell: Shell) -> None:
    delays = "links.controlDelay={uniform: [1ms, 5ms]}"
    up = shell("up", "quickstart", *SMALL, "--set", "slots.count=10", "--set", delays)
    assert up.code == 0, up.err
    common = ("learn", *QUICK, "--include-invalid", "--json")
    said = shell(*common, "--episodes", 20)
    assert said.code == 0, said.err
    document = said.document
    assert document["curve"][0]["verdict"] == "start"
    assert document["curve"][1]["policy"].startswith("policies/learned-")
    again = shell(*common, "--episodes", 34)
    assert again.code == 0, again.err
    assert document["runs"].items() <= again.document["runs"].items()
    status = shell("status", "--json").document
    best = again.document["best"]
    assert best == "ratc" or status["policy"] == best
    listed = shell("runs", "list", "--label", "learn default", "--json").document
    assert len(listed) >= len(again.document["runs"])
    # What a learned policy decided is in the log under its id.
    built = shell("dataset", "build", *[run["run"] for run in listed][:1], "--include-invalid")
    assert built.code == 0, built.err


def test_progress_is_told_seldom_with_the_time_left_and_results_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = [0.0]
    teller = _Teller(every=5.0, now=lambda: clock[0])
    for at, done, notable in ((0, 0, False), (10, 20, False), (11, 22, False), (12, 24, True)):
        clock[0] = float(at)
        teller(Step(done, 100, f"at {at}", notable))
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == ["20 of 100 episodes", "24 of 100 episodes"]
    assert told[0].endswith("at 10; 40 s left")
