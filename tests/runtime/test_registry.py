"""Runtimes by name: the built-in ones, and those that other packages bring."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.runtime import registry
from testbed.runtime.local import LocalRuntime
from tests.cli.conftest import Command, home, testbed

__all__ = ["home", "testbed"]


class Own(LocalRuntime):
    """A runtime of another package: as the local one, but for testbeds in a folder of its own."""

    takes = frozenset({"namespace"})

    @classmethod
    def open(cls, settings: registry.Settings) -> Own:
        return cls(settings.home / (settings.namespace or "own"))


class Failing:
    takes: frozenset[str] = frozenset()

    @staticmethod
    def open(settings: registry.Settings) -> Any:
        raise RuntimeError("no room")


NOT_ONE = object()


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> list[metadata.EntryPoint]:
        if group != "edge_testbed.runtimes":
            # Of others, which may keep this function, as pydantic does that is imported here first.
            return []
        named = {"own": "Own", "failing": "Failing", "not-one": "NOT_ONE", "local": "Own"}
        targets = {name: f"{__name__}:{target}" for name, target in named.items()}
        targets["absent"] = "not_there_at_all:Runtime"
        return [metadata.EntryPoint(name, target, group) for name, target in targets.items()]

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def test_names_are_the_built_in_ones_and_those_of_packages() -> None:
    assert registry.names() == ("local", "kind", "cluster", "absent", "failing", "not-one", "own")


def test_a_built_in_name_cannot_be_taken(tmp_path: Path) -> None:
    assert type(registry.open_runtime("local", registry.Settings(home=tmp_path))) is LocalRuntime


def test_settings_reach_a_runtime_of_another_package(tmp_path: Path) -> None:
    made = registry.open_runtime("own", registry.Settings(home=tmp_path, namespace="lab"))
    assert isinstance(made, Own)
    assert made.home == tmp_path / "lab"
    assert registry.takes("own") == {"namespace"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("swarm", "unknown runtime 'swarm'; known: local, kind, cluster, absent, failing"),
        ("absent", "runtime 'absent' cannot be loaded from not_there_at_all:Runtime"),
        ("not-one", "is no factory of runtimes"),
        ("failing", "runtime 'failing' cannot be made: RuntimeError: no room"),
    ],
)
def test_what_cannot_be_opened_is_said(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        registry.open_runtime(name, registry.Settings(home=tmp_path))
    assert said in str(refused.value)


def test_the_command_line_takes_it(testbed: Command) -> None:
    listed = testbed("ps", "--json", "--runtime", "own", "--namespace", "lab")
    refused = testbed("ps", "--runtime", "own", "--context", "x")

    assert (listed.code, listed.document) == (0, [])
    assert refused.code == 2
    assert "--context: is given; only with --runtime cluster" in refused.err


def test_one_that_cannot_be_loaded_hides_no_other(testbed: Command, home: Path) -> None:
    (home / ".places").mkdir(parents=True)
    (home / ".places" / "lost.json").write_text('{"runtime": "absent"}')

    listed = testbed("ps", "--json")

    assert (listed.code, listed.document) == (0, [])
    assert "runtime 'absent' cannot be loaded" in listed.err
