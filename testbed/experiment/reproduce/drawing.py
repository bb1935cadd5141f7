"""Draws the figures of a reproduction from results; matplotlib without global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from testbed.experiment.figures import plain
from testbed.experiment.reproduce.methods import (
    METHODS,
    O2O,
    OFFLINE,
    ONLINE_ONLY,
    PAPER,
    Method,
    colour,
    label,
)
from testbed.experiment.reproduce.results import Results
from testbed.experiment.statistics import Interval
from testbed.schedulers.catalogue import Style

_HELD_AGAINST: Final = "ratc"
"""Name of the reference of differences in figures."""
_DIFFERENCES: Final = tuple(
    name
    for name, method in METHODS.items()
    if name != _HELD_AGAINST and method.group != "limit" and method.knows != "nothing"
)


def draw(results: Results) -> Canvas:
    """The figure, in the form of its kind; of what can be compared (``Results.comparable``)."""
    drawers: dict[str, Callable[[Results], Canvas]] = {
        "curve": _curves,
        "sources": _sources,
        "sweep": _sweep,
    }
    return drawers[results.figure.kind](results.comparable())


def _sweep(results: Results) -> Canvas:
    """Left the paper's methods as the paper draws them, right all methods less RATC, paired."""
    canvas = Canvas(figsize=(11.0, 4.6), layout="constrained", dpi=120)
    rates, gaps = canvas.subplots(1, 2)
    places = np.arange(len(results.xs))
    shown = set(results.methods())
    _series(rates, places, PAPER, results, lambda x, name: results.rate(x, name))
    others = [name for name in _DIFFERENCES if name in shown]
    gaps.axhline(0, color=colour(METHODS[_HELD_AGAINST]), linewidth=1.5, zorder=1)
    _series(
        gaps,
        places,
        others,
        results,
        lambda x, name: results.difference((x, name), (x, _HELD_AGAINST)),
    )
    _titles(rates, "Success rate, %", "Success rate")
    _titles(gaps, "points above RATC", "Difference from RATC on the same tasks and fates")
    for axes in (rates, gaps):
        axes.set_xticks(places, results.xs)
        axes.set_xlim(-0.4, len(places) - 0.6)
        axes.set_xlabel(results.figure.x_label)
    _legend(canvas, rates, gaps)
    return canvas


def _series(
    axes: Axes,
    places: np.ndarray[tuple[int], np.dtype[np.int_]],
    names: Sequence[str],
    results: Results,
    value: Callable[[str, str], Interval | None],
) -> None:
    present = [name for name in names if name in results.methods()]
    for index, name in enumerate(present):
        method = METHODS[name]
        # Side by side, so that intervals do not cover each other.
        shift = (index - (len(present) - 1) / 2) * 0.03
        found = [(place, value(x, name)) for place, x in zip(places, results.xs, strict=True)]
        told = [(place + shift, each) for place, each in found if each is not None]
        if told:
            _line(axes, [x for x, _ in told], [each for _, each in told], method)


def _line(axes: Axes, x: Sequence[float], values: Sequence[Interval], method: Method) -> None:
    mean = np.array([100 * each.mean for each in values])
    axes.errorbar(
        x,
        mean,
        yerr=100 * np.transpose([each.arms for each in values]),
        color=colour(method),
        marker=method.style.marker,
        markersize=7 if method.style.marker == "*" else 5,
        linestyle=method.style.line,
        linewidth=2.0 if method.name == O2O else 1.4,
        elinewidth=0.9,
        capsize=2,
        label=method.label,
        zorder=4 if method.name == O2O else 3,
    )


def _sources(results: Results) -> Canvas:
    """For each heuristic: itself, the policy from its logs, and that after fine-tuning."""
    canvas = Canvas(figsize=(11.0, 4.2), layout="constrained", dpi=120)
    rates, gaps = canvas.subplots(1, 2)
    places = np.arange(len(results.settings))
    for setting, place in zip(results.settings, places, strict=True):
        heuristic = Method(setting.source, "the heuristic itself", style=Style(None, "D"))
        for step, method in enumerate((heuristic, METHODS[OFFLINE], METHODS[O2O])):
            first = "" if place else method.label
            shift = (step - 1) * 0.24
            value = results.rate(setting.x, method.name)
            if value is not None:
                _dot(rates, place + shift, value, method, first)
            gap = results.difference((setting.x, method.name), (setting.x, setting.source))
            if gap is not None and method is not heuristic:
                _dot(gaps, place + shift, gap, method, "")
    gaps.axhline(0, color="#888888", linewidth=1.5, zorder=1)
    _titles(rates, "Success rate, %", "Success rate")
    _titles(gaps, "points above the heuristic", "Difference from the heuristic, same tasks")
    for axes in (rates, gaps):
        axes.set_xticks(places, [label(setting.source) for setting in results.settings])
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.set_xlabel(results.figure.x_label)
    _legend(canvas, rates, gaps)
    return canvas


def _dot(axes: Axes, x: float, value: Interval, method: Method, name: str) -> None:
    axes.errorbar(
        x,
        100 * value.mean,
        yerr=100 * np.transpose([value.arms]),
        color=colour(method),
        marker=method.style.marker,
        markersize=8,
        capsize=4,
        linewidth=1.6,
        linestyle="",
        label=name or None,
    )
    axes.annotate(
        f"{100 * value.mean:.1f}",
        # Above the interval, where nothing of the neighbours is.
        (x, 100 * (value.mean + value.arms[1])),
        textcoords="offset points",
        xytext=(0, 5),
        ha="center",
        fontsize=8,
    )


def _curves(results: Results) -> Canvas:
    """Left one learning curve per method over all networks, right the difference from offline."""
    canvas = Canvas(figsize=(11.0, 4.4), layout="constrained", dpi=120)
    rates, gaps = canvas.subplots(1, 2)
    frame = results.curves()
    x = results.xs[0]
    start = _references(results, x, OFFLINE)
    for name in (O2O, ONLINE_ONLY):
        own = frame[frame["method"] == name].dropna(subset=["evaluation"])
        if own.empty:
            continue
        method = METHODS[name]
        wide = own.pivot_table(index="episodes", columns="seed", values="evaluation")
        # A moment that some networks lack would change the mean by which networks are in it.
        wide = wide.dropna()
        for seed in wide.columns:
            rates.plot(wide.index, 100 * wide[seed], color=colour(method), alpha=0.2, linewidth=0.8)
        rates.plot(
            wide.index,
            100 * wide.mean(axis="columns"),
            color=colour(method),
            marker=method.style.marker,
            markersize=5,
            linewidth=2,
            label=f"{method.label} (thin: each network)",
        )
        relative = wide.sub(pd.Series(start)).dropna(axis="columns")
        if not relative.empty:
            _band(gaps, relative, method)
    for name, text in ((OFFLINE, "Offline only, before fine-tuning"), ("ratc", "RATC")):
        level = _references(results, x, name)
        if level:
            rates.axhline(
                100 * float(np.mean([*level.values()])),
                color=colour(METHODS[name]),
                linestyle="--",
                linewidth=1.5,
                label=text,
            )
    gaps.axhline(0, color=colour(METHODS[OFFLINE]), linestyle="--", linewidth=1.5)
    _titles(rates, "Success rate, %", "Evaluations while learning online, mean over networks")
    _titles(gaps, "points above Offline only", "Difference from the offline policy")
    for axes in (rates, gaps):
        axes.set_xlabel("episodes learned from online")
    _legend(canvas, rates, gaps)
    return canvas


def _references(results: Results, x: str, name: str) -> dict[int, float]:
    found = results.measured.get((x, O2O), {})
    return {seed: each.references[name] for seed, each in found.items() if name in each.references}


def _band(axes: Axes, relative: pd.DataFrame, method: Method) -> None:
    mean = 100 * relative.mean(axis="columns")
    axes.plot(
        relative.index,
        mean,
        color=colour(method),
        marker=method.style.marker,
        markersize=5,
        linewidth=2,
    )
    if len(relative.columns) > 1:
        axes.fill_between(
            relative.index,
            100 * relative.min(axis="columns"),
            100 * relative.max(axis="columns"),
            color=colour(method),
            alpha=0.15,
            linewidth=0,
        )


def _titles(axes: Axes, y_label: str, title: str) -> None:
    plain(axes)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10, loc="left")


def _legend(canvas: Canvas, *parts: Axes) -> None:
    """One legend for all parts, each name once."""
    entries: dict[str, Artist] = {}
    for axes in parts:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    canvas.legend(
        [*entries.values()],
        [*entries],
        loc="outside upper center",
        ncols=5,
        fontsize=8.5,
        frameon=False,
    )
