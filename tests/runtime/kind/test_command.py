"""Programs end: by themselves, in time, or with all they have started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from testbed.errors import PermanentError, PrerequisiteMissing, TemporaryError
from testbed.runtime.kind import command


def python(program: str) -> tuple[str, str, str]:
    return sys.executable, "-c", program


def test_output_and_exit_code() -> None:
    ran = command.run(
        *python("import sys; print(input()); print('\\n worse \\n', file=sys.stderr); exit(3)"),
        timeout=20.0,
        stdin="hello",
    )

    assert (ran.code, ran.stdout, ran.said) == (3, "hello\n", "worse")


def test_lines_are_told_as_they_come() -> None:
    lines: list[str] = []

    code = command.stream(
        *python("import sys; print('one'); print('two', file=sys.stderr); print('3', end='')"),
        timeout=20.0,
        heard=lines.append,
    )

    assert code == 0
    assert sorted(lines) == ["3", "one", "two"]


def test_one_that_takes_too_long_is_ended() -> None:
    pids: list[int] = []
    with pytest.raises(TemporaryError, match=r"has not ended within 0\.2 s"):
        command.stream(
            *python("__import__('signal').pause()"),
            timeout=0.2,
            heard=lambda line: None,
            started=pids.append,
        )
    assert not psutil.pid_exists(pids[0])
    with pytest.raises(TemporaryError, match="docker info"):
        command.run(*python("__import__('signal').pause()"), timeout=0.2)


def test_a_deaf_one_is_killed_with_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "END_S", 0.1)
    program = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', '__import__(\"signal\").pause()']); "
        "print(child.pid, flush=True); signal.pause()"
    )
    children: list[psutil.Process] = []

    def heard(line: str) -> None:
        children.append(psutil.Process(int(line)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command.stream(*python(program), timeout=20.0, heard=heard)

    _, alive = psutil.wait_procs(children, timeout=20.0)
    assert alive == []


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissing, match=r"kind is not installed\n.*go install"):
        command.run("kind", "version", timeout=20.0)
    (tmp_path / "docker").write_text("not for everybody")
    if os.geteuid():
        with pytest.raises(PrerequisiteMissing, match="cannot be executed"):
            command.run("docker", "info", timeout=20.0)
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(PermanentError, match="cannot be started"):
        command.run("docker", "info", timeout=20.0)
