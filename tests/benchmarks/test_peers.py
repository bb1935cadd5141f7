"""The peers that are installed are measured, on the same work."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from benchmarks import peers


def module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.peers.{name}")


# Locust replaces parts of the interpreter and of the standard library, so it has an environment of
# its own and is tried there.
HERE = [name for name in peers.PEERS if not module(name).lacks()]


def test_all_but_one_are_tried_here() -> None:
    assert set(peers.PEERS) - set(HERE) <= {"locust_generator"}


@pytest.mark.parametrize("name", HERE)
def test_a_peer_gives_figures_of_its_own_and_of_ours(name: str) -> None:
    found = module(name).rows(quick=True)

    assert len(found) >= 3
    assert all(row["value"] >= 0 for row in found)
    assert {"x"} & {row["unit"] for row in found}


def test_the_simpy_model_agrees_with_ours() -> None:
    found = module("simpy_ratc").rows(quick=True)

    by_name = {row["benchmark"]: row["value"] for row in found}
    # Three episodes, other failures: 1.4 points by chance; 0.1 over sixty.
    assert by_name["difference of the success rates"] < 3.0


def test_what_is_not_installed_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in peers.PEERS:
        found = importlib.import_module(f"benchmarks.peers.{name}")
        monkeypatch.setattr(found, "lacks", lambda: ["some-package"])

    assert peers.rows() == []
    said = capsys.readouterr().err
    assert said.count("some-package is not installed") == len(peers.PEERS)
    assert "edge-testbed[peers" in said
