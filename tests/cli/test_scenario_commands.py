"""``init``, ``scenario``, ``scheduler list`` and ``doctor``."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from testbed.scenario.load import load, shipped_names, shipped_text
from tests.cli.conftest import Command, environment, program


@pytest.mark.parametrize("name", shipped_names())
def test_init_writes_a_scenario_that_loads(testbed: Command, tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "my.yaml"

    said = testbed("init", path, "--from", name)

    assert said.code == 0
    assert path.read_text() == shipped_text(name)
    assert load(path) == load(name)
    assert f"testbed up {path}" in said.err


def test_init_into_a_folder(testbed: Command, tmp_path: Path) -> None:
    assert testbed("init", tmp_path).code == 0
    assert (tmp_path / "scenario.yaml").exists()


def test_init_overwrites_only_when_told_to(testbed: Command, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("mine")

    said = testbed("init", path)

    assert (said.code, path.read_text()) == (2, "mine")
    assert "--force" in said.err
    assert testbed("init", path, "--force").code == 0
    assert path.read_text() == shipped_text("quickstart")


def test_init_where_nothing_can_be_written(testbed: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    said = testbed("init", tmp_path / "file" / "my.yaml")

    assert said.code == 5
    assert "choose another path" in said.err


def test_init_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a disk that is full."""
    done = subprocess.run(
        program("init", tmp_path / "my.yaml"),
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )

    assert done.returncode == 5, done.stderr
    assert "cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_list_and_show(testbed: Command) -> None:
    listed = testbed("scenario", "list", "--json").document

    assert [each["name"] for each in listed] == shipped_names()
    assert (
        testbed("scenario", "show", "quickstart").out.rstrip()
        == shipped_text("quickstart").rstrip()
    )


def test_show_with_settings_is_complete_and_loads_again(testbed: Command, tmp_path: Path) -> None:
    path = tmp_path / "changed.yaml"

    path.write_text(testbed("scenario", "show", "quickstart", "--set", "slots.count=7").out)

    assert load(path) == load("quickstart", ["slots.count=7"])
    assert yaml.safe_load(path.read_text())["rules"]["probeTimeout"]


def test_show_plan(testbed: Command) -> None:
    plan = testbed("scenario", "show", "quickstart", "--plan").document

    assert len(plan["topology"]["capacity_hz"]) == load("quickstart").nodes.count


def test_show_is_valid_under_the_schema(testbed: Command) -> None:
    schema = testbed("scenario", "schema").document

    jsonschema.validate(testbed("scenario", "show", "paper-testbed", "--json").document, schema)


def test_validate_reports_every_problem(testbed: Command, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    text = shipped_text("quickstart").replace("count: 30", "count: -1").replace("1ms", "1parsec")
    path.write_text(text.replace("dropHopeless", "dropHopless"))

    said = testbed("scenario", "validate", path, "quickstart")
    documents = testbed("scenario", "validate", path, "quickstart", "--json").document

    assert said.code == 2
    assert "ok quickstart" in said.out
    assert [each["valid"] for each in documents] == [False, True]
    assert {"rules.dropHopless", "links.controlDelay"} <= {
        problem["path"] for problem in documents[0]["problems"]
    }
    for problem in documents[0]["problems"]:
        assert problem["path"] in said.err


def test_scheduler_list(testbed: Command) -> None:
    listed = {each["name"]: each for each in testbed("scheduler", "list", "--json").document}

    assert {"local", "ratc", "rda-masked", "central", "oracle"} <= listed.keys()
    assert listed["oracle"]["runs"] == "simulator"
    assert {name for name, each in listed.items() if each["hook"] == "route"} == {
        *("slack", "all-local", "fixed-shares"),
    }
    assert set(listed["slack"]["options"]) == {"advertise", "overloaded"}
    assert all(each["description"] for each in listed.values())
    table = testbed("scheduler", "list").out
    assert all(name in table for name in listed)


def test_doctor_finds_this_machine_able(testbed: Command, home: Path) -> None:
    said = testbed("doctor", "--json")

    assert said.code == 0, said.out
    assert said.document["healthy"]
    statuses = {each["check"]: each["status"] for each in said.document["findings"]}
    assert statuses["home"] == statuses["network"] == statuses["task log"] == "ok"
    assert not home.exists(), "looking changes nothing"


def test_doctor_names_what_is_wrong_and_the_fix(testbed: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, and no folder")

    said = testbed("doctor", "--home", tmp_path / "file", "--storage", tmp_path / "file")

    assert said.code == 3
    assert "not ready: home, task log" in said.err
    assert "TESTBED_HOME" in said.out
    findings = testbed("doctor", "--storage", tmp_path / "file", "--json").document["findings"]
    assert [each["check"] for each in findings if each["status"] == "problem"] == ["task log"]


def test_doctor_weighs_the_network_that_is_wanted(testbed: Command, tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(json.dumps(_large()))

    findings = testbed("doctor", "--scenario", path, "--json").document["findings"]

    processors = next(each for each in findings if each["check"] == "processors")
    assert processors["status"] == "warning"
    assert "900 nodes" in processors["seen"]
    assert "timeScale" in processors["fix"]


def _large() -> dict[str, object]:
    data: dict[str, object] = yaml.safe_load(shipped_text("paper-simulation"))
    nodes = data["nodes"]
    assert isinstance(nodes, dict)
    nodes["count"] = 900
    return data
