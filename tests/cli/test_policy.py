"""Policies from the command line: in the store, in the simulator, and on real nodes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from testbed.experiment.statistics import holm
from testbed.policies import write_folder
from testbed.schedulers.catalogue import REFERENCES
from tests.cli.conftest import Command, Shell
from tests.policies import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy as an exporter leaves it."""
    write_folder(tmp_path / "exported", *tiny.per_destination(scenario="somewhere"))
    return tmp_path / "exported"


def test_what_is_imported_is_listed_shown_and_exported_again(
    testbed: Command, home: Path, folder: Path, tmp_path: Path
) -> None:
    said = testbed("policy", "import", folder)
    assert said.code == 0, said.err
    key = said.out.strip()
    card = json.loads((folder / "policy.json").read_text())
    assert key == f"policies/{card['id']}"
    assert (home / "artifacts" / key / "actor.onnx").exists()
    assert f"testbed policy deploy {card['id']}" in said.err
    assert testbed("policy", "import", folder).out.strip() == key, "twice is fine"

    listed = [
        each for each in testbed("policy", "list", "--json").document if each["reference"] == key
    ]
    assert [(each["id"], each["deployed"], each["scenario"]) for each in listed] == [
        (card["id"], False, "somewhere")
    ]
    assert card["id"] in testbed("policy", "list").out
    for reference in (key, card["id"], "tiny-", folder):
        assert testbed("policy", "show", reference, "--json").document["sha256"] == card["sha256"]
    assert card["sha256"] in testbed("policy", "show", key).out

    said = testbed("policy", "export", key, tmp_path / "again")
    assert said.code == 0, said.err
    for name in ("actor.onnx", "policy.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    said = testbed("policy", "export", key, tmp_path / "again")
    assert (said.code, "exists already" in said.err) == (2, True)


def test_the_default_store_is_the_homes_and_another_can_be_named(
    testbed: Command, home: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "other"
    assert testbed("policy", "import", folder, "--artifacts", store).code == 0
    mine = {each["id"] for each in testbed("policy", "list", "--json").document}
    monkeypatch.setenv("TESTBED_ARTIFACTS", str(store))
    there = {each["id"] for each in testbed("policy", "list", "--json").document}
    assert len(there - mine) == 1
    assert not (home / "artifacts").exists()


def test_what_is_no_policy_is_refused(testbed: Command, home: Path, folder: Path) -> None:
    actor = folder / "actor.onnx"
    whole = actor.read_bytes()
    for content, message in (
        (whole[:-1], "truncated or altered"),
        (whole[:-1] + b"?", "altered"),
    ):
        actor.write_bytes(content)
        said = testbed("policy", "import", folder)
        assert (said.code, message in said.err) == (2, True), said.err
    said = testbed("policy", "import", folder / "nowhere")
    assert (said.code, "no such file" in said.err) == (2, True)
    said = testbed("policy", "show", "nonsense")
    assert (said.code, "unknown policy" in said.err) == (2, True)
    said = testbed("policy", "deploy", "nonsense")
    assert (said.code, "no such testbed" in said.err) == (2, True)
    assert not (home / "artifacts").exists()


def test_a_damaged_policy_does_not_hide_the_others(
    testbed: Command, home: Path, folder: Path, tmp_path: Path
) -> None:
    write_folder(tmp_path / "second", *tiny.per_destination("second", own=1.0))
    for each in (folder, tmp_path / "second"):
        assert testbed("policy", "import", each).code == 0
    (torn,) = (home / "artifacts" / "policies").glob("tiny-*/actor.onnx")
    torn.write_bytes(b"")
    said = testbed("policy", "list")
    assert said.code == 0
    assert "second-" in said.out
    assert re.search(r"tiny-\w+ +damaged", said.out)
    assert "0 bytes instead of" in said.err
    for damage in (
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"version": 1, "files": 7}',
        b"\xff\xfe\x00",
        None,
    ):
        manifest = torn.with_name("manifest.json")
        if damage is None:
            manifest.unlink()
            os.mkfifo(manifest)
        else:
            manifest.write_bytes(damage)
        said = testbed("policy", "list", "--json")
        assert said.code == 0, said.err
        entries = {each["reference"].partition("-")[0]: each for each in json.loads(said.out)}
        assert entries["policies/second"]["damaged"] is None
        assert "manifest.json" in entries["policies/tiny"]["damaged"]


def test_a_reference_to_something_shipped_leads_nowhere_else(
    testbed: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "shipped" / "mine"
    write_folder(inside, *tiny.per_destination("mine"))
    write_folder(tmp_path / "policies" / "mine", *tiny.per_destination("mine"))
    for reference in (
        f"shipped/{inside}",
        f"shipped//{inside}",
        "shipped/mine",
        f"shipped/../{os.path.relpath(folder, tmp_path)}",
        "policies/mine",
        f"policies/../{os.path.relpath(folder, tmp_path)}",
        "~nobody-of-this-name/x",
        "",
    ):
        for command in ("show", "export", "evaluate"):
            more = {"export": ["out"], "evaluate": ["quickstart"]}.get(command, [])
            said = testbed("policy", command, reference, *more)
            assert said.code == 2, (reference, command, said.out, said.err)


def test_evaluate_compares_on_the_same_episodes(testbed: Command, folder: Path) -> None:
    arguments = (
        "policy",
        "evaluate",
        folder,
        "paper-testbed",
        "--episodes",
        4,
        "--set",
        "slots.count=10",
    )
    document = testbed(*arguments, "--json", "--first-episode", 3).document
    assert document["episodes"] == [3, 4, 5, 6]
    rates = document["success_rate"]
    methods = set(REFERENCES)
    assert methods > {"ratc", "rda-masked", "two-choice", "least-completion"}
    assert set(rates) == {"policy", *methods}
    assert set(document["difference"]) == methods
    for method, difference in document["difference"].items():
        between = rates["policy"]["mean"] - rates[method]["mean"]
        assert difference["mean"] == pytest.approx(between, abs=1e-9)
        assert difference["low"] <= difference["mean"] <= difference["high"]
    of = list(document["difference"].values())
    assert [each["p_adjusted"] for each in of] == holm([each["p_value"] for each in of])
    assert {each["tests"] for each in of} == {len(methods)}
    assert all(each["simultaneous_low"] <= each["low"] for each in of)
    assert testbed(*arguments, "--json", "--first-episode", 3).document == document

    said = testbed(*arguments, "--against", "random")
    assert said.code == 0, said.err
    assert "random" in said.out
    assert "ratc" not in said.out
    assert "adjusted" not in said.out
    said = testbed(*arguments, "--against", "random", "--against", "ratc")
    assert "adjusted p: the 2 p values of these comparisons together" in said.out
    said = testbed(*arguments, "--against", "nonsense")
    assert (said.code, "unknown scheduler" in said.err) == (2, True)


def test_sim_runs_a_policy_of_the_store(testbed: Command, folder: Path) -> None:
    policy = testbed("policy", "import", folder, "--json").document["id"]
    said = testbed(
        *("sim", "quickstart", "-s", "drl", "-o", f"policy={policy}", "-s", "local"),
        *("--episodes", 1, "--set", "slots.count=5", "--json"),
    )
    assert said.code == 2, "an option of drl is none of local's"
    said = testbed(
        *("sim", "quickstart", "-s", "drl", "-o", f"policy={policy}"),
        *("--episodes", 1, "--set", "slots.count=5", "--json"),
    )
    assert said.code == 0, said.err
    assert len(said.document["runs"]) == 1


@pytest.mark.timeout(90)
def test_deploy_and_rollback_on_real_nodes(shell: Shell, tmp_path: Path) -> None:
    ids = []
    for number in range(2):
        place = tmp_path / f"p{number}"
        write_folder(place, *tiny.per_destination(f"p{number}", own=float(number)))
        ids.append(json.loads((place / "policy.json").read_text())["id"])
    said = shell(
        "up", "quickstart", "--set", "slots.count=5", "--set", "timeScale=0.5", "-n", "deploys"
    )
    assert said.code == 0, said.err
    try:
        # A folder is imported on the way.
        done = shell("policy", "deploy", tmp_path / "p0", "-n", "deploys", "--json").document
        assert done["complete"]
        assert {each["state"] for each in done["nodes"]} == {"ready"}
        said = shell("policy", "import", tmp_path / "p1", "-n", "deploys")
        assert said.code == 0, said.err
        said = shell("policy", "deploy", "p1-", "-n", "deploys")
        assert said.code == 0, said.err
        assert "testbed policy rollback --name deploys" in said.err
        listed = shell("policy", "list", "-n", "deploys", "--json").document
        assert [each["id"] for each in listed if each["deployed"]] == [ids[1]]
        said = shell("run", "-s", "drl", "--episodes", "1", "-n", "deploys")
        assert said.code == 0, said.err
        nodes = shell("nodes", "-n", "deploys", "--json").document
        assert {each["scheduler"] for each in nodes} == {f"drl:{ids[1]}"}
        done = shell("policy", "rollback", "-n", "deploys", "--json").document
        assert (done["policy"], done["complete"]) == (ids[0], True)
        said = shell("policy", "deploy", "p1-", "--nodes", "1", "-n", "deploys")
        assert (said.code, "no run is under way" in said.err) == (2, True)
    finally:
        assert shell("teardown", "-n", "deploys").code == 0
