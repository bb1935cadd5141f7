"""A testbed of real processes from ``up`` to ``teardown``."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testbed.api import home as homes
from testbed.rpc.operator import OperatorClient
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from tests.cli.conftest import Command, Shell

NODES = 5
SHORT = ["--set", "slots.count=5", "--set", "timeScale=0.5"]
LONG = ["--episodes", "1000"]


@pytest.fixture(scope="module", autouse=True)
def up(shell: Shell) -> Iterator[None]:
    """The testbed ``default`` that the tests of this module share."""
    said = shell("up", "quickstart", *SHORT)
    assert said.code == 0, said.err
    assert f"{NODES} nodes healthy" in said.out
    assert "next: testbed run" in said.err
    yield
    said = shell("teardown", "--all", "--json")
    assert said.code == 0, said.err
    assert processes_of(shell.home) == []


def processes_of(home: Path) -> list[int]:
    """Ids of all running processes that belong to a testbed of ``home``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TESTBED_PROCESS_FOLDER", "").startswith(str(home)):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def begun(process: subprocess.Popen[str]) -> None:
    """Wait until a ``run`` that was started has shown that it runs."""
    assert process.stderr is not None
    assert "episode 1/" in process.stderr.readline()


def test_a_second_testbed_of_that_name_is_refused(shell: Shell) -> None:
    said = shell("up", "quickstart")

    assert said.code == 2
    assert "testbed teardown --name default" in said.err
    assert shell("status").code == 0


def test_ps_status_and_nodes(shell: Shell) -> None:
    listed = shell("ps", "--json").document
    status = shell("status", "--json").document
    nodes = shell("nodes", "--json").document

    assert [(each["name"], each["state"], each["healthy"]) for each in listed] == [
        ("default", "up", NODES)
    ]
    assert status["healthy"]
    assert status["store"] == str(shell.home / homes.TASK_LOG)
    assert [each["node"] for each in nodes] == list(range(NODES))
    assert all(each["condition"] == "healthy" for each in nodes)
    assert f"{NODES} of {NODES} healthy" in shell("status").out
    assert len(shell("nodes").out.splitlines()) == NODES + 1


def test_runs_are_compared(shell: Shell) -> None:
    first = shell("run", "--scheduler", "local", "--episodes", "2", "--json")
    second = shell("run", "-s", "rda", "-e", "2", "--first-episode", "0", "--label", "mine")

    assert first.code == second.code == 0, first.err + second.err
    assert first.document["scheduler"] == "local"
    assert first.document["driver"] == "network"
    assert first.document["progress"]["ended"] == first.document["tasks"]
    assert "episode 2/2" in first.err
    assert "rda (mine)" in second.out
    compared = shell("compare", "--json").document
    assert {each["scheduler"] for each in compared["runs"]} == {"local", "rda"}
    assert {each["driver"] for each in compared["runs"]} == {"network"}
    certificate = shell("runs", "show", "--json").document["certificate"]
    assert certificate["transmission"]["error"]["count"] > 0


def test_the_simulator_meets_the_same_tasks(shell: Shell) -> None:
    network = shell("run", "-s", "local", "-e", "1", "--json").document
    simulated = shell("sim", "quickstart", *SHORT, "-s", "local", "-e", "1", "--json").document

    assert simulated["runs"][0]["scenario_hash"] == network["scenario_hash"]
    assert simulated["runs"][0]["tasks"] == network["tasks"]


def test_a_run_is_replayed_in_the_simulator_and_on_the_testbed(shell: Shell) -> None:
    run = shell("run", "-s", "ratc", "-e", "2", "--first-episode", "1", "--json").document
    again = shell("replay", run["run"], "-s", "oracle", "--json").document
    there = shell("replay", run["run"], "-s", "rda", "--name", "default", "--json").document
    compared = shell("compare", "--json").document

    (simulated,), (real,) = again["replays"], there["replays"]
    assert again["venue"] == "simulator"
    assert there["venue"] == "default"
    assert (simulated["driver"], real["driver"]) == ("simulator", "network")
    # The same tasks, all of them.
    assert simulated["tasks"] == real["tasks"] == run["tasks"]
    assert simulated["changes"]["tasks"] == real["changes"]["tasks"] == run["tasks"]
    assert simulated["label"] == real["label"] == f"replay of {run['run']}"
    assert {each["run"] for each in compared["runs"]} == {
        *(run["run"], simulated["run"], real["run"])
    }


def test_the_same_scheduler_in_the_simulator_ends_nearly_all_tasks_the_same_way(
    shell: Shell,
) -> None:
    run = shell("run", "-s", "local", "-e", "1", "--json").document

    changes = shell("replay", run["run"], "--no-log", "--json").document["replays"][0]["changes"]

    # Nothing is asked and nothing sent: where a task goes cannot depend on the machine's load.
    assert changes["same_node"] == changes["tasks"] == run["tasks"]


def test_a_testbed_of_another_network_is_refused(shell: Shell) -> None:
    shell("sim", "quickstart", "--set", "slots.count=7", "-s", "local", "-e", "1")
    before = len(shell("runs", "list", "--json").document)

    said = shell("replay", "-s", "rda", "--name", "default")
    nowhere = shell("replay", "-s", "oracle", "--name", "default")

    assert said.code == nowhere.code == 2
    assert "workload.slots: 7 in the run; 5 on the testbed" in said.err
    assert "without --name" in said.err
    assert len(shell("runs", "list", "--json").document) == before


@pytest.mark.parametrize(
    "wrong",
    [
        ["--scheduler", "nope"],
        ["--scheduler", "oracle"],
        ["--scheduler", "local", "--option", "unknown=1"],
    ],
)
def test_a_run_that_cannot_begin(shell: Shell, wrong: list[str]) -> None:
    before = shell("runs", "list", "--json").out

    said = shell("run", *wrong)

    assert said.code == 2, said.err
    assert "Traceback" not in said.err
    assert shell("runs", "list", "--json").out == before


def test_the_scheduler_is_changed_during_a_run(shell: Shell) -> None:
    assert shell("scheduler", "set", "rda").code == 2, "no run is under way"
    with shell.start("run", "-s", "local", *LONG, "--json") as run:
        begun(run)
        changed = shell("scheduler", "set", "rda", "--nodes", "0,2", "--json")
        refused = shell("scheduler", "set", "nope")
        beyond = shell("scheduler", "set", "rda", "--nodes", "99")
        second = shell("run", "-s", "local")
        nodes = shell("nodes", "--json").document
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)

    assert changed.code == 0, changed.err
    assert [each["node"] for each in changed.document] == [0, 2]
    assert (refused.code, beyond.code, second.code) == (2, 2, 2)
    assert "nodes 0, 1, 2, 3, 4: unknown scheduler 'nope'" in refused.err
    assert [each["scheduler"] for each in nodes] == ["rda", "local", "rda", "local", "local"]
    shown = shell("runs", "show").out
    assert "rda on nodes 0, 2" in shown
    assert "nope" not in shown, "it was refused"


def test_ctrl_c_stops_the_run(shell: Shell) -> None:
    with shell.start("run", "-s", "local", *LONG) as run:
        begun(run)
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=30)

    assert run.returncode == 130
    assert " of 1000 episodes: run " in told
    assert "has stopped" in told
    assert "Traceback" not in told
    assert shell("runs", "show", "--json").document["state"] == "stopped"
    assert shell("run", "-s", "local", "-e", "1").code == 0, "the testbed is free again"


def test_a_run_that_was_started_elsewhere_is_followed(shell: Shell) -> None:
    with shell.start("run", "-s", "local", *LONG) as run:
        begun(run)
        with shell.start("attach") as attached:
            assert attached.stderr is not None
            told = attached.stderr.readline()
            attached.send_signal(signal.SIGINT)
            _, err = attached.communicate(timeout=60)
        assert "/1000: " in told
        assert attached.returncode == 130
        assert "goes on" in err
        status = shell("status", "--json").document["run"]["progress"]
        assert status["state"] == "running"
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    over = shell("attach", status["run"][:-2], "--json")

    assert over.document["run"] == status["run"]
    assert over.document["state"] == "stopped"
    unknown = shell("attach", "nosuch")
    assert unknown.code == 2
    assert status["run"] in unknown.err


@pytest.mark.parametrize("command", ["nodes", "status", "ps"])
def test_what_is_watched_comes_again_until_ctrl_c(shell: Shell, command: str) -> None:
    with shell.start(command, "--watch", "--json") as watching:
        assert watching.stdout is not None
        frames = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)

    assert watching.returncode == 130
    once = shell(command, "--json").document
    assert [len(frame) for frame in frames] == [len(once)] * 2


def test_logs(shell: Shell) -> None:
    everything, tail = shell("logs").out, shell("logs", "--tail", "1").out

    document = shell("logs", "node-3", "--json").document
    assert document["process"] == "node-3"
    assert "\n".join(document["lines"]) == shell("logs", "3").out.rstrip("\n")
    assert shell("logs", "--json", "--follow").code == 2
    assert len(tail.splitlines()) == 1
    assert everything.endswith(tail)
    assert "node 3" in shell("logs", "3").out
    said = shell("logs", "99")
    assert said.code == 2
    assert "node-4" in said.err


def test_side_by_side_killed_and_taken_down(shell: Shell) -> None:
    assert shell("up", "quickstart", *SHORT, "--name", "other").code == 0
    other = LocalRuntime(shell.home).find("other")
    with (
        OperatorClient(other.address, other.token) as operator,
        shell.start("run", "--name", "other", "-s", "local", "-e", "30", "--json") as run,
    ):
        begun(run)
        assert shell("kill", "1", "--name", "other").code == 0
        left = next(operator.watch_run(""))
        out, told = run.communicate(timeout=240)
    assert left.state == "running", "the machine is too slow for this test: take more episodes"
    status = shell("status", "--name", "other")
    nodes = shell("nodes", "--name", "other")
    default = shell("status", "--json").document
    follow = shell.start("logs", "0", "--follow", "--name", "other")
    down = shell("teardown", "--name", "other")
    followed, _ = follow.communicate(timeout=30)

    assert run.returncode == 0, told
    assert json.loads(out)["state"] == "degraded"
    assert json.loads(out)["progress"]["dead_nodes"] == [1]
    assert "node 1: out of the run from episode" in told
    assert "is degraded" in told
    assert "node 1" in status.out
    assert "dead" in status.out
    assert "testbed logs 1 --name other" in status.err
    assert "testbed logs 1 --name other" in nodes.err
    assert default["healthy"]
    assert down.code == 0, down.err
    assert "none left" in down.out
    assert "node 0" in followed
    assert shell("logs", "0", "--name", "other").code == 0, "logs are kept"
    again = shell("teardown", "--name", "other", "--purge")
    assert "nothing was running" in again.out
    assert not (shell.home / "other").exists()
    assert shell("runs", "list").code == 0
    assert shell("status").code == 0


def test_a_run_whose_command_was_killed_is_found_by_teardown(shell: Shell) -> None:
    assert shell("up", "quickstart", *SHORT, "--name", "orphan").code == 0
    with shell.start("run", "--name", "orphan", "-s", "local", *LONG) as run:
        begun(run)
        run.kill()
        run.wait(10)
    assert shell("ps", "--json").document[1]["run"].endswith("(running)")

    down = shell("teardown", "--name", "orphan")

    assert down.code == 0, down.err
    assert shell("runs", "show", "--json").document["state"] == "stopped"


def test_teardown_enters_the_end_of_a_run_whose_controller_was_killed(shell: Shell) -> None:
    assert shell("up", "quickstart", *SHORT, "--name", "beheaded").code == 0
    with shell.start("run", "--name", "beheaded", "-s", "local", *LONG) as run:
        begun(run)
        pid = shell("status", "--name", "beheaded", "--json").document["pid"]
        psutil.Process(pid).kill()
        _, told = run.communicate(timeout=30)
    assert run.returncode == 4, told
    assert "Traceback" not in told

    down = shell("teardown", "--name", "beheaded", "--purge")

    assert down.code == 0, down.err
    assert "was interrupted" in down.err
    assert shell("runs", "show", "--json").document["state"] == "interrupted"


@pytest.mark.parametrize("command", ["runs show --json", "teardown --name forgotten"])
def test_a_run_ends_though_its_controller_and_its_folder_are_gone(
    shell: Shell, command: str
) -> None:
    assert shell("up", "quickstart", *SHORT, "--name", "forgotten").code == 0
    with shell.start("run", "--name", "forgotten", "-s", "local", *LONG) as run:
        begun(run)
        assert shell("runs", "show", "--json").document["state"] == "running"
        pid = shell("status", "--name", "forgotten", "--json").document["pid"]
        shutil.rmtree(shell.home / "forgotten")
        psutil.Process(pid).kill()
        run.communicate(timeout=30)

    said = shell(*command.split())

    assert "was interrupted; the task log now has it as interrupted" in said.err
    assert shell("runs", "show", "--json").document["state"] == "interrupted"
    shell("teardown", "--name", "forgotten")


def test_teardown_ends_what_is_known_of_a_run_whose_log_is_gone(shell: Shell) -> None:
    assert shell("up", "quickstart", *SHORT, "--name", "logless").code == 0
    with shell.start("run", "--name", "logless", "-s", "local", *LONG) as run:
        begun(run)
        status = shell("status", "--name", "logless", "--json").document
        psutil.Process(status["pid"]).kill()
        run.communicate(timeout=30)
    log = Path(status["store"])
    away = log.rename(log.with_name("away"))
    try:
        down = shell("teardown", "--name", "logless")
    finally:
        away.rename(log)

    assert down.code == 0, down.err
    assert "is gone, and the last run of 'logless' with it" in down.err
    assert not list(log.parent.rglob("*active-run*"))


def test_up_that_fails_leaves_nothing(testbed: Command, home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")

    said = testbed("up", "quickstart", "--storage", tmp_path / "file")

    assert said.code == 5
    assert str(tmp_path / "file") in said.err
    assert testbed("ps", "--json").document == []
    assert processes_of(home) == []


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["nodes"],
        ["run"],
        ["kill", "0"],
        ["scheduler", "set", "rda"],
        ["logs"],
        ["up", "quickstart", "--name", "Not A Name"],
        ["up", "quickstart", "--set", "scheduler=nope"],
        ["up", "quickstart", "--set", "application=nope"],
    ],
)
def test_what_is_not_there(testbed: Command, home: Path, command: list[str]) -> None:
    said = testbed(*command)

    assert said.code == 2
    assert said.err.startswith("error: ")
    assert not home.exists() or list(home.glob("[!.]*")) == []


def test_up_where_nothing_can_be_written(testbed: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    said = testbed("up", "quickstart", "--home", tmp_path / "file")

    # Named wrongly, as any other option may be.
    assert said.code == 2
    assert "--home" in said.err


def test_teardown_of_nothing(testbed: Command, home: Path) -> None:
    assert testbed("teardown").code == 0
    assert testbed("teardown", "--all").code == 0
    assert not home.exists()


def test_ctrl_c_during_up_leaves_nothing(shell: Shell) -> None:
    with shell.start("up", "paper-testbed", "--name", "cut") as up:
        assert up.stderr is not None
        for line in up.stderr:
            if line.startswith("controller at"):
                break
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=30)

    assert up.returncode == 130
    assert [each["name"] for each in shell("ps", "--json").document] == ["default"]
    assert processes_of(shell.home / "cut") == []


def test_the_quickstart_is_what_these_tests_take_it_for() -> None:
    assert load("quickstart").nodes.count == NODES
