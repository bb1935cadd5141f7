"""``testbed o2o`` from the command line: what is refused before anything is done."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command, home, testbed
from trainer.o2o.folder import SETTINGS, working_in

__all__ = ["home", "testbed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--online-only",), "--simulate"),
        (("--source", "rtac"), "did you mean 'ratc'"),
        (("--source", "rtac", "--simulate"), "did you mean 'ratc'"),
        (("--recipe", "best"), "one of default, paper"),
        (("--kl-stop", "0"), "ppo.kl_stop: 0.0; above 0 or none"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_done(
    testbed: Command, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    said = testbed("o2o", "quickstart", *arguments, "--out", tmp_path / "out")
    assert said.code == 2, said.err
    assert says in said.err
    assert "bringing up" not in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_sigterm_ends_an_experiment_like_ctrl_c_and_leaves_it_to_go_on(tmp_path: Path) -> None:
    sizes = ("--log-episodes", "4", "--offline-steps", "4000", "--online-episodes", "10")
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-c", "from testbed.cli.main import main; main()"),
        *("--home", str(tmp_path / "home")),
        *("o2o", "quickstart", "--simulate", *sizes, "--evaluation-episodes", "2"),
        *("--out", str(out)),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as begun:
        assert begun.stderr is not None
        for line in begun.stderr:
            if line.startswith(b"offline"):
                break
        begun.send_signal(signal.SIGTERM)
        rest = begun.stderr.read()
        assert begun.wait(60) == 128 + signal.SIGTERM
    assert f"--out {out}".encode() in rest
    assert b"Traceback" not in rest
    assert (out / SETTINGS).exists()
    with working_in(out):
        pass


@pytest.mark.parametrize("where", [("--simulate",), ()])
def test_a_folder_with_something_else_is_left_alone(
    testbed: Command, tmp_path: Path, where: tuple[str, ...]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("precious")
    said = testbed("o2o", "quickstart", *where, "--anew", "--out", tmp_path)
    assert said.code == 2, said.err
    assert f"{tmp_path} is not empty" in said.err
    assert "bringing up" not in said.err
    assert (tmp_path / "data" / "thesis.tex").exists()
