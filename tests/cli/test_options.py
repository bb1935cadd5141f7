"""Values of options that are more than a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.api import home
from testbed.cli.options import from_log, key_values, node_numbers
from testbed.errors import UsageError


def test_key_values_are_yaml() -> None:
    given = ["probes=3", "share=0.5", "fast=true", "name=a=b", "peers=[1, 2]"]

    assert key_values(given, "--option") == {
        "probes": 3,
        "share": 0.5,
        "fast": True,
        "name": "a=b",
        "peers": [1, 2],
    }


def test_all_that_are_no_key_values_are_named() -> None:
    with pytest.raises(UsageError) as error:
        key_values(["good=1", "nothing", "=3", "list=[1"], "--option")

    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "numbers"),
    [(None, ()), ("0", (0,)), ("2,0, 2", (0, 2)), ("5-7,1", (1, 5, 6, 7)), ("3-3", (3,))],
)
def test_node_numbers(text: str | None, numbers: tuple[int, ...]) -> None:
    assert node_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999999"])
def test_what_are_no_node_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="node numbers cannot be read"):
        node_numbers(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3-1", "the smaller number first"),
        ("0-99999999", "'0-99999999'; allowed: up to 10000 numbers in a range"),
        ("9" * 5000, r"'9{37}\.\.\.'; allowed: numbers of up to 9 digits"),
        ("1-" + "9" * 5000, "allowed: numbers of up to 9 digits"),
    ],
)
def test_what_is_wrong_with_node_numbers_is_told(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        node_numbers(text)


def test_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home.choose(None)
    monkeypatch.delenv("TESTBED_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert home.home() == tmp_path / "state" / "edge-testbed"

    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "own"))
    assert home.home() == tmp_path / "own"

    home.choose(tmp_path / "chosen")
    assert home.home() == tmp_path / "chosen"
    home.choose(None)


def test_the_task_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home.choose(None)
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert home.choose_task_log(None) == str(tmp_path / "tasklog.sqlite")
    assert home.choose_task_log(None, "sqlite:///a.db") == f"sqlite:///{tmp_path / 'a.db'}"
    assert home.choose_task_log("b.db", "sqlite:///a.db") == str(tmp_path / "b.db")
    assert home.choose_task_log("mysql+pymysql://u@h/d") == "mysql+pymysql://u@h/d"


def test_a_hint_can_be_pasted_and_tells_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_STORAGE", "known.db")

    assert from_log("testbed compare", "my log.db") == "testbed compare --storage 'my log.db'"
    assert from_log("testbed compare", None) == "testbed compare"
    assert from_log("testbed compare", "known.db") == "testbed compare"
    assert "secret" not in from_log("testbed compare", "mysql+pymysql://u:secret@h/d")
