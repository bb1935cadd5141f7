"""A scheduler and an application of the user's own, in the folder that commands are given in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.storage.tasklog import open_task_log
from tests.cli.conftest import Said, environment, program

NET = """
apiVersion: edge-testbed/v1
kind: Scenario
metadata: {name: own-code}
nodes:
  count: 2
  capacity: [2GHz, 4GHz]
  arrivalProbability: 1
links:
  rate: [[null, 50MB/s], [40MB/s, null]]
tasks: {size: {choice: [100KB, 200KB]}, complexity: 10 cycles/bit, deadline: 5s}
slots: {count: 3, length: 100ms}
application: {name: "mine:seen", options: {suffix: "!"}}
"""

MINE = """
import hashlib
from pathlib import Path

from testbed.model.decision import Decision


def seen(task, payload, suffix):
    line = f"{task.id} {len(payload)} {hashlib.sha256(payload).hexdigest()}{suffix}\\n"
    with (Path(__file__).parent / "seen.txt").open("a") as file:
        file.write(line)


class Other:
    name = "other"

    def __init__(self, context):
        self.node = 1 - context.node

    def decide(self, observation):
        return Decision(self.node)
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Said]]:
    """Runs commands as the installed console script does: without this folder on the path."""

    def run(*arguments: object) -> Said:
        python, *rest = program(*arguments)
        done = subprocess.run(
            [python, "-P", *rest],
            cwd=tmp_path,
            env=environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "net.yaml").write_text(NET)
    # What everybody's folder may hold; nothing of ours may take it for the standard library's.
    (tmp_path / "random.py").write_text("raise SystemExit('not the random you want')")
    yield run
    run("teardown", "--all")


def test_it_decides_and_works_on_the_bytes_that_were_sent(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    simulated = command("sim", "net.yaml", "-s", "mine:Other", "-e", "1", "--json")
    assert simulated.code == 0, simulated.err
    up = command("up", "net.yaml")
    assert up.code == 0, up.err
    run = command("run", "-s", "mine:Other", "-e", "1", "--json")
    assert run.code == 0, run.err

    with open_task_log(tmp_path / "home" / "tasklog.sqlite", create=False) as log:
        rows = list(log.tasks(json.loads(run.out)["run"]))
    assert len(rows) == 6
    assert all((row.source, row.destination) in {(0, 1), (1, 0)} for row in rows)
    lines = [line.split() for line in (tmp_path / "seen.txt").read_text().splitlines()]
    worked_on = {int(task): int(length) for task, length, _ in lines}
    assert worked_on == {row.task_id: row.size_bytes for row in rows}
    assert len({digest for _, _, digest in lines}) == 6, "each task has bytes of its own"
    assert all(digest.endswith("!") for _, _, digest in lines)


FAILING = """
from testbed.model.decision import Decision


class Sometimes:
    name = "sometimes"

    def __init__(self, context):
        pass

    def decide(self, observation):
        if observation.slot == 1:
            return observation.node
        return Decision(observation.node)


def works(task, payload):
    if task.slot == 2:
        raise ValueError("cannot work on this")
"""


def test_code_that_fails_is_named_and_the_run_goes_on(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    net = NET.replace("mine:seen", "failing:works").replace('{suffix: "!"}', "{}")
    (tmp_path / "net.yaml").write_text(net)
    answered = f"answered 0 (int); it has to be Decision(destination) or Ask(peers) ({tmp_path}"
    simulated = command("sim", "net.yaml", "-s", "failing:Sometimes", "-e", "1")
    assert simulated.code == 0, simulated.err
    told = " ".join(simulated.err.split())
    assert "degraded: the scheduler failed at 2 tasks, which are lost; the first: episode" in told
    assert f"scheduler 'sometimes' {answered}/failing.py:" in told

    up = command("up", "net.yaml")
    assert up.code == 0, up.err
    run = command("run", "-s", "failing:Sometimes", "-e", "1", "--json")
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert document["state"] == "degraded"
    first, second = sorted(document["code_failures"], reverse=True)
    assert first.startswith("the scheduler failed at 2 tasks")
    assert answered in first
    assert second.startswith("the application failed at 2 tasks")
    assert f"ValueError: cannot work on this, at {tmp_path}/failing.py:" in second
    for shown in (command("status"), command("runs", "show")):
        text = " ".join(shown.out.split())
        assert "the scheduler failed at 2 tasks" in text
        assert "ValueError: cannot work on this" in text


def test_a_broken_package_is_listed_beside_the_others(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    points = "[edge_testbed.schedulers]\nbroken = broken_one:Class\nabsent = not_here:Class\n"
    (info / "entry_points.txt").write_text(points + "theirs = mine:Other\n")
    (tmp_path / "broken_one.py").write_text("import sys\n\nsys.exit('not today')\n")
    listed = command("scheduler", "list", "--json")
    assert listed.code == 0, listed.err
    problems = {each["name"]: each["problem"] for each in json.loads(listed.out)}
    assert problems["theirs"] == problems["ratc"] == ""
    assert "SystemExit: not today, at " in problems["broken"]
    assert "broken_one.py:3" in problems["broken"]
    assert "not_here" in problems["absent"]
    table = command("scheduler", "list")
    assert table.code == 0, table.err
    assert "cannot be loaded" in table.out
