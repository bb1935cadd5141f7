"""``testbed o2o`` from the command line: what is refused before anything is done."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.files import working_in
from tests.cli.conftest import Command, Shell, home, shell, testbed
from trainer.o2o.folder import SETTINGS

__all__ = ["home", "shell", "testbed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--online-only",), "--simulate"),
        (("--source", "rtac"), "did you mean 'ratc'"),
        (("--source", "rtac", "--simulate"), "did you mean 'ratc'"),
        (("--recipe", "best"), "one of default, paper, released"),
        (("--learner", "best", "--simulate"), "one of cql, cloning, iql, dqn, shared-target"),
        (
            ("--learner", "iql", "--simulate", "--ray-address", "auto"),
            "only cql can be learned remotely",
        ),
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
    with working_in(out, "experiment"):
        pass


def learned(testbed: Command | Shell, tmp_path: Path) -> str:
    """The id of a policy that `testbed o2o` has trained a little on `extended-v1`."""
    sizes = ("--log-episodes", 4, "--offline-steps", 40, "--online-episodes", 10)
    said = testbed(
        *("o2o", "quickstart", "--simulate", "--encoder", "extended-v1", *sizes),
        *("--evaluation-episodes", 2, "--set", "slots.count=8", "--out", tmp_path / "out"),
        "--json",
    )
    assert said.code == 0, said.err
    policy: str = said.document["policies"]["o2o"]
    card = testbed("policy", "show", policy, "--json").document
    assert (card["kind"], card["encoder"]) == ("flat", "extended-v1")
    return policy


def test_another_encoder_is_trained_and_evaluated_by_commands(
    testbed: Command, tmp_path: Path
) -> None:
    policy = learned(testbed, tmp_path)
    document = testbed(
        *("policy", "evaluate", policy, "quickstart", "--set", "slots.count=8"),
        *("--set", "links.controlDelay=0s", "--episodes", 2, "--against", "ratc", "--json"),
    ).document
    assert document["success_rate"]["policy"]["mean"] > 0.2
    said = testbed(
        *("o2o", "quickstart", "--simulate", "--set", "slots.count=8"),
        *("--log-episodes", 4, "--evaluation-episodes", 2, "--out", tmp_path / "out"),
    )
    assert said.code == 2, said.err
    assert 'encoder: "extended-v1"; "paper-v1", as requested now' in said.err
    said = testbed("o2o", "quickstart", "--simulate", "--encoder", "mine", "--out", tmp_path / "x")
    assert (said.code, "unknown encoder" in said.err) == (2, True)


@pytest.mark.long
def test_another_encoder_decides_on_real_nodes(shell: Shell, tmp_path: Path) -> None:
    policy = learned(shell, tmp_path)
    size = ("--set", "slots.count=8", "--set", "timeScale=0.5", "-n", "extended")
    assert shell("up", "quickstart", *size).code == 0
    try:
        done = shell("policy", "deploy", policy, "-n", "extended", "--json").document
        assert done["complete"]
        said = shell("run", "-s", "drl", "--episodes", 1, "-n", "extended")
        assert said.code == 0, said.err
        nodes = shell("nodes", "-n", "extended", "--json").document
        assert {each["scheduler"] for each in nodes} == {f"drl:{policy}"}
    finally:
        assert shell("teardown", "-n", "extended").code == 0


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
