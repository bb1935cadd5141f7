"""Trackers are told what ``metrics.csv`` and the result have, and cannot harm an experiment."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from testbed.errors import UsageError
from tests.cli.conftest import ROOT, Command, home, testbed
from trainer.tracking import GROUP, Experiment, Tracking, open_trackers, settings_of

__all__ = ["home", "testbed"]

SMALL = (
    *("quickstart", "--simulate", "--set", "slots.count=8", "--log-episodes", 4),
    *("--offline-steps", 200, "--online-episodes", 20, "--evaluation-episodes", 2),
)

told: list[tuple[str, Any]] = []


class Noting:
    """Keeps what it is told in ``told``."""

    def begin(self, experiment: Experiment) -> None:
        told.append(("begin", experiment))

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        told.append(("metrics", (stage, step, values)))

    def artifact(self, path: Path) -> None:
        told.append(("artifact", path))

    def end(self, failure: str) -> None:
        told.append(("end", failure))


class Refusing(Noting):
    def begin(self, experiment: Experiment) -> None:
        raise ConnectionError("no such server")


class Failing(Noting):
    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        raise ConnectionError("gone")


class Half:
    def begin(self, experiment: Experiment) -> None: ...


class Demanding(Noting):
    def __init__(self, url: str) -> None: ...


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata.entry_points

    def entry_points(**asked: str) -> Any:
        if asked.get("group") != GROUP:
            return found(**asked)
        return [metadata.EntryPoint("noting", f"{__name__}:Noting", GROUP)]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    told.clear()


def rows(folder: Path) -> dict[int, dict[str, float]]:
    """The rows of ``metrics.csv`` by step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return {
            int(row.pop("step")): {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        }


def test_a_tracker_is_told_what_the_files_have(testbed: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = testbed("o2o", *SMALL, "--out", out, "--tracker", "noting", "--json")
    assert said.code == 0, said.err
    begun, *metrics, policies, report, ended = told
    assert begun[0] == "begin"
    experiment = begun[1]
    assert (experiment.name, experiment.folder, experiment.continued) == ("quickstart", out, False)
    assert experiment.settings["source"] == "ratc"
    assert experiment.settings["recipe.offline.steps"] == 200
    assert all(isinstance(value, str | int | float) for value in experiment.settings.values())
    by_stage: dict[str, dict[int, dict[str, float]]] = {}
    for what, (stage, step, values) in metrics:
        assert what == "metrics"
        by_stage.setdefault(stage, {})[step] = values
    assert by_stage.keys() == {"offline", "online", "evaluation"}
    assert by_stage["offline"] == rows(out / "offline")
    assert by_stage["online"] == rows(out / "online")
    rates = said.document["success_rate"]
    means = by_stage["evaluation"][0]
    assert means["o2o"] == pytest.approx(rates["o2o"]["mean"], abs=1e-6)
    assert means.keys() == {*rates, "bound"}
    assert [policies, report, ended] == [
        ("artifact", out / "policies"),
        ("artifact", out / "report"),
        ("end", ""),
    ]
    assert (out / "report" / "index.html").exists()

    told.clear()
    again = testbed("o2o", *SMALL, "--out", out, "--tracker", "noting")
    assert again.code == 0, again.err
    assert told[0][1].continued
    stages = {each[1][0] for each in told if each[0] == "metrics"}
    assert stages == {"evaluation"}


class FakeMlflow(ModuleType):
    """Takes the calls of the example, and keeps them."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **named: self.calls.append((name, given, named))


def test_the_example_tells_mlflow(
    testbed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "o2o.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(import mlflow\n.*?)^```", page, re.M | re.S)
    Path("to_mlflow.py").write_text(example)
    mlflow = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    out = tmp_path / "out"
    said = testbed("o2o", *SMALL, "--out", out, "--tracker", "to_mlflow:Mlflow", "--tracker", FAILS)
    assert said.code == 0, said.err
    assert f"tracker '{FAILS}' is left out from now on: ConnectionError: gone, at " in said.err
    names = [name for name, _, _ in mlflow.calls]
    assert names[:3] == ["set_experiment", "start_run", "log_params"]
    assert names[-3:] == ["log_artifacts", "log_artifacts", "end_run"]
    assert set(names[3:-3]) == {"log_metrics"}
    (entropy,) = [
        given[0]["offline/entropy"]
        for name, given, named in mlflow.calls
        if name == "log_metrics" and named == {"step": 200} and "offline/entropy" in given[0]
    ]
    assert entropy == rows(out / "offline")[200]["entropy"]
    assert mlflow.calls[-1] == ("end_run", ("FINISHED",), {})


FAILS = f"{__name__}:Failing"


def test_a_tracker_that_cannot_begin_ends_the_experiment_at_once(
    testbed: Command, tmp_path: Path
) -> None:
    said = testbed(
        *("o2o", *SMALL, "--out", tmp_path / "out"),
        *("--tracker", "noting", "--tracker", f"{__name__}:Refusing"),
    )
    assert said.code == 2, said.err
    assert "Refusing' cannot begin: ConnectionError: no such server, at " in said.err
    # The other one, which has begun, hears of the end.
    assert [what for what, _ in told] == ["begin", "end"]
    assert "no such server" in told[-1][1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mlflow", "unknown tracker 'mlflow'; known: noting"),
        ("not_there:Tracker", "cannot be loaded from not_there:Tracker"),
        (f"{__name__}:Half", "has no metrics, no artifact, no end"),
        (f"{__name__}:Demanding", "cannot be made: TypeError"),
    ],
)
def test_what_is_no_tracker_is_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_trackers([name], lambda line: None)


def test_a_name_where_no_tracker_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    with pytest.raises(UsageError, match="no package with one is installed"):
        open_trackers(["mlflow"], lambda line: None)


def test_an_end_says_why() -> None:
    with suppress(KeyboardInterrupt), Tracking({"noting": Noting()}) as tracking:
        tracking.begin(Experiment("mine", Path("out"), {}))
        raise KeyboardInterrupt
    assert told[-1] == ("end", "interrupted")


def test_settings_are_flat() -> None:
    nested = {"a": {"b": 1, "c": {"d": None, "e": (64, 64)}}, "f": True, "g": "text"}
    assert settings_of(nested) == {
        "a.b": 1,
        "a.c.d": "null",
        "a.c.e": "[64, 64]",
        "f": True,
        "g": "text",
    }
