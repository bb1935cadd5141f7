"""``replay``: a logged run's tasks and fates under the same or another scheduler."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testbed.cli import main
from testbed.experiment.statistics import holm
from testbed.model.faults import Fault
from tests.cli.conftest import Command, environment, program

EPISODES = 5
SHORT = ["--set", "slots.count=15"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task log with one run."""
    log = tmp_path_factory.mktemp("log") / "tasklog.sqlite"
    run = ["sim", "quickstart", "-s", "ratc", "-e", str(EPISODES), "--first-episode", "3"]
    assert main.run([*run, *SHORT, "--storage", str(log), "--quiet"]) == 0
    return log


@pytest.fixture
def log(simulated: Path, home: Path) -> Path:
    """The same as the home's task log, to do with as one likes."""
    home.mkdir()
    return Path(shutil.copy(simulated, home / "tasklog.sqlite"))


def change(log: Path, statement: str, *values: object) -> None:
    """Change the log as a crash or an older version might have left it."""
    with closing(sqlite3.connect(log)) as database, database:
        assert database.execute(statement, values).rowcount


def runs(testbed: Command) -> list[dict[str, Any]]:
    return list(testbed("runs", "list", "--json").document)


def a_task(log: Path, where: str = "1") -> int:
    with closing(sqlite3.connect(log)) as database:
        return int(database.execute(f"SELECT task FROM tasks WHERE {where}").fetchone()[0])


def test_the_same_scheduler_repeats_every_task(testbed: Command, log: Path) -> None:
    original = runs(testbed)[0]

    said = testbed("replay", original["run"][:-2])
    document = testbed("replay", "--json", "--no-log").document

    assert said.code == 0, said.err
    assert f"all {original['tasks']} tasks took the same course" in said.out
    assert "points in every episode" in said.out
    changes = document["replays"][0]["changes"]
    assert changes["tasks"] == changes["same_course"] == original["tasks"]
    assert changes["moves"] == []
    assert document["replays"][0]["scheduler"] == "ratc"


def test_other_schedulers_are_stored_and_paired_in_compare(testbed: Command, log: Path) -> None:
    original = runs(testbed)[0]

    said = testbed("replay", "-s", "rda", "-s", "drl", "--label", "mine")
    compared = testbed("compare", "--json").document

    assert said.code == 0, said.err
    assert "rda against ratc: " in said.out
    assert "drl against ratc: " in said.out
    assert "the other way" in said.out
    assert "adjusted p: the 2 p values of these comparisons together" in said.out
    assert "rda (mine; replay)" in said.out
    stored = runs(testbed)[1:]
    assert [each["scheduler"] for each in stored] == ["rda", "drl"]
    assert {each["label"] for each in stored} == {f"mine; replay of {original['run']}"}
    assert {each["scenario_hash"] for each in stored} == {original["scenario_hash"]}
    assert {each["run"] for each in compared["runs"]} == {
        original["run"],
        *(each["run"] for each in stored),
    }
    assert all(len(pair["episodes"]) == EPISODES for pair in compared["pairs"])


def test_as_json(testbed: Command, log: Path) -> None:
    original = runs(testbed)[0]

    document = testbed("replay", "latest", "-s", "local", "--episode", "4", "--json").document

    assert list(document) == [
        *("original", "venue", "stored", "episodes", "left_out", "not_repeated"),
        *("repeated_by_hand", "replays", "histories"),
    ]
    assert document["original"]["run"] == original["run"]
    assert document["venue"] == "simulator"
    assert document["stored"] is True
    assert document["episodes"] == [4]
    assert document["left_out"] == document["not_repeated"] == document["histories"] == []
    (replay,) = document["replays"]
    assert list(replay["success_rate"]["by_episode"]) == ["4"]
    assert list(document["original"]["success_rate"]["by_episode"]) == ["4"]
    assert replay["difference"]["episodes"] == [4]
    assert replay["difference"]["p_value"] is None
    changes = replay["changes"]
    assert changes["tasks"] == replay["tasks"] == document["original"]["tasks"]
    assert changes["saved"] - changes["spoilt"] == (
        replay["outcomes"]["succeeded"] - document["original"]["outcomes"]["succeeded"]
    )
    assert changes["tasks"] - changes["same_outcome"] == sum(m["tasks"] for m in changes["moves"])


def test_p_values_of_several_replays_are_adjusted_together(testbed: Command, log: Path) -> None:
    both = testbed("replay", "-s", "rda", "-s", "local", "--no-log", "--json").document
    alone = testbed("replay", "-s", "rda", "--no-log", "--json").document

    found = [each["difference"] for each in both["replays"]]
    assert [each["p_adjusted"] for each in found] == holm([each["p_value"] for each in found])
    (single,) = (each["difference"] for each in alone["replays"])
    assert single["p_value"] == single["p_adjusted"] == found[0]["p_value"]
    assert single["low"] == single["simultaneous_low"] > found[0]["simultaneous_low"]


def test_a_replay_that_is_not_stored_leaves_the_log_as_it_was(testbed: Command, log: Path) -> None:
    before = runs(testbed)

    said = testbed("replay", "-s", "rda", "--no-log")

    assert said.code == 0, said.err
    assert "not stored" in said.err
    assert runs(testbed) == before


def test_without_a_run_it_is_the_latest_that_is_no_replay(testbed: Command, log: Path) -> None:
    original = runs(testbed)[0]["run"]

    assert testbed("replay", "-s", "rda", "--episode", "3").code == 0
    assert testbed("replay", "-s", "local", "--episode", "5").code == 0

    assert [each["label"] for each in runs(testbed)[1:]] == [f"replay of {original}"] * 2
    compared = testbed("compare")
    assert compared.code == 0, compared.err
    assert "rda" not in compared.out, "shares no episode with the latest"


def test_a_later_run_is_not_compared_with_replays(testbed: Command, log: Path) -> None:
    testbed("replay", "-s", "rda", "--episode", "3")
    testbed("sim", "quickstart", *SHORT, "-s", "local", "-e", "5", "--first-episode", "3")

    compared = testbed("compare", "--json").document

    assert {each["scheduler"] for each in compared["runs"]} == {"ratc", "local"}


def test_one_tasks_history_in_both(testbed: Command, log: Path) -> None:
    task = a_task(log, "episode = 5 AND destination <> source")

    said = testbed("replay", "-s", "local", "--task", task)
    document = testbed("replay", "-s", "drl", "--task", task, "--json", "--no-log").document

    assert said.code == 0, said.err
    lines = {line.split("  ")[0]: line for line in said.out.splitlines()}
    assert f"task {task} arrived in episode 5" in said.out
    assert "ratc" in lines["decided by"]
    assert "local" in lines["decided by"]
    assert "where it arrived" in lines["sent to"]
    for label in ("own queue", "answers", "transmission", "execution", "outcome", "why"):
        assert label in lines
    assert document["episodes"] == [5]
    first, second = document["histories"]
    assert first["task"] == second["task"]
    assert first["task"]["id"] == task
    assert first["scheduler"] == "ratc"
    assert second["scheduler"].startswith("drl:")
    assert len(second["decision"]["probabilities"]) == 5
    assert first["decision"]["answers"]
    assert first["events"][0]["kind"] == "generated"
    assert first["events"][-1]["data"]["outcome"] == first["outcome"]


@pytest.mark.parametrize("cut", ["slot > 7", "node IN (0, 1)"])
def test_an_episode_that_lacks_tasks_is_left_out(testbed: Command, log: Path, cut: str) -> None:
    cut = cut.replace("node", "source")
    change(log, f"DELETE FROM tasks WHERE episode = 7 AND {cut}")

    said = testbed("replay", "-s", "rda", "--json")

    assert said.document["episodes"] == [3, 4, 5, 6]
    (left_out,) = said.document["left_out"]
    assert left_out["episode"] == 7
    assert "are not in the log" in left_out["reason"]
    assert "episode 7 is not replayed" in said.err
    assert "7" not in said.document["replays"][0]["success_rate"]["by_episode"]
    assert testbed("replay", "--episode", "7").code == 2


def test_an_episode_in_the_middle_that_lacks_tasks_is_not_compared(
    testbed: Command, log: Path
) -> None:
    change(log, "DELETE FROM tasks WHERE episode = 5 AND slot > 3")

    document = testbed("replay", "-s", "rda", "--json").document

    assert document["episodes"] == [3, 4, 6, 7]
    assert document["replays"][0]["difference"]["episodes"] == [3, 4, 6, 7]


def test_tasks_that_the_plan_does_not_draw_are_noticed(testbed: Command, log: Path) -> None:
    change(log, "UPDATE tasks SET size_bytes = size_bytes + 1 WHERE episode = 4 AND slot = 2")

    said = testbed("replay", "-s", "rda", "--json")

    assert said.document["episodes"] == [3, 5, 6, 7]
    assert "not as its plan draws" in said.err


def test_of_a_run_that_was_stopped_only_whole_episodes(testbed: Command, log: Path) -> None:
    change(log, "UPDATE runs SET state = 'stopped', certificate = ?", '{"episodes_completed": 2}')

    said = testbed("replay", "-s", "rda", "--json")

    assert said.document["episodes"] == [3, 4]
    assert "episode 5 is not replayed: was cut short" in said.err


def test_many_episodes_that_are_missing_are_named_in_few_lines(testbed: Command, log: Path) -> None:
    change(log, "UPDATE runs SET episodes = 2000, state = 'interrupted'")

    said = testbed("replay", "-s", "rda", "--json")

    assert said.document["episodes"] == [3, 4, 5, 6, 7]
    assert len(said.document["left_out"]) == 1995
    assert "episodes 8 to 2002 are not replayed: no task is in the log" in said.err
    assert len([line for line in said.err.splitlines() if "not replayed" in line]) == 1


def test_what_was_done_by_hand_is_said_to_be_missing(testbed: Command, log: Path) -> None:
    done = {"accepted": True, "scheduler": "rda", "nodes": [0], "episode": 3, "slot": 2}
    certificate = {"scheduler_changes": [done], "dead_nodes": {"4": "no heartbeat"}}
    change(log, "UPDATE runs SET certificate = ?", json.dumps(certificate))

    said = testbed("replay", "--json")

    assert len(said.document["not_repeated"]) == 2
    assert "rda from episode 3, slot 2" in said.err
    assert "nodes left it while it ran (4)" in said.err


def test_faults_by_hand_are_repeated_and_both_runs_are_paired(testbed: Command, log: Path) -> None:
    down = Fault("node-down", 200_000, 700_000, nodes=(1,), mode="killed", number=1)
    noted = {"episode": 4, "id": down.id, "what": "node 1 killed", **down.to_document()}
    change(log, "UPDATE runs SET certificate = ?", json.dumps({"faults": [noted]}))
    first = runs(testbed)[0]["run"]

    said = testbed("replay", "-s", "rda", "--json")
    other = testbed("replay", "-s", "rda", "--episode", "5", "--no-log", "--json")
    pair = testbed("compare", "--json")

    assert said.code == 0, said.err
    assert "with the faults that were injected by hand: node 1 killed" in said.err
    assert said.document["repeated_by_hand"] == "node 1 killed"
    assert said.document["not_repeated"] == []
    assert other.document["repeated_by_hand"] == ""
    again = said.document["replays"][0]["run"]
    assert {run["run"] for run in pair.document["runs"]} == {first, again}
    assert pair.document["warnings"] == []
    shown = testbed("runs", "show", again)
    assert "by hand: node 1 killed, once in 1 episode" in shown.out
    # A replay of the replay meets them as well.
    assert testbed("replay", again, "--json").document["repeated_by_hand"] == "node 1 killed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["20000101"], "no run '20000101'"),
        (["--episode", "2"], "allowed: 3 to 7"),
        (["--episode", "4", "--task", "250"], "the task is in episode 3"),
        (["--task", "1"], "episode 0, slot 0, at node 1"),
        (["--task", "99999999"], "would have arrived in episode"),
        (["-s", "rda", "-s", "nope"], "unknown scheduler 'nope'"),
        (["-s", "rda", "-o", "unknown=1"], "unknown option"),
        (["-s", "rda", "--policy", "shipped/per-destination-v1"], "add --scheduler drl"),
        (["--policy", "nosuch"], "unknown policy"),
        (["-s", "rda", "--name", "nosuch"], "nosuch"),
        (["--name", "nosuch", "--no-log"], "leave one of them out"),
    ],
)
def test_what_cannot_be_replayed(
    testbed: Command, log: Path, arguments: list[str], told: str
) -> None:
    if "250" in arguments:
        arguments = [*arguments[:-1], str(a_task(log, "episode = 3"))]

    said = testbed("replay", *arguments)

    assert said.code == 2
    assert told in said.err
    assert "Traceback" not in said.err
    assert len(runs(testbed)) == 1, "nothing was begun"


def test_a_run_without_tasks(testbed: Command, log: Path) -> None:
    change(log, "DELETE FROM tasks")

    said = testbed("replay")

    assert said.code == 2
    assert "none of its episodes is complete" in said.err
    assert "episodes 3 to 7 are not replayed: no task is in the log" in said.err


def test_a_plan_of_another_version(testbed: Command, log: Path) -> None:
    change(log, "UPDATE runs SET plan = ?", '{"planVersion": 99}')

    said = testbed("replay")

    assert said.code == 2
    assert "plan version 99" in said.err


def test_a_policy_and_an_own_scheduler(
    testbed: Command, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "work" / "replay_own.py"
    own.write_text(
        "from testbed.model.decision import Decision\n"
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def __init__(self, context): self.node = context.node\n"
        "    def decide(self, observation): return Decision(self.node)\n"
    )
    monkeypatch.syspath_prepend(own.parent)

    document = testbed(
        *("replay", "-s", "local", "-s", "replay_own:Mine", "--episode", "3", "--json")
    ).document
    policy = testbed("replay", "--policy", "shipped/per-destination-v1", "--json").document

    local, mine = document["replays"]
    assert local["changes"] == mine["changes"]
    assert policy["replays"][0]["scheduler"] == "drl"


def test_an_interrupted_replay_says_what_it_kept(testbed: Command, home: Path) -> None:
    assert testbed("sim", "quickstart", "-s", "local", "-e", "40").code == 0
    arguments = ("replay", "-s", "least-completion", "-s", "central")
    with subprocess.Popen(
        program(*arguments), env=environment(home), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "episode 2/" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)

    assert process.returncode == 130
    stopped = runs(testbed)[-1]
    assert f"of 40 episodes; they are in the task log as run {stopped['run']}" in told
    assert stopped["state"] == "stopped"
    again = testbed("replay", stopped["run"], "--json").document
    assert 2 <= len(again["episodes"]) < 40
    assert again["replays"][0]["changes"]["same_course"] == again["original"]["tasks"]
