"""The environment variables: read by their names and, for a release, by their earlier ones."""

from __future__ import annotations

import logging

import pytest

from testbed import environment


def test_every_variable_has_a_meaning_and_the_prefix() -> None:
    names = {
        value for name, value in vars(environment).items() if name.isupper() and type(value) is str
    }
    assert names <= set(environment.MEANINGS)
    assert all(name.startswith("TESTBED_") for name in names)
    assert set(environment.EARLIER) - {f"{environment.PROCESS_TOKEN}_FILE"} <= names


def test_an_earlier_name_is_read_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(environment.PROCESS_STORAGE, raising=False)
    assert environment.read(environment.PROCESS_STORAGE) == ""
    monkeypatch.setenv("EDGE_TESTBED_STORE", "old")
    with caplog.at_level(logging.WARNING):
        assert environment.read(environment.PROCESS_STORAGE) == "old"
    assert "EDGE_TESTBED_STORE is now called TESTBED_PROCESS_STORAGE" in caplog.text
    caplog.clear()
    monkeypatch.setenv(environment.PROCESS_STORAGE, "new")
    assert environment.read(environment.PROCESS_STORAGE) == "new"
    assert not caplog.text


def test_a_process_of_an_earlier_version_is_found() -> None:
    assert environment.found({"EDGE_TESTBED_DIR": "/a"}, environment.PROCESS_FOLDER) == "/a"
    both = {"EDGE_TESTBED_DIR": "/a", environment.PROCESS_FOLDER: "/b"}
    assert environment.found(both, environment.PROCESS_FOLDER) == "/b"
    assert environment.found({}, environment.PROCESS_FOLDER) is None
