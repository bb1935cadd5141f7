"""Figures with a row for each place (node, link, size, function) and a dot in it for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import figures
from testbed.experiment.colours import colour

MOST_ROWS: Final = 12
"""Nodes or links that are drawn, the busiest ones; the data has all."""


def first(found: pd.DataFrame, keys: list[str], by: str) -> pd.DataFrame:
    """Return the rows of the places with the largest sums over runs, in order of the places."""
    sums = found.groupby(keys)[[by]].sum().nlargest(MOST_ROWS, by).reset_index()
    wanted = set(_places(sums, keys))
    kept = found[[place in wanted for place in _places(found, keys)]]
    return kept.sort_values(keys, kind="stable")


def drawn(
    found: pd.DataFrame,
    keys: list[str],
    names: Sequence[str],
    label: str,
    all_runs: Sequence[str] = (),
    *,
    scale: float = 100.0,
) -> Figure:
    """Draw values with what they reach to: a row per place, a dot in it per run.

    Args:
        found: a row per ``scheduler`` and place with ``mean``, ``low`` and ``high``; NaN of the
            last two where there is no interval.
        keys: the columns that tell places apart.
        names: of the places, in the order in which they come.
        label: of the x axis.
        all_runs: the schedulers of all figures, also those without a row here: so each has its
            colour of the other figures. None: those here.
        scale: what values are multiplied by; 100 for shares in per cent.
    """
    rows = {place: y for y, place in enumerate(dict.fromkeys(_places(found, keys)))}
    series = list(found.groupby("scheduler", sort=False))
    shades = list(all_runs or (str(name) for name, _ in series))
    figure, axes = figures.new_figure(height=1.1 + len(rows) * (0.16 + 0.11 * len(series)))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    for number, (name, own) in enumerate(series):
        shift = 0.7 * ((number + 0.5) / len(series) - 0.5)
        mean = own["mean"].to_numpy(dtype=float)
        arms = [mean - own["low"].to_numpy(float), own["high"].to_numpy(float) - mean]
        axes.errorbar(
            scale * mean,
            [rows[place] + shift for place in _places(own, keys)],
            xerr=scale * np.nan_to_num(np.maximum(arms, 0.0)),
            fmt="o",
            color=colour(shades.index(str(name))),
            markersize=5,
            linewidth=1.4,
            label=str(name)[:60],
        )
    left = figures.name_rows(axes, names)
    for line in range(1, len(rows)):
        axes.axhline(line - 0.5, color="#DDDDDD", linewidth=0.6)
    axes.set_xlabel(label)
    figures.settle(figure, axes, left, legend=len(series) > 1)
    return figure


def _places(found: pd.DataFrame, keys: list[str]) -> list[tuple[Any, ...]]:
    """Return the values of ``keys`` of each row."""
    return [tuple(row) for row in found[keys].itertuples(index=False, name=None)]
