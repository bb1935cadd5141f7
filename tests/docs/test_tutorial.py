"""The commands of docs/tutorial.md do what the page says, in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import testbed as tb
from testbed.cli import main
from testbed.runtime.local import LocalRuntime

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
COMMAND = re.compile(r"^\$ testbed (.*)$", re.MULTILINE)


def test_every_command_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    commands = [shlex.split(line) for line in COMMAND.findall(PAGE)]
    try:
        for command in commands:
            capsys.readouterr()
            code = main.run(command)
            assert code == 0, f"{command}: {capsys.readouterr().err}"
    finally:
        main.run(["teardown", "--name", "mine"])
        tb.use_home(None)

    assert len(commands) > 12
    assert (tmp_path / "my-report" / "index.html").is_file()
    assert list((tmp_path / "my-export").glob("*.csv"))
    assert LocalRuntime(tmp_path / "home").names() == ()
