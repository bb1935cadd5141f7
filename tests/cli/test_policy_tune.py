"""``testbed policy tune``: from logged runs to a policy in the store, simulated and real."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from testbed.policies import load, shipped, write_folder
from tests.cli.conftest import Command, Shell
from tests.policies import tiny

SIZE = ("--set", "nodes.count=3", "--set", "slots.count=20")


def test_a_simulated_run_is_tuned_on_and_what_comes_out_is_in_the_store(
    testbed: Command, home: Path, tmp_path: Path
) -> None:
    said = testbed("sim", "quickstart", "-s", "drl", "--episodes", 12, *SIZE)
    assert said.code == 0, said.err
    said = testbed("policy", "tune", "latest", "--json", "--check-episodes", 0)
    assert said.code == 0, said.err
    document = said.document
    parent = shipped().card.id
    assert (document["kept"], document["parent"], document["check"]) == (True, parent, None)
    assert document["logs"]["episodes"] == 12
    assert document["logs"]["plain_returns"] == {}
    key = document["reference"]
    assert load(str(home / "artifacts"), key).card.parents == (parent,)

    # What was tuned decides, and is what is tuned next.
    said = testbed(
        *("sim", "quickstart", "-s", "drl", "-o", f"policy={document['id']}"),
        *("--episodes", 12, *SIZE),
    )
    assert said.code == 0, said.err
    said = testbed(
        *("policy", "tune", "latest", "--as", "again", "--check-episodes", 20),
        *("--out", tmp_path / "again"),
    )
    assert said.code == 0, said.err
    assert "in the simulator, 20 paired episodes" in said.err
    if "nothing was written" in said.err:
        assert f"{document['id']} stays" in said.err
        assert not (tmp_path / "again").exists()
    else:
        again = said.out.strip()
        assert load(str(home / "artifacts"), again).card.parents == (document["id"],)
        assert f"testbed policy deploy {again}" in said.err
        assert (tmp_path / "again" / "actor.onnx").exists()

    listed = testbed("runs", "list", "--json").document
    both = [run["run"] for run in listed]
    said = testbed("policy", "tune", *both)
    assert (said.code, "several policies decided" in said.err) == (2, True)
    assert parent in said.err
    assert document["id"] in said.err
    named = testbed("policy", "tune", *both, "--policy", document["id"], "--json").document
    assert named["logs"]["episodes"] == 12
    assert named["logs"]["not_used"]["by_others"] > 0


def test_what_cannot_be_tuned_on_is_refused(testbed: Command, home: Path, tmp_path: Path) -> None:
    assert testbed("sim", "quickstart", "-s", "local", "--episodes", 1, *SIZE).code == 0
    said = testbed("policy", "tune", "latest")
    assert (said.code, "no learned policy decided" in said.err) == (2, True)
    assert testbed("sim", "quickstart", "-s", "drl", "--episodes", 2, *SIZE).code == 0
    said = testbed("policy", "tune", "latest")
    assert (said.code, "not enough episodes to tune on" in said.err) == (2, True)
    write_folder(tmp_path / "flat", *tiny.flat(3))
    said = testbed("policy", "tune", "latest", "--policy", tmp_path / "flat")
    assert (said.code, "does not score destinations" in said.err) == (2, True)
    other = ("--set", "nodes.count=4", "--set", "slots.count=20")
    assert testbed("sim", "quickstart", "-s", "drl", "--episodes", 10, *other).code == 0
    runs = [run["run"] for run in testbed("runs", "list", "--json").document][-2:]
    said = testbed("policy", "tune", *runs)
    assert (said.code, "one scenario at a time" in said.err) == (2, True)
    assert not (home / "artifacts").exists()


def test_without_the_training_libraries_it_says_what_to_install(
    testbed: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def absent(name: str, package: str | None = None) -> object:
        return None if name == "torch" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    said = testbed("policy", "tune", "latest")
    assert said.code != 0
    assert "tuning needs torch" in said.err
    assert "pip install 'edge-testbed[train]'" in said.err


@pytest.mark.long
@pytest.mark.timeout(180)
def test_real_nodes_run_are_tuned_on_and_run_what_came_out(shell: Shell) -> None:
    small = ("--set", "nodes.count=3", "--set", "slots.count=15", "--set", "timeScale=0.5")
    said = shell("up", "quickstart", *small, "-n", "tunes")
    assert said.code == 0, said.err
    try:
        said = shell("run", "-s", "drl", "--episodes", "10", "-n", "tunes", "--json")
        assert said.code == 0, said.err
        # On a busy machine a run may be outside its limits of fidelity; here its logs will do.
        arguments = ("latest", "-n", "tunes", "--include-invalid", "--check-episodes", "0")
        document = shell("policy", "tune", *arguments, "--json").document
        assert document["parent"] == shipped().card.id
        assert document["logs"]["episodes"] == 10
        # What the nodes logged is, for nearly all, told completely and true to the model.
        assert len(document["logs"]["plain_returns"]) <= 3
        assert document["logs"]["not_used"]["not_by_weights"] == 0
        assert document["logs"]["not_used"]["not_sampled"] == 0
        done = shell("policy", "deploy", document["reference"], "-n", "tunes", "--json").document
        assert done["complete"]
        said = shell("run", "-s", "drl", "--episodes", "1", "-n", "tunes")
        assert said.code == 0, said.err
        nodes = shell("nodes", "-n", "tunes", "--json").document
        assert {each["scheduler"] for each in nodes} == {f"drl:{document['id']}"}
    finally:
        assert shell("teardown", "-n", "tunes").code == 0
