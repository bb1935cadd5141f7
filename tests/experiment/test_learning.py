"""Learning experiments are read from their folders, also while they learn."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.experiment import learning

ROWS = (
    "step,episodes,evaluation,standard_error,rolled_back,loss\n"
    "0,0,0.8,0.01,0.0,\n"
    "1,10,,,0.0,0.5\n"
    "2,20,0.7,0.02,1.0,nan\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment that learns online."""
    made = tmp_path / "o2o" / "20260131-142501-quickstart-1"
    (made / "online").mkdir(parents=True)
    (made / "settings.json").write_text(json.dumps({"source": "ratc", "seed": 3}))
    (made / "online" / "metrics.csv").write_text(ROWS)
    return made


def test_curves_are_read_while_they_are_written(folder: Path) -> None:
    before = learning.stamp(folder)
    with (folder / "online" / "metrics.csv").open("a") as stream:
        stream.write("3,30,0.9")

    found = learning.read(folder)

    assert learning.stamp(folder) != before
    assert list(found.curves) == ["o2o"]
    curve = found.curves["o2o"]
    assert [row["step"] for row in curve.rows] == [0, 1, 2]
    assert curve.columns == ("episodes", "evaluation", "standard_error", "rolled_back", "loss")
    assert curve.points("evaluation", "episodes") == [(0, 0.8), (20, 0.7)]
    assert curve.points("loss") == [(1, 0.5)]
    with (folder / "online" / "metrics.csv").open("a") as stream:
        stream.write("5,0.01,0.0,0.1\n")
    assert learning.read(folder).curves["o2o"].points("evaluation")[-1] == (3, 0.95)


def test_the_state_of_an_experiment(folder: Path) -> None:
    assert learning.read(folder).state == "stopped"
    (folder / ".lock").write_text(f"process {os.getpid()} on {socket.gethostname()}")
    assert learning.read(folder).state == "learning"
    (folder / ".lock").write_text(f"process {os.getpid()} on elsewhere")
    (folder / "report").mkdir()
    (folder / "report" / "o2o.json").write_text(
        json.dumps({"policies": {"o2o": "o2o-0123456789ab"}, "during_fine_tuning": {"ratc": 0.75}})
    )
    found = learning.read(folder)
    assert found.state == "finished"
    assert found.policies == {"o2o": "o2o-0123456789ab"}
    assert found.references == {"ratc": 0.75}


def test_experiments_of_a_home(folder: Path) -> None:
    root = folder.parent
    (root / "something else").mkdir()
    other = root / "another"
    other.mkdir()
    (other / "network.json").write_text(json.dumps({"identity": {"source": "rda"}, "runs": {}}))

    found = learning.experiments(root)

    assert [each.name for each in found] == [folder.name, "another"]
    assert found[1].settings == {"source": "rda"}
    assert [each.simulated for each in found] == [True, False]
    assert learning.find(root, "another").folder == other
    for name in ("nobody", "../o2o/another", "", "something else"):
        with pytest.raises(UsageError, match="another"):
            learning.find(root, name)
    assert learning.experiments(root / "nowhere") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "step\n", '{"policies": []}', "\x00"])
def test_damaged_files_are_as_if_they_were_not_there(folder: Path, text: str) -> None:
    (folder / "report").mkdir()
    for name in ("settings.json", "report/o2o.json", "online/metrics.csv", ".lock"):
        (folder / name).write_text(text)

    found = learning.read(folder)

    assert (found.curves, found.policies) == ({}, {})


def test_the_names_are_those_that_the_trainer_writes() -> None:
    folder = pytest.importorskip("trainer.o2o.folder")

    assert dict(learning.PHASES) == folder.FOLDERS
    assert set(learning.IDENTITIES) == {folder.SETTINGS, folder.NETWORK}
    assert learning.LOCK == folder.LOCK
