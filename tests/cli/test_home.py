"""Homes that are none, and homes that others may not read."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Command, environment, program


def test_a_new_home_is_its_owners_alone(testbed: Command, home: Path) -> None:
    assert testbed("sim", "quickstart", "-s", "local", "-e", "1").code == 0
    assert home.stat().st_mode & 0o777 == 0o700


def test_one_that_others_can_read_is_tightened(testbed: Command, home: Path) -> None:
    assert testbed("sim", "quickstart", "-s", "local", "-e", "1").code == 0
    home.chmod(0o755)
    (home / "tasklog.sqlite").chmod(0o644)
    assert testbed("runs", "list").code == 0
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "tasklog.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_no_home_keeps_its_mode(testbed: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert testbed("--home", tmp_path, "scenario", "list").code == 0
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("file", "file is a file"),
        ("file/below", "file is a file"),
        ("dangling", "dangling is a symbolic link that leads nowhere"),
        ("dangling/below", "dangling is a symbolic link that leads nowhere"),
        ("loop", "loop is a symbolic link that leads nowhere"),
        ("~nosuchuser/home", "begins with a user that this machine does not know"),
        ("n" * 300, "file name too long"),
        ("http://example.org/home", "is a URL"),
        ("hdfs://a/b", "is a URL"),
    ],
)
@pytest.mark.parametrize("way", ["option", "environment"])
def test_what_is_no_home_is_refused(
    testbed: Command, monkeypatch: pytest.MonkeyPatch, given: str, seen: str, way: str
) -> None:
    Path("file").write_text("")
    Path("dangling").symlink_to("nowhere/x")
    Path("loop").symlink_to("loop")
    if way == "option":
        said = testbed("--home", given, "runs", "list")
    else:
        monkeypatch.setenv("TESTBED_HOME", given)
        said = testbed("runs", "list")
    assert said.code == 2
    assert seen in said.err


def test_a_home_that_may_not_be_written_says_what_to_do(testbed: Command, tmp_path: Path) -> None:
    """Even root may make no folder in /proc."""
    said = testbed("--home", "/proc/self/fdinfo/home", "sim", "quickstart", "-e", "1")
    assert said.code in (3, 5)
    assert "cannot be made" in said.err
    assert "--storage" in said.err


def test_a_relative_home_is_that_of_the_folder_the_command_began_in(
    testbed: Command, tmp_path: Path
) -> None:
    assert testbed("--home", "here", "sim", "quickstart", "-s", "local", "-e", "1").code == 0
    assert (tmp_path / "work" / "here" / "tasklog.sqlite").is_file()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_everything_in_a_home_is_its_owners_alone(
    testbed: Command, home: Path, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        assert testbed("policy", "export", "shipped/per-destination-v1", "policy").code == 0
        assert testbed("policy", "import", "policy").code == 0
        assert testbed("sim", "quickstart", "-s", "local", "-e", "1").code == 0
        assert testbed("dataset", "build").code == 0
        assert testbed("up", "quickstart", "--set", "nodes.count=2").code == 0
        assert testbed("teardown").code == 0
    finally:
        os.umask(before)

    files = [path for path in (home, *home.rglob("*")) if path.stat().st_mode & 0o077]
    assert not files
    assert {"artifacts", "datasets", "tasklog.sqlite", "default"} <= {
        path.name for path in home.iterdir()
    }
    assert (tmp_path / "work" / "policy").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("umask", [0o777, 0o277, 0o177, 0])
def test_a_home_can_be_used_by_its_owner_whatever_the_umask(home: Path, umask: int) -> None:
    for arguments in (("sim", "quickstart", "-s", "local", "-e", "1"), ("runs", "list")):
        done = subprocess.run(
            program(*arguments),
            env=environment(home),
            capture_output=True,
            umask=umask,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "tasklog.sqlite").stat().st_mode) == 0o600
