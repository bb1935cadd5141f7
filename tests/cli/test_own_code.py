"""A scheduler and an application of the user's own, in the folder that commands are given in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.storage.tasklog import open_task_log
from tests.cli.conftest import ROOT, Said, environment, program

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

import helper
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
        import later

        assert later.told() == helper.told() == "mine"
        return Decision(self.node)
"""

HARMLESS = (
    "controller",
    "edgenode",
    "google",
    "grpc",
    "manifests",
    "numpy",
    "random",
    "ray",
    "testbed",
    "torch",
    "trainer",
    "yaml",
)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Said]]:
    """Runs commands as the installed console script does: without this folder on the path."""

    def run(*arguments: object, path: Path | str = "") -> Said:
        python, *rest = program(*arguments)
        done = subprocess.run(
            [python, "-P", *rest],
            cwd=tmp_path,
            # As after `make install`: found by the installation, not by a path.
            env={**environment(tmp_path / "home"), "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text("def told(): return 'mine'")
    (tmp_path / "later.py").write_text("from helper import told")
    (tmp_path / "net.yaml").write_text(NET)
    # What everybody's folder may hold; nothing of ours may take it for a module it needs.
    for name in HARMLESS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the one you want')")
    yield run
    ended = run("teardown", "--all")
    assert ended.code == 0, ended.err


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
    answered = (
        f"answered 0 (int); it has to be Decision(destination), Ask(peers) or Refuse() ({tmp_path}"
    )
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
    # Which of the two nodes is heard of first is up to the machine.
    assert any(answered.replace("answered 0", f"answered {node}") in first for node in (0, 1))
    assert second.startswith("the application failed at 2 tasks")
    assert f"ValueError: cannot work on this, at {tmp_path}/failing.py:" in second
    for shown in (command("status"), command("runs", "show")):
        text = " ".join(shown.out.split())
        assert "the scheduler failed at 2 tasks" in text
        assert "ValueError: cannot work on this" in text


def test_a_broken_package_is_listed_beside_the_others(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    info = tmp_path / "site" / "theirs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    points = "[edge_testbed.schedulers]\nbroken = broken_one:Class\nabsent = not_here:Class\n"
    (info / "entry_points.txt").write_text(points + "theirs = mine:Other\n")
    (info.parent / "broken_one.py").write_text("import sys\n\nsys.exit('not today')\n")
    listed = command("scheduler", "list", "--json", path=info.parent)
    assert listed.code == 0, listed.err
    problems = {each["name"]: each["problem"] for each in json.loads(listed.out)}
    assert problems["theirs"] == problems["ratc"] == ""
    assert "SystemExit: not today, at " in problems["broken"]
    assert "broken_one.py:3" in problems["broken"]
    assert "not_here" in problems["absent"]
    table = command("scheduler", "list", path=info.parent)
    assert table.code == 0, table.err
    assert "cannot be loaded" in table.out


@pytest.mark.long
@pytest.mark.timeout(600)
def test_learning_takes_nothing_from_the_folder(command: Callable[..., Said]) -> None:
    sizes = ("--log-episodes", "2", "--offline-steps", "2", "--online-episodes", "10")
    small = ("--evaluation-episodes", "2", "--out", "o2o")
    done = command("o2o", "quickstart", "--simulate", *sizes, *small)
    assert done.code == 0, done.err
    assert "o2o" in done.out


def test_worker_processes_take_nothing_from_the_folder(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit('not the one you want')")
    start = (
        "import multiprocessing, os\n"
        "from testbed.experiment.reproduce.runner import _for_workers\n"
        "with _for_workers():\n"
        "    child = multiprocessing.get_context('spawn').Process(target=os.getpid)\n"
        "    child.start()\n"
        "child.join()\n"
        "assert child.exitcode == 0, child.exitcode\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", start],
        cwd=tmp_path,
        env={**environment(tmp_path / "home"), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_class_in_a_hidden_file_is_not_looked_for_elsewhere(
    command: Callable[..., Said],
) -> None:
    done = command("sim", "net.yaml", "-s", "controller:Mine", "-e", "1")
    assert done.code == 2, done.err
    assert "hidden by an installed module of the same name" in done.err


@pytest.fixture
def beside(tmp_path: Path) -> Callable[..., Said]:
    """Runs commands where the import path has a folder with packages of the named kinds."""

    def run(name: str, *arguments: object) -> Said:
        package = tmp_path / "path" / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("raise SystemExit('somebody else')")
        python, *rest = program(*arguments)
        # The installation's own path comes after PYTHONPATH.
        done = subprocess.run(
            [python, "-P", *rest],
            cwd=tmp_path,
            env={**environment(tmp_path / "home"), "PYTHONPATH": str(tmp_path / "path")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("controller", ("up", "quickstart")),
        ("edgenode", ("up", "quickstart")),
        ("trainer", ("o2o", "quickstart", "--simulate", "--out", "o2o")),
        ("trainer", ("doctor",)),
        ("manifests", ("doctor",)),
        ("controller", ("doctor",)),
    ],
)
def test_another_package_of_the_same_name_is_named(
    beside: Callable[..., Said], tmp_path: Path, name: str, arguments: tuple[str, ...]
) -> None:
    done = beside(name, *arguments)
    assert done.code == 3, done.err
    said = "".join((done.out + done.err).split())
    assert "".join(f"{tmp_path}/path/{name}/__init__.py".split()) in said
    assert f"hidesthepackage'{name}'" in said
    assert "defect" not in done.err


def test_a_command_that_does_not_need_it_works(beside: Callable[..., Said]) -> None:
    done = beside("trainer", "sim", "quickstart", "-s", "local", "-e", "1")
    assert done.code == 0, done.err


def test_a_distribution_that_installs_over_ours_is_named(
    beside: Callable[..., Said], tmp_path: Path
) -> None:
    described = tmp_path / "path" / "coach-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: coach\nVersion: 1.0\n")
    (described / "top_level.txt").write_text("trainer\n")
    done = beside("nothing", "doctor")
    assert done.code == 3, done.err
    assert "coach installs a package 'trainer' too" in done.out
