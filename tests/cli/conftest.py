"""Runs command lines: in this process where it is enough, as a process of their own where not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from testbed.cli import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """What a command line ended with and wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as JSON."""
        assert self.out, f"exit code {self.code}: {self.err}"
        return json.loads(self.out)


Command: TypeAlias = Callable[..., Said]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that holds nothing yet, and a working directory beside it."""
    folder = tmp_path / "home"
    for variable in ("TESTBED_NAME", "TESTBED_STORAGE", "TESTBED_CONTROLLER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TESTBED_HOME", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture
def testbed(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``testbed ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main.run([str(each) for each in arguments])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


def program(*arguments: object) -> list[str]:
    """The argv of ``testbed ARGUMENTS`` as a process of its own."""
    start = "from testbed.cli.main import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


def environment(home: Path, **more: str) -> Mapping[str, str]:
    """What such a process is started with."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TESTBED_")}
    return {**kept, "TESTBED_HOME": str(home), "PYTHONPATH": str(ROOT), **more}


class Shell:
    """Runs ``testbed ARGUMENTS`` in one home, in this process or as processes of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: object) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main.run(["--home", str(self.home), *map(str, arguments)])
        return Said(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The same as a process, not waited for."""
        return subprocess.Popen(
            program(*arguments),
            env=environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a home of its own; whatever is up in it at the end is taken down."""
    shell = Shell(tmp_path_factory.mktemp("home"))
    yield shell
    shell("teardown", "--all")
