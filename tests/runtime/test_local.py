"""The local runtime: what every runtime does, and what only processes can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from testbed.environment import PROCESS_NAME
from testbed.errors import PermanentError, PrerequisiteMissing, TemporaryError, UsageError
from testbed.rpc.operator import OperatorClient
from testbed.runtime import processes
from testbed.runtime.base import CONTROLLER
from testbed.runtime.directory import RunDirectory
from testbed.runtime.hosting import Hosting
from testbed.runtime.local import LocalRuntime
from testbed.storage.tasklog import RunState, open_task_log
from testbed.testing.runtime import RuntimeContract, small_plan

PATIENCE_S = 20.0


class LocalRuntimeTests(RuntimeContract):
    pass


class SharedProcessTests(RuntimeContract):
    """Both nodes in one process."""

    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Iterator[LocalRuntime]:
        yield from sharing(tmp_path, 2)


def sharing(folder: Path, nodes: int) -> Iterator[LocalRuntime]:
    """A runtime whose nodes share processes, ``nodes`` each; takes down what is up at the end."""
    local = LocalRuntime(folder / "home", orphan_timeout_s=0.5, hosting=Hosting(nodes))
    yield local
    for name in local.names():
        local.down(name)


def running(runtime: LocalRuntime, name: str) -> dict[int, tuple[str, psutil.Process]]:
    place = RunDirectory(runtime.home, name)
    return processes.of_testbed(place.path, place.processes())


def test_a_testbed_is_found_after_the_clock_was_set(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = runtime.up(small_plan(), "stepped")
    # What the system says of the time of its boot moves with the clock.
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted - 3600.0)
    assert runtime.find("stepped") == up
    assert runtime.kill("stepped", 1).name == "node-1"
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 1.0)
    assert len(runtime.down("stepped").stopped) == 2


def test_a_process_noted_by_an_earlier_version_is_known(runtime: LocalRuntime) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        process = psutil.Process(other.pid)
        assert processes.alive(other.pid, process.create_time()) is not None
        assert processes.alive(other.pid, process.create_time() - 60.0) is None
        assert processes.alive(other.pid, processes.created_at(process)) is not None
        assert processes.alive(other.pid, processes.created_at(process) - 60.0) is None
        other.communicate(b"\n")
    assert processes.alive(other.pid, 1.0) is None


def test_two_side_by_side(runtime: LocalRuntime) -> None:
    one, two = runtime.up(small_plan(), "one"), runtime.up(small_plan(), "two")
    assert one.address != two.address
    assert runtime.names() == ("one", "two")
    runtime.down("one")
    assert len(running(runtime, "two")) == 3
    with OperatorClient(two.address, two.token) as operator:
        assert operator.status().healthy
    with (
        OperatorClient(two.address, one.token) as operator,
        pytest.raises(PermanentError, match="token"),
    ):
        operator.status()


@pytest.mark.parametrize("moment", ["controller at", "nodes started"])
def test_an_up_that_was_killed_leaves_nothing_that_down_cannot_find(
    runtime: LocalRuntime, moment: str
) -> None:
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from testbed.runtime.local import LocalRuntime
        from testbed.testing.runtime import small_plan

        def die(line):
            if {moment!r} in line:
                os.kill(os.getpid(), signal.SIGKILL)

        LocalRuntime(Path({str(runtime.home)!r})).up(small_plan(), "half", report=die)
        """
    )
    child = subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE_S)
    assert child.returncode == -signal.SIGKILL
    left = {name for name, _ in running(runtime, "half").values()}
    assert CONTROLLER in left
    # It ends by itself when nobody can give it orders.
    left -= {processes.Zygote.NAME}
    assert runtime.names() == ("half",)
    with pytest.raises(UsageError, match="teardown --name half"):
        runtime.up(small_plan(), "half")
    assert {each.name for each in runtime.down("half").stopped} >= left
    assert running(runtime, "half") == {}
    assert runtime.names() == ()


def test_no_argument_shows_a_secret(runtime: LocalRuntime) -> None:
    up = runtime.up(small_plan(), "secretive")
    for _, process in running(runtime, "secretive").values():
        shown = " ".join(process.cmdline())
        assert up.token not in shown
        assert up.store not in shown
    assert (up.directory / "testbed.json").stat().st_mode & 0o077 == 0


def test_a_process_nobody_noted_is_found_by_its_mark(runtime: LocalRuntime) -> None:
    runtime.up(small_plan(), "stray")
    place = RunDirectory(runtime.home, "stray")
    for file in (place.path / "processes").iterdir():
        file.unlink()
    assert len(runtime.down("stray").stopped) == 3
    assert running(runtime, "stray") == {}


def test_a_process_that_has_ended_is_not_waited_for_until_its_parent_knows() -> None:
    # The parent of the one that is ended reads no exit codes: the zombie stays as long as it lives.
    program = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], "
        "stdin=subprocess.PIPE); print(child.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        began = time.monotonic()
        assert processes.kill([child], PATIENCE_S) == []
        assert time.monotonic() - began < PATIENCE_S / 2
        assert child.status() == psutil.STATUS_ZOMBIE
        parent.communicate(b"\n", timeout=PATIENCE_S)


def test_a_recycled_process_id_is_left_alone(runtime: LocalRuntime) -> None:
    runtime.up(small_plan(), "recycled")
    runtime.kill("recycled", 0)
    place = RunDirectory(runtime.home, "recycled")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        place.enter("node-0", other.pid, psutil.Process(other.pid).create_time() - 60.0)
        runtime.down("recycled")
        assert other.poll() is None
        other.communicate(b"\n", timeout=PATIENCE_S)
    assert other.returncode == 0


def test_a_process_that_does_not_listen_is_killed(runtime: LocalRuntime) -> None:
    runtime.up(small_plan(), "deaf")
    [deaf] = [p for name, p in running(runtime, "deaf").values() if name == "node-1"]
    deaf.send_signal(signal.SIGSTOP)
    teardown = runtime.down("deaf")
    # On a busy machine others may need more than the time they get, too.
    assert "node-1" in {each.name for each in teardown.stopped if each.forced}
    assert running(runtime, "deaf") == {}


def test_nodes_end_when_their_controller_was_killed(runtime: LocalRuntime) -> None:
    runtime.up(small_plan(), "orphans")
    found = running(runtime, "orphans").values()
    [controller] = [process for name, process in found if name == CONTROLLER]
    nodes = [process for name, process in found if name != CONTROLLER]
    controller.kill()
    psutil.wait_procs([controller, *nodes], timeout=PATIENCE_S)
    assert running(runtime, "orphans") == {}
    with pytest.raises(UsageError, match="teardown --name orphans"):
        runtime.find("orphans")
    # Nothing runs any more, so the name is free.
    assert runtime.up(small_plan(), "orphans").name == "orphans"


def test_an_up_that_fails_cleans_up(runtime: LocalRuntime, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        runtime.up(small_plan(), "failing", store=str(tmp_path))
    assert runtime.names() == ()
    assert running(runtime, "failing") == {}


def test_a_node_that_cannot_start_shows_its_log(runtime: LocalRuntime) -> None:
    spool = runtime.home / "failing" / "spool"
    spool.mkdir(parents=True)
    (spool / "node-1").write_text("in the way of a folder", encoding="utf-8")
    with pytest.raises(PermanentError, match="node-1 ended while starting; the end of its log"):
        runtime.up(small_plan(), "failing")
    assert runtime.names() == ()
    assert running(runtime, "failing") == {}


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    runtime = LocalRuntime(tmp_path / "file" / "home")
    with pytest.raises(PrerequisiteMissing, match="TESTBED_HOME"):
        runtime.up(small_plan(), "nowhere")
    assert [lack.fix for lack in runtime.check()] != []
    assert runtime.names() == ()


def test_a_full_disk(runtime: LocalRuntime) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    place = RunDirectory(runtime.home, "full")
    place.path.mkdir(parents=True)
    # Where `create` writes first; the file system behind it has no space.
    (place.path / f".testbed.json.{os.getpid()}").symlink_to(full)
    (runtime.home / ".full.lock").symlink_to(full)
    with pytest.raises(PermanentError, match="no space left"):
        runtime.up(small_plan(), "full")
    assert runtime.names() == ()


def test_one_command_at_a_time(runtime: LocalRuntime) -> None:
    with RunDirectory(runtime.home, "busy").lock(), pytest.raises(UsageError, match="is busy"):
        runtime.down("busy")


def test_the_lock_is_gone_afterwards_and_never_held_twice(tmp_path: Path) -> None:
    place = RunDirectory(tmp_path, "shared")
    inside, held = threading.Lock(), []

    def take(_: int) -> None:
        for _ in range(50):
            try:
                with place.lock():
                    assert inside.acquire(blocking=False), "two hold it"
                    held.append(1)
                    inside.release()
            except UsageError:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8)))
    assert held
    assert list(tmp_path.iterdir()) == []


def test_down_of_nothing_writes_nothing(runtime: LocalRuntime) -> None:
    runtime.home.mkdir(parents=True)
    assert runtime.down("never-was").stopped == ()
    assert list(runtime.home.iterdir()) == []


def test_a_controller_that_is_gone_is_said_to_be(runtime: LocalRuntime) -> None:
    up = runtime.up(small_plan(), "gone")
    runtime.down("gone")
    with (
        OperatorClient(up.address, up.token, timeout=2.0) as operator,
        pytest.raises(TemporaryError, match="does not answer"),
    ):
        operator.status()


def test_the_sockets_go_with_the_testbed_whatever_became_of_its_files(
    runtime: LocalRuntime,
) -> None:
    up = runtime.up(small_plan(), "sockets")
    folder = Path(up.address.removeprefix("unix:")).parent
    # The controller's, and two of each node: its server and its trunk.
    assert len(list(folder.iterdir())) == 5
    (up.directory / "testbed.json").write_text("scribbled on")
    runtime.down("sockets")
    assert not folder.exists()


def test_a_long_name_below_a_home_with_a_very_long_path(tmp_path: Path) -> None:
    home = tmp_path.joinpath(*("x" * 100 for _ in range(3)))
    runtime = LocalRuntime(home, orphan_timeout_s=0.5)
    name = "n" * 40
    up = runtime.up(small_plan(), name)
    try:
        with OperatorClient(up.address, up.token) as operator:
            assert operator.status().healthy
        assert LocalRuntime(home).find(name) == up
    finally:
        runtime.down(name)


def test_a_testbed_that_died_leaves_no_sockets_once_its_name_is_used_again(
    runtime: LocalRuntime,
) -> None:
    up = runtime.up(small_plan(), "died")
    before = Path(up.address.removeprefix("unix:")).parent
    ended = [process for _, process in running(runtime, "died").values()]
    assert processes.kill(ended, PATIENCE_S) == []
    assert before.is_dir()
    again = runtime.up(small_plan(), "died")
    assert Path(again.address.removeprefix("unix:")).parent != before
    assert not before.exists()


def test_a_controller_that_is_slow_to_end_is_waited_for_and_a_word_said(
    runtime: LocalRuntime,
) -> None:
    # The end of a run takes longer than once was allowed: a node hangs, and is asked for its log.
    up = runtime.up(small_plan(slots=4000), "slow")
    with OperatorClient(up.address, up.token) as operator:
        run = operator.start_run()
        for progress in operator.watch_run(run):
            if progress.ended >= 2:
                break
    found = dict(running(runtime, "slow").values())
    found["node-1"].suspend()
    said: list[str] = []
    done = runtime.down("slow", report=said.append)
    assert {each.name for each in done.stopped if each.forced} == {"node-1"}
    with open_task_log(up.store, create=False) as log:
        assert log.run(run).state is RunState.STOPPED
    assert any(f"controller (process {found['controller'].pid})" in line for line in said)


def test_a_controller_that_was_stopped_ends_its_run_in_order(runtime: LocalRuntime) -> None:
    up = runtime.up(small_plan(slots=4000), "asleep")
    with OperatorClient(up.address, up.token) as operator:
        run = operator.start_run()
        for progress in operator.watch_run(run):
            if progress.ended >= 2:
                break
    [controller] = [p for name, p in running(runtime, "asleep").values() if name == CONTROLLER]
    controller.suspend()
    runtime.down("asleep")
    with open_task_log(up.store, create=False) as log:
        assert log.run(run).state is RunState.STOPPED


@pytest.mark.parametrize("garbage", ["{}", '{"pid": null, "token": 3}', "[" * 100_000, "folder"])
def test_damaged_notes_keep_no_testbed_from_being_taken_down(
    runtime: LocalRuntime, garbage: str
) -> None:
    up = runtime.up(small_plan(), "damaged")
    for path in (*up.directory.glob("*.json"), *(up.directory / "processes").glob("*.json")):
        if garbage == "folder":
            path.unlink()
            path.mkdir()
        else:
            path.write_text(garbage)
    with pytest.raises(UsageError, match="`testbed teardown --name damaged` to remove it"):
        runtime.find("damaged")
    assert runtime.names() == ("damaged",)
    assert {each.name for each in runtime.down("damaged").stopped} == {
        CONTROLLER,
        "node-0",
        "node-1",
    }
    assert runtime.names() == ()


def test_each_node_is_shown_as_if_it_had_been_started_alone(runtime: LocalRuntime) -> None:
    up = runtime.up(small_plan(), "shown")
    found = running(runtime, "shown")
    assert sorted(name for name, _ in found.values()) == [CONTROLLER, "node-0", "node-1"]
    for pid, (name, process) in found.items():
        assert process.environ()[PROCESS_NAME] == name
        assert os.getsid(pid) == pid
        if name != CONTROLLER:
            command = [argument for argument in process.cmdline() if argument]
            assert command[:5] == [sys.executable, "-m", "edgenode", "--node", name[-1]]
            own = command[command.index("--credentials") + 1]
            assert own == str(up.directory / "credentials" / f"{name}.json")
            assert os.readlink(f"/proc/{pid}/fd/1") == str(up.directory / "logs" / f"{name}.log")
            # The end of a node shows although others live on: none holds another's pipe.
            pipe = os.readlink(f"/proc/{pid}/fd/3")
            assert pipe.startswith("pipe:")
            assert [other for other in found if pipe in open_files(other)] == [pid]


def test_a_zygote_that_cannot_load_is_named_with_the_end_of_its_log(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'edgenode.zygote' in sys.orig_argv: sys.exit('no loading today')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(PermanentError, match=r"(?s)node-0 could not be started.*no loading today"):
        runtime.up(small_plan(), "unloaded")
    assert running(runtime, "unloaded") == {}
    assert runtime.names() == ()


def open_files(pid: int) -> list[str]:
    """Return the files, pipes and sockets that a process has open."""
    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_program_that_cannot_be_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("")
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(PrerequisiteMissing, match=f"{program}: permission denied"):
        LocalRuntime(tmp_path / "home").up(small_plan(), "x")
