"""The figure of a calibration: the knee of every kind of network, and the cores they keep busy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from testbed.experiment.calibration.questions import QUESTIONS
from testbed.experiment.calibration.values import Calibration, Knee, Trial
from testbed.experiment.colours import colour
from testbed.experiment.figures import Drawing, plain

_LOWEST: Final = 0.03
"""Smallest share of a limit that is drawn: less is as good as none."""
_HIGHEST: Final = 30.0


def draw(calibration: Calibration) -> Figure:
    """Draw the errors of networks of growing size and the cores that they keep busy.

    One panel above the other, so that it can be read on a narrow screen.
    """
    knees = [
        calibration.knees[name]
        for name, question in QUESTIONS.items()
        if question.unit == "nodes" and name in calibration.knees
    ]
    figure = Drawing(figsize=(5.4, 6.8), layout="constrained", dpi=120)
    errors, cores = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for axes in (errors, cores):
        plain(axes)
        axes.set_xscale("log")
    levels = sorted({trial.level for knee in knees for trial in _drawn(knee)})
    for index, knee in enumerate(knees):
        _errors(errors, knee, index)
        _cores(cores, knee, index)
    _finish_errors(errors)
    _finish_cores(cores, calibration.machine.cores)
    _ticks(cores, levels)
    handles, labels = errors.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=1 if len(knees) < 3 else 2, fontsize=8,
        frameon=False,
    )  # fmt: skip
    return figure


def _drawn(knee: Knee) -> list[Trial]:
    """Return the trials that were certified, in order of their level."""
    return sorted((each for each in knee.trials if each.terms), key=lambda each: each.level)


def _by_level(trials: Sequence[Trial]) -> dict[int, list[Trial]]:
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.level, []).append(trial)
    return found


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def _errors(axes: Axes, knee: Knee, index: int) -> None:
    question = QUESTIONS[knee.question]
    trials = _drawn(knee)
    groups = _by_level(trials)
    medians = [_median([each.worst for each in group]) for group in groups.values()]
    title = question.title.removeprefix("nodes with ")
    known = "none" if knee.level is None else f"{knee.level} nodes"
    axes.plot(
        list(groups),
        [min(max(each, _LOWEST), _HIGHEST) for each in medians],
        color=colour(index),
        linewidth=2,
        label=f"{title}: {known}",
    )
    for valid in (True, False):
        chosen = [each for each in trials if each.valid is valid]
        axes.scatter(
            [each.level for each in chosen],
            [min(max(each.worst, _LOWEST), _HIGHEST) for each in chosen],
            s=26,
            color=colour(index),
            marker="o" if valid else "x",
            alpha=0.7,
            zorder=3,
        )
    if knee.level is not None:
        axes.axvline(knee.level, color=colour(index), linewidth=1, linestyle=":")


def _finish_errors(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST * 0.8, _HIGHEST * 1.2)
    axes.axhline(1.0, color="#555555", linewidth=1)
    axes.annotate(
        "limit of the certificate",
        (0.01, 1.0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(0, 4),
        fontsize=8,
        color="#555555",
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("worst p95 error, in units of its limit")
    axes.set_title(
        "Networks that stay faithful: dots are valid runs,\ncrosses invalid ones; dotted: the knee",
        fontsize=10,
        loc="left",
    )


def _cores(axes: Axes, knee: Knee, index: int) -> None:
    groups = _by_level(_drawn(knee))
    nodes = [_median([each.nodes + each.controller for each in group]) for group in groups.values()]
    controller = [_median([each.controller for each in group]) for group in groups.values()]
    axes.plot(list(groups), nodes, color=colour(index), linewidth=2, marker="o", markersize=3)
    axes.plot(list(groups), controller, color=colour(index), linewidth=1, linestyle="--")


def _finish_cores(axes: Axes, cores: int) -> None:
    axes.axhline(cores, color="#555555", linewidth=1)
    axes.set_ylim(0, cores * 1.12)
    axes.set_ylabel("busy cores")
    axes.set_xlabel("nodes")
    axes.set_title(
        f"Processor time: all processes, of which controller (dashed); {cores} cores",
        fontsize=9,
        loc="left",
    )


def _ticks(axes: Axes, levels: Sequence[int]) -> None:
    """Label powers of two of the smallest level: all levels would run into each other."""
    if not levels:
        return
    shown, each = [], levels[0]
    while each <= levels[-1]:
        shown.append(each)
        each *= 2
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())
