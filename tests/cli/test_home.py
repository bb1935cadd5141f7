"""Homes that are none, and homes that others may not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


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
    [("file", "is a file"), ("http://example.org/home", "is a URL"), ("hdfs://a/b", "is a URL")],
)
def test_what_is_no_home_is_refused(testbed: Command, home: Path, given: str, seen: str) -> None:
    Path("file").write_text("")
    said = testbed("--home", given, "runs", "list")
    assert said.code == 2
    assert seen in said.err
