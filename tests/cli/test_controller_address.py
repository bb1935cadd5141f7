"""Commands that are told where a controller is, instead of finding a testbed of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.rpc.healthcheck import main as healthcheck
from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A testbed that the home of the commands knows nothing of."""
    runtime = LocalRuntime(tmp_path_factory.mktemp("elsewhere"))
    small = plan(load("quickstart", ["nodes.count=2", "slots.count=5", "timeScale=0.5"]))
    yield runtime.up(small, "far")
    runtime.down("far")


@pytest.fixture
def address(elsewhere: Testbed, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TESTBED_TOKEN", elsewhere.token)
    return elsewhere.address


def test_what_it_tells(testbed: Command, address: str, elsewhere: Testbed) -> None:
    status = testbed("status", "--controller", address, "--json")
    (listed,) = testbed("ps", f"--controller={address}", "--json").document

    assert status.document["testbed"] == "far"
    assert (listed["name"], listed["healthy"]) == ("default", 2)


def test_a_run_is_read_from_the_task_log_of_the_environment(
    testbed: Command, address: str, elsewhere: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_CONTROLLER", address)
    monkeypatch.setenv("TESTBED_STORAGE", elsewhere.store)

    run = testbed("run", "--episodes", "1", "--json").document
    known = [each["run"] for each in testbed("runs", "list", "--json").document]

    assert run["progress"]["completed"] == 1
    assert run["run"] in known


def test_learning_says_at_once_that_it_cannot_put_policies_where_the_environment_says(
    testbed: Command, address: str, elsewhere: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_CONTROLLER", address)
    monkeypatch.setenv("TESTBED_STORAGE", elsewhere.store)
    monkeypatch.setenv("TESTBED_ARTIFACTS", "/dev/null/artifacts")
    before = testbed("runs", "list", "--json").document

    said = testbed("learn")

    assert said.code == 5
    assert "from here /dev/null/artifacts" in said.err
    assert "let TESTBED_ARTIFACTS name that" in said.err
    assert testbed("runs", "list", "--json").document == before


@pytest.mark.parametrize(
    "command", [("up", "quickstart"), ("kill", 0), ("logs", 0), ("teardown",)], ids=lambda c: c[0]
)
def test_what_only_its_starter_can_do(
    testbed: Command, address: str, command: tuple[object, ...]
) -> None:
    said = testbed(*command, "--controller", address)

    assert said.code == 2
    assert f"the testbed at {address}" in said.err


def test_another_name(testbed: Command, address: str) -> None:
    said = testbed("status", "--controller", address, "--name", "far")

    assert said.code == 2
    assert "leave --name out" in said.err


def test_without_a_token(testbed: Command, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TESTBED_TOKEN")

    said = testbed("status", "--controller", address)

    assert said.code == 2
    assert "TESTBED_TOKEN_FILE" in said.err


def test_with_the_token_of_another(
    testbed: Command, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_TOKEN", "another")

    assert testbed("status", "--controller", address).code == 5


def test_the_token_in_a_file(
    testbed: Command, elsewhere: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(elsewhere.token)
    monkeypatch.delenv("TESTBED_TOKEN", raising=False)
    monkeypatch.setenv("TESTBED_TOKEN_FILE", str(tmp_path / "token"))

    assert testbed("status", "--controller", elsewhere.address).code == 0


def test_health_checks(elsewhere: Testbed, capfd: pytest.CaptureFixture[str]) -> None:
    codes = [
        healthcheck([elsewhere.address]),
        healthcheck([elsewhere.address, "edge_testbed.nodes"]),
        healthcheck([elsewhere.address, "no such service"]),
        healthcheck(["127.0.0.1:1"]),
    ]

    assert codes == [0, 0, 1, 1]
    answers = [line.rpartition(" ")[2] for line in capfd.readouterr().err.splitlines()]
    assert answers == ["SERVING", "SERVING", "NOT_FOUND", "UNAVAILABLE"]
