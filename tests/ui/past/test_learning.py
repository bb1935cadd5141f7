"""Charts of learning experiments."""

from __future__ import annotations

from pathlib import Path

from testbed.experiment.learning import Curve, Experiment
from testbed.ui.palette import LIGHT
from testbed.ui.past import learning

CURVE = Curve(
    (
        {"step": 0, "episodes": 0, "evaluation": 0.8, "standard_error": 0.01, "rolled_back": 0},
        {"step": 1, "episodes": 10, "loss": 0.5},
        {"step": 2, "episodes": 20, "evaluation": 0.7, "standard_error": 0.02, "rolled_back": 1},
    )
)
FOUND = Experiment(
    Path("x"),
    "finished",
    curves={"o2o": CURVE, "offline": Curve()},
    result={"during_fine_tuning": {"ratc": 0.75}},
)


def test_a_learning_curve_has_its_interval_and_what_was_taken_back() -> None:
    options = learning.learning_curves(FOUND, LIGHT)

    lower, width, curve, back, reference = options["series"]
    assert curve["data"] == [[0, 80.0], [20, 70.0]]
    assert lower["data"] == [[0, 78.04], [20, 66.08]]
    assert width["data"] == [[0, 3.92], [20, 7.84]]
    assert back["data"] == [[20, 70.0]]
    assert reference["markLine"]["data"] == [{"yAxis": 75.0}]
    assert reference["markLine"]["label"]["formatter"] == "ratc 75.0 %"


def test_a_number_of_a_phase_is_drawn_by_step() -> None:
    column = learning.column(FOUND.curves, "o2o", "loss", LIGHT)

    assert column["series"][0]["data"] == [[1, 0.5]]
    assert learning.column(FOUND.curves, "nobody", "loss", LIGHT)["series"][0]["data"] == []
