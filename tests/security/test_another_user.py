"""What another user of the machine can do to a testbed of processes: nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testbed.rpc.operator import OperatorClient
from testbed.runtime import processes
from testbed.runtime.base import Testbed
from testbed.runtime.directory import RunDirectory
from tests.security.conftest import Attack


def running(testbed: Testbed) -> dict[str, psutil.Process]:
    """The processes of a testbed by name."""
    place = RunDirectory(testbed.directory.parent, testbed.name)
    found = processes.of_testbed(place.path, place.processes())
    return dict(found.values())


def sockets(testbed: Testbed) -> list[str]:
    """The paths of all Unix sockets that its processes listen on."""
    return sorted(
        {
            str(connection.laddr)
            for process in running(testbed).values()
            for connection in process.net_connections("unix")
            if str(connection.laddr)
        }
    )


def below(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def test_no_process_listens_on_a_port(attacked: Testbed) -> None:
    found = running(attacked)
    assert sorted(found) == ["controller", "node-0", "node-1"]
    for name, process in found.items():
        listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == [], name
        assert list(process.net_connections("udp")) == [], name
    names = [Path(each).name for each in sockets(attacked)]
    assert names == [
        "controller.sock",
        *(f"{kind}-{n}.sock" for kind in ("node", "trunk") for n in (0, 1)),
    ]


def test_everything_that_is_kept_is_for_its_user_alone(attacked: Testbed) -> None:
    home = attacked.directory.parent
    (folder,) = {Path(each).parent for each in sockets(attacked)}
    for path in (*below(home), *below(folder)):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:04o}"
        assert path.lstat().st_uid == os.geteuid()


def test_a_node_has_nothing_that_makes_it_an_operator(attacked: Testbed) -> None:
    for name, process in running(attacked).items():
        environment, arguments = process.environ(), process.cmdline()
        values = [*environment.values(), *arguments]
        assert not any(attacked.token in value for value in values), name
        # Nor in a file that it is told of.
        for value in values:
            if value.startswith("/") and Path(value).is_file():
                content = Path(value).read_bytes()
                assert attacked.token.encode() not in content, (name, value)


def test_a_shells_credentials_are_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in processes.NOT_INHERITED:
        monkeypatch.setenv(variable, "a secret of the operator")
    log = tmp_path / "log"
    started = processes.start(
        "env", "os", (), log=log, directory=tmp_path, testbed_name="x", secrets={}
    )
    os.close(started.alive)
    try:
        environment = psutil.Process(started.pid).environ()
    except psutil.Error:
        # It had nothing to do and has ended.
        environment = {}
    finally:
        os.waitpid(started.pid, 0)
    assert "a secret of the operator" not in environment.values()


def test_another_user_reads_nothing(attacked: Testbed, attack: Attack) -> None:
    home = attacked.directory.parent
    (folder,) = {Path(each).parent for each in sockets(attacked)}
    known = [str(path) for path in (*below(home), *below(folder))]
    assert any(path.endswith("testbed.json") for path in known)
    readable = attack(
        """
        result = []
        for path in given["paths"]:
            try:
                if os.path.isdir(path):
                    os.listdir(path)
                else:
                    open(path, "rb").read(1)
                result.append(path)
            except OSError:
                continue
        for pid in given["pids"]:
            for name in ("environ", "mem", "fd/1", "cwd", "maps"):
                try:
                    open(f"/proc/{pid}/{name}", "rb").read(1)
                    result.append(f"{pid} {name}")
                except OSError:
                    continue
            for line in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0"):
                if given["token"].encode() in line:
                    result.append(f"{pid} cmdline")
        """,
        paths=known,
        pids=[process.pid for process in running(attacked).values()],
        token=attacked.token,
    )
    assert readable == []


def test_another_user_writes_and_removes_nothing(attacked: Testbed, attack: Attack) -> None:
    home = attacked.directory.parent
    (folder,) = {Path(each).parent for each in sockets(attacked)}
    changed = attack(
        """
        result = []
        for path in given["paths"]:
            for what, tried in {
                "write": lambda: open(path, "ab"),
                "remove": lambda: os.unlink(path),
                "rename": lambda: os.rename(path, "/tmp/taken"),
                "enter": lambda: open(os.path.join(path, "new"), "wb"),
                "open up": lambda: os.chmod(path, 0o777),
                "link": lambda: os.link(path, f"/tmp/link-{os.getpid()}"),
            }.items():
                try:
                    tried()
                    result.append(f"{what} {path}")
                except OSError:
                    continue
        """,
        paths=[str(path) for path in (*below(home), *below(folder))],
    )
    assert changed == []


def test_another_user_connects_nowhere(attacked: Testbed, attack: Attack) -> None:
    """Neither with the path nor with a call of any method, token or not."""
    answered = attack(
        """
        result = []
        for path in given["sockets"]:
            with socket.socket(socket.AF_UNIX) as each:
                try:
                    each.connect(path)
                    result.append(f"connected to {path}")
                except OSError:
                    pass
            options = [("grpc.min_reconnect_backoff_ms", 100)]
            with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
                for service, methods in ALLOWED.items():
                    for method in methods:
                        call = channel.unary_unary(f"/{service}/{method}")
                        try:
                            call(b"", timeout=5)
                            result.append(f"{path} answered {method}")
                        except grpc.RpcError as error:
                            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                                result.append(f"{path} {method} {error.code()}")
        """,
        sockets=sockets(attacked),
    )
    assert answered == []


def test_another_user_ends_nothing(attacked: Testbed, attack: Attack) -> None:
    pids = [process.pid for process in running(attacked).values()]
    ended = attack(
        """
        result = []
        for pid in given["pids"]:
            for number in (1, 2, 9, 15, 19):
                try:
                    os.kill(pid, number)
                    result.append(pid)
                except PermissionError:
                    continue
        """,
        pids=pids,
    )
    assert ended == []


def test_a_run_is_as_it_would_be_without_all_that(attacked: Testbed) -> None:
    with OperatorClient(attacked.address, attacked.token) as operator:
        assert operator.status().healthy
        run = operator.start_run(episodes=1)
        *_, last = operator.watch_run(run)
    assert last.dead_nodes == ()
    assert last.state in {"completed", "invalid"}
