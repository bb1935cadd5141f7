"""Every metric is one by which commands and the Python functions compare runs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import testbed as tb
from testbed.cli import main
from testbed.experiment import metrics
from testbed.experiment.metrics import METRICS
from tests.cli.conftest import Command
from tests.experiment.test_metrics import entry_points

BUILT_IN = tuple(METRICS.built_in)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with ratc, rda and local on the same tasks."""
    log = tmp_path_factory.mktemp("log") / "log.sqlite"
    run = ["sim", "quickstart", "--set", "slots.count=12", "-e", "5", "--quiet"]
    assert main.run([*run, "-s", "ratc", "-s", "rda", "-s", "local", "--storage", str(log)]) == 0
    return log


@pytest.mark.parametrize("name", BUILT_IN)
def test_commands_and_python_take_every_metric(
    name: str, testbed: Command, path: Path, tmp_path: Path
) -> None:
    metric = metrics.find(name)
    document = testbed("compare", "--storage", path, "--by", name, "--json").document
    report = testbed("report", "--storage", path, "--by", name, "--out", tmp_path / "r", "--json")
    shown = testbed("runs", "show", "--storage", path)
    compared = tb.open_log(path).runs().compare().by(name)

    assert document["metric"] == metric.document
    assert testbed("compare", "--storage", path, "--by", name).code == 0
    assert report.code == 0, report.err
    page = (tmp_path / "r" / "index.html").read_text()
    assert ">Success rate</h2>" in page
    assert f">{metric.title[0].upper()}{metric.title[1:]}</h2>" in page
    assert report.document["metric"]["name"] == name
    assert name in shown.out
    assert name in testbed("runs", "show", "--storage", path, "--json").document["metrics"]
    assert compared.verdicts == [pair["verdict"] for pair in document["pairs"]]
    assert compared.paired(name)["difference"].abs().tolist() == pytest.approx(
        [abs(pair["difference"]) for pair in document["pairs"]]
    )
    assert list(compared.results[0].metrics.index) == list(BUILT_IN)
    assert compared.results[0].metrics["mean"][name] == pytest.approx(
        compared.table.loc[0, _in(name)]
    )
    assert compared.results[0].metrics["better"][name] == metric.better
    figure = compared.figure("metric")
    assert figure.axes[0].get_xlabel()
    assert compared._repr_html_()


def _in(name: str) -> str:
    return "success_rate" if name == "success-rate" else name


def test_an_unknown_metric_is_refused_with_the_known(testbed: Command, path: Path) -> None:
    for command in ("compare", "report"):
        answer = testbed(command, "--storage", path, "--by", "nope")
        assert answer.code == 2
        assert f"unknown metric 'nope'; known: {', '.join(BUILT_IN)}" in answer.err


def test_the_next_command_is_by_the_same_metric(testbed: Command, path: Path) -> None:
    assert (
        "testbed report --by dropped --out"
        in testbed("compare", "--storage", path, "--by", "dropped").err
    )
    assert "--by" not in testbed("compare", "--storage", path).err


def test_compare_by_default_is_by_the_success_rate(testbed: Command, path: Path) -> None:
    default = testbed("compare", "--storage", path)
    named = testbed("compare", "--storage", path, "--by", "success-rate")

    assert default.out == named.out
    header = default.out.splitlines()[0].split()
    assert header == ["RUN", "SCHEDULER", "EPISODES", "TASKS", "SUCCESS", "DROPPED", "FAILED"]


def test_a_metric_of_another_package_that_fails_is_shown_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, testbed: Command, path: Path
) -> None:
    monkeypatch.setattr(metadata, "entry_points", entry_points)

    shown = testbed("runs", "show", "--storage", path, "--json").document["metrics"]
    assert shown["own"]["unit"] == "tasks"
    assert "ZeroDivisionError" in shown["raising"]["problem"]
    assert "cannot be loaded" in shown["nothing"]["problem"]
    assert "ZeroDivisionError" in testbed("runs", "show", "--storage", path).out
