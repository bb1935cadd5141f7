"""``tasks`` and ``task``: single tasks of a run."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from testbed.cli import main
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task log with one run."""
    log = tmp_path_factory.mktemp("log") / "tasklog.sqlite"
    run = ["sim", "quickstart", "-s", "local", "-e", "2", "--set", "slots.count=20"]
    assert main.run([*run, "--storage", str(log), "--quiet"]) == 0
    return log


@pytest.fixture
def log(simulated: Path, home: Path) -> Path:
    """The same as the home's task log, to do with as one likes."""
    home.mkdir()
    return Path(shutil.copy(simulated, home / "tasklog.sqlite"))


def test_all_tasks_in_order_and_no_more_than_asked_for(testbed: Command, log: Path) -> None:
    every = testbed("tasks", "--limit", "0", "--json").document
    said = testbed("tasks", "--limit", "3")

    assert [each["task_id"] for each in every] == sorted(each["task_id"] for each in every)
    assert len(every) == testbed("runs", "show", "--json").document["tasks"]
    assert len(said.out.splitlines()) == 1 + 3
    assert f"{len(every) - 3} more are not shown" in said.err
    assert f"next: testbed task {testbed('runs', 'show', '--json').document['run']} " in said.err


def test_filters(testbed: Command, log: Path) -> None:
    every = testbed("tasks", "--limit", "0", "--json").document

    def listed(*arguments: object) -> list[int]:
        found = testbed("tasks", "latest", *arguments, "--limit", "0", "--json").document
        return [each["task_id"] for each in found]

    assert listed("--outcome", "dropped") == [
        each["task_id"] for each in every if each["outcome"] == "dropped"
    ]
    assert listed("--outcome", "dropped", "--outcome", "execution_failed", "--node", "3") == [
        each["task_id"]
        for each in every
        if each["outcome"] in ("dropped", "execution_failed")
        and 3 in (each["source"], each["destination"])
    ]
    assert listed("--episode", "1") == [each["task_id"] for each in every if each["episode"] == 1]
    longest = sorted((each["elapsed"] for each in every), reverse=True)[:5]
    slowest = testbed("tasks", "--slowest", "5", "--json").document
    assert [each["elapsed"] for each in slowest] == longest


def test_every_end_has_its_reason(testbed: Command, log: Path) -> None:
    for each in testbed("tasks", "--limit", "0", "--json").document:
        told = {
            "succeeded": "before its deadline",
            "dropped": "left" if each["elapsed"] < each["deadline"] else "its deadline passed",
            "execution_failed": f"node {each['destination']} failed while executing it after",
        }[each["outcome"]]
        assert told in each["why"]


def test_a_task(testbed: Command, log: Path) -> None:
    dropped = testbed("tasks", "--outcome", "dropped", "--json").document[0]

    said = testbed("task", "latest", dropped["task_id"])
    document = testbed("task", "latest", dropped["task_id"], "--json").document

    assert said.code == 0, said.err
    assert f"task {dropped['task_id']} arrived in episode {dropped['episode']}" in said.out
    assert dropped["why"] in said.out
    assert "generated" in said.out
    assert "--what-if" in said.err
    assert document["outcome"] == "dropped"
    assert document["why"] == dropped["why"]
    assert "alternatives" not in document


def test_what_other_destinations_would_have_given(testbed: Command, log: Path) -> None:
    dropped = testbed("tasks", "--outcome", "dropped", "--json").document[0]

    said = testbed("task", "latest", dropped["task_id"], "--what-if")
    document = testbed("task", "latest", dropped["task_id"], "--what-if", "--json").document

    assert f"node {dropped['source']} (chosen)" in said.out
    alternatives = document["alternatives"]
    assert [each["destination"] for each in alternatives] == [0, 1, 2, 3, 4]
    (taken,) = (each for each in alternatives if each["taken"])
    assert (taken["outcome"], taken["elapsed"]) == ("dropped", dropped["elapsed"])
    assert taken["others"] == 0
    assert any(each["outcome"] == "succeeded" for each in alternatives)


def test_a_task_whose_node_told_nothing(testbed: Command, log: Path) -> None:
    """As a run whose node was killed leaves it: no row, no decision, the first records only."""
    task = testbed("tasks", "--limit", "1", "--json").document[0]["task_id"]
    with closing(sqlite3.connect(log)) as database, database:
        database.execute("DELETE FROM tasks WHERE task = ?", (task,))
        database.execute("DELETE FROM decisions WHERE task = ?", (task,))
        first = "records = 1, steps = json_array(json_extract(steps, '$[0]'))"
        database.execute(f"UPDATE histories SET {first} WHERE task = ?", (task,))

    said = testbed("task", "latest", task)

    assert said.code == 0, said.err
    assert "not in the log" in said.out
    assert "a failure of the testbed" in said.out


def test_what_own_code_failed_at_is_the_reason(
    testbed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "work" / "tasks_own.py"
    own.write_text(
        "from testbed.model.decision import Decision\n"
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def __init__(self, context): self.node = context.node\n"
        "    def decide(self, observation):\n"
        "        if observation.slot == 4: raise KeyError('nowhere')\n"
        "        return Decision(self.node)\n"
    )
    monkeypatch.syspath_prepend(own.parent)
    testbed("sim", "quickstart", "-s", "tasks_own:Mine", "-e", "1", "--set", "slots.count=10")

    lost = testbed("tasks", "--outcome", "lost", "--json").document
    said = testbed("task", "latest", lost[0]["task_id"], "--what-if")
    replayed = testbed("replay", "--json").document

    assert all(each["slot"] == 4 for each in lost)
    assert "nowhere" in lost[0]["why"]
    assert "tasks_own.py" in said.out
    assert "(chosen)" not in said.out
    assert replayed["replays"][0]["changes"]["same_course"] == replayed["original"]["tasks"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tasks", "20000101"], "no run '20000101'"),
        (["tasks", "--node", "5"], "allowed: 0 to 4"),
        (["tasks", "--outcome", "nope"], "nope"),
        (["task", "latest", "99999999"], "has no task 99999999"),
    ],
)
def test_what_is_not_there(testbed: Command, log: Path, arguments: list[str], told: str) -> None:
    said = testbed(*arguments)

    assert said.code == 2
    assert told in said.err
    assert "Traceback" not in said.err


def test_no_such_task_is_no_error(testbed: Command, log: Path) -> None:
    assert testbed("tasks", "--outcome", "lost", "--json").document == []
    said = testbed("tasks", "--outcome", "lost")
    assert said.code == 0
    assert "no such task" in said.err


def test_a_fault_of_the_scenario_is_the_reason_and_is_replayed(testbed: Command) -> None:
    fault = "faults=[{kind: node-down, nodes: [1], at: 500ms, for: 500ms}]"
    crowd = "faults=[{kind: arrivals, nodes: all, at: 500ms, for: 500ms, factor: 2}]"
    testbed("sim", "quickstart", "-s", "local", "-e", "2", "--set", fault)
    lost = testbed("tasks", "--outcome", "lost", "--json").document
    again = testbed("replay", "--json").document
    testbed("sim", "quickstart", "-s", "local", "-e", "2", "--set", crowd)
    crowded = testbed("replay", "--json").document

    assert lost
    assert all("a fault of the scenario (node-down)" in each["why"] for each in lost)
    for each in (again, crowded):
        assert each["replays"][0]["changes"]["same_course"] == each["original"]["tasks"]
        assert each["left_out"] == []
    assert crowded["original"]["tasks"] > again["original"]["tasks"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("task", "latest", 10**25),
        ("tasks", "--episode", 10**25),
        ("tasks", "--node", 10**25),
        ("tasks", "--limit", 10**25),
        ("replay", "--task", 10**25),
        ("replay", "--episode", 10**25),
        ("runs", "list", "--limit", 10**25),
        ("sim", "quickstart", "--first-episode", 10**25, "-e", 1),
        ("sim", "quickstart", "-e", 10**25),
        ("o2o", "quickstart", "--simulate", "--out", "o2o", "--log-episodes", 10**25),
        ("o2o", "quickstart", "--simulate", "--out", "o2o", "--seed", 10**25),
    ],
)
def test_a_number_that_no_log_holds_is_no_defect(
    testbed: Command, log: Path, arguments: tuple[object, ...]
) -> None:
    said = testbed(*arguments)

    assert said.code in (0, 2), said.err
    assert "defect" not in said.err


@pytest.mark.parametrize("command", [["replay"], ["tasks"], ["task", "latest", "3"]])
def test_a_run_of_requests_is_refused_with_what_to_use_instead(
    testbed: Command, home: Path, command: list[str]
) -> None:
    settings = ("--set", "horizon.length=10s", "--set", "routing.offset=5s")
    assert testbed("sim", "dfaas", *settings, "--set", "routing.period=5s").code == 0

    refused = testbed(*command)

    assert refused.code == 2
    assert "has no tasks, but requests" in refused.err
    assert "testbed runs show" in refused.err
    assert "testbed sim SCENARIO -s ROUTER" in refused.err


def test_a_time_scale_for_requests_is_a_number(testbed: Command, home: Path) -> None:
    auto = ("up", "dfaas", "--time-scale", "auto")
    refused = testbed(*auto)
    many = testbed(*auto, "--set", "users.0.rate=5000/s")

    assert refused.code == 2
    assert "scenario dfaas is not found by itself: it has requests" in refused.err
    assert "--time-scale 1 should do: its users send up to 50 requests" in refused.err
    assert "--time-scale 2.5 should do: its users send up to 2,000 requests" in many.err
