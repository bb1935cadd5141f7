"""Errors, signals and streams: what a shell sees of a command that did not go well."""

from __future__ import annotations

import gc
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.api import home as homes
from testbed.cli import main
from testbed.errors import PermanentError
from testbed.storage.tasklog import RunState, open_task_log
from tests.cli.conftest import Command, environment, program


def test_an_unknown_command_suggests_another(testbed: Command) -> None:
    said = testbed("statsu")

    assert said.code == 2
    assert "status" in said.err


def test_an_error_is_a_message_and_its_exit_code(testbed: Command) -> None:
    said = testbed("scenario", "show", "qickstart")

    assert said.code == 2
    assert said.err.startswith("error: ")
    assert "did you mean quickstart" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(testbed: Command, place: str) -> None:
    command = ["scenario", "show", "nothing"]

    said = testbed(*(["--debug", *command] if place == "before" else [*command, "--debug"]))

    assert said.code == 2
    assert "Traceback" in said.err


def test_a_defect_says_how_to_see_more(testbed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Path:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(homes, "home", broken)

    said = testbed("ps")

    assert said.code == 70
    assert "made up" in said.err
    assert "--debug" in said.err
    assert "Traceback" not in said.err


def test_quiet_leaves_results_only(testbed: Command) -> None:
    talkative, quiet = testbed("scenario", "list"), testbed("scenario", "list", "--quiet")

    assert "next: " in talkative.err
    assert quiet.err == ""
    assert quiet.out == talkative.out


def test_home_may_stand_after_the_command(testbed: Command, tmp_path: Path) -> None:
    said = testbed("doctor", "--json", "--home", tmp_path / "elsewhere")

    seen = {finding["check"]: finding["seen"] for finding in said.document["findings"]}
    assert seen["home"] == str(tmp_path / "elsewhere")


def test_output_to_a_full_disk(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            program("scenario", "list"),
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )

    assert done.returncode == 5
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_goes_away_is_no_news(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            program("--quiet", "scenario", "show", "quickstart"),
            env=environment(tmp_path),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_without_a_traceback(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    sim = subprocess.Popen(
        program("sim", "quickstart", "--episodes", "100000"),
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sim.stderr is not None
    with sim:
        sim.stderr.readline()
        sim.send_signal(number)
        rest = sim.stderr.read()
        sim.wait(30)

    assert sim.returncode == code
    assert "Traceback" not in rest
    with open_task_log(tmp_path / "tasklog.sqlite", create=False) as log:
        assert [run.state for run in log.runs()] == [RunState.STOPPED]


def test_an_interrupted_command_does_not_wait_for_threads_that_still_compute(
    tmp_path: Path,
) -> None:
    start = (
        "import atexit, os, threading; from testbed.cli.main import main; "
        "threading.Thread(target=threading.Event().wait).start(); "
        "atexit.register(os.write, 2, b'tidied up'); main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, "sim", "quickstart", "--episodes", "100000"],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as sim:
        assert sim.stderr is not None
        sim.stderr.readline()
        sim.send_signal(signal.SIGTERM)
        try:
            sim.wait(60)
        except subprocess.TimeoutExpired:
            sim.kill()
        rest = sim.stderr.read()

    assert sim.returncode == 143
    assert "tidied up" in rest


def on_a_terminal(home: Path, *arguments: str, **variables: str) -> str:
    """What a terminal of 80 columns shows while the command runs."""
    main_end, other_end = pty.openpty()
    process = subprocess.Popen(
        program(*arguments),
        env=environment(home, **{"TERM": "xterm-256color", "COLUMNS": "80", **variables}),
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        close_fds=True,
    )
    os.close(other_end)
    seen = b""
    with process:
        while select.select([main_end], [], [], 60)[0]:
            try:
                piece = os.read(main_end, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
    os.close(main_end)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def test_a_terminal_is_shown_progress_in_place(tmp_path: Path) -> None:
    seen = on_a_terminal(tmp_path, "sim", "quickstart", "--episodes", "3")

    assert "3 of 3" in seen
    assert "\x1b[1A" in seen, "the display is drawn over itself"
    assert "\x1b[1m" in seen


def test_no_color_is_respected(tmp_path: Path) -> None:
    seen = on_a_terminal(tmp_path, "scenario", "list", NO_COLOR="1")

    assert "quickstart" in seen
    assert "\x1b[3" not in seen


def test_starting_imports_nothing_heavy() -> None:
    program = (
        "import sys, testbed.cli.main\n"
        "heavy = {'pydantic', 'sqlalchemy', 'pandas', 'numpy', 'grpc', 'matplotlib', 'psutil',"
        " 'scipy', 'yaml', 'pyarrow', 'rich.table'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0, done.stderr


def test_main_is_the_console_script(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["testbed", "version"])
    try:
        with pytest.raises(SystemExit) as end:
            main.main()
        frozen = gc.get_freeze_count()
    finally:
        signal.signal(signal.SIGTERM, before)
        gc.unfreeze()

    assert end.value.code == 0
    # Or a command that has loaded the learning libraries takes seconds to end.
    assert frozen > 10_000


@pytest.mark.parametrize(
    ("raised", "code"), [(PermanentError("no room"), 5), (KeyboardInterrupt(), 130)]
)
def test_what_was_noted_about_an_error_is_printed(
    testbed: Command, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int
) -> None:
    def fail() -> None:
        raised.add_note("the cluster is kept for a look at it")
        raise raised

    monkeypatch.setattr("testbed.cli.network.places.all_places", fail)
    said = testbed("ps")
    assert said.code == code
    assert said.err.count("warning: the cluster is kept for a look at it") == 1
