"""What ``doctor`` says about a container engine and kind: notes, never problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.runtime.kind.engine import FakeEngine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine.installed(tmp_path, monkeypatch)


def findings(testbed: Command) -> dict[str, Mapping[str, Any]]:
    said = testbed("doctor", "--json")
    assert said.code == 0, said.out
    return {each["check"]: each for each in said.document["findings"]}


def test_both_are_there(testbed: Command, home: Path, engine: FakeEngine) -> None:
    found = findings(testbed)

    assert found["container engine"]["status"] == found["kind"]["status"] == "ok"
    assert found["container engine"]["seen"] == "Docker 28.2.2, 16.0 GB of memory"
    assert found["kind"]["seen"] == "kind 0.33"
    assert found["kubectl"]["status"] == "note"
    assert not home.exists()


def test_neither_is_there(testbed: Command, engine: FakeEngine) -> None:
    engine.removes("docker")
    engine.removes("kind")

    found = findings(testbed)

    for check in ("container engine", "kind", "kubectl"):
        assert found[check]["status"] == "note"
        assert found[check]["seen"] == "not installed; optional"
        assert found[check]["fix"] == ""


def test_the_engine_does_not_run(testbed: Command, engine: FakeEngine) -> None:
    engine.behaves(engine="down")

    found = findings(testbed)

    assert found["container engine"]["status"] == "note"
    assert "systemctl start docker" in found["container engine"]["fix"]
    # It has been said once.
    assert found["kind"]["status"] == "ok"


def test_what_kind_lacks(testbed: Command, engine: FakeEngine) -> None:
    engine.behaves(info={"MemTotal": 1_000_000_000})

    found = findings(testbed)

    assert found["kind"]["status"] == "note"
    assert "1.0 GB of memory" in found["kind"]["seen"]
    engine.behaves(info={}, kind="0.20.0")
    assert findings(testbed)["kind"]["seen"] == "kind 0.20 is too old"
