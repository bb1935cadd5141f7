"""Parts of the reports of all families of work: figures with their data, and a family's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import page
from testbed.experiment.figures import Formats, as_files
from testbed.experiment.measured import Measured, names_of
from testbed.experiment.metrics import Metric
from testbed.experiment.page import Section
from testbed.storage.tasklog import TaskLog


class Plot(NamedTuple):
    """A figure, the data that it shows, a row per value, and its caption."""

    figure: Figure
    data: pd.DataFrame
    says: str


class PlotFiles(NamedTuple):
    """The same as the contents of files."""

    formats: Formats
    csv: str
    says: str


Drawn: TypeAlias = Mapping[str, PlotFiles]
"""Figures by name, as files."""

Tables: TypeAlias = Mapping[str, pd.DataFrame]
"""Tables by name."""

Plots: TypeAlias = Mapping[str, Callable[[], Plot | None]]
"""Functions that draw the figures of a report, by name; None where there is nothing to draw."""


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """The part of a report that is for runs of one family of work.

    ``standard`` is the metric that is shown in any case, under ``heading``; the figure and the rows
    of the table there are ``row`` of each run and the figure with the metric's name. ``plots``
    draw the figures of runs, ``tables`` returns their tables, ``sections`` the page behind the
    comparison, ``network`` what stands behind the faults. ``timings`` makes a table of the
    certificate of a run. ``figures`` draw single figures from Python, by name: of summaries and
    the log of each.
    """

    standard: Metric
    heading: str
    plots: Callable[[TaskLog, Sequence[Any]], Plots]
    tables: Callable[[Sequence[Any]], dict[str, pd.DataFrame]]
    row: Callable[[Any], dict[str, object]]
    sections: Callable[[TaskLog, Sequence[Any], Drawn, Tables], list[Section]]
    network: Callable[[Sequence[Any], Drawn], list[Section]]
    timings: Callable[[Mapping[str, Any]], pd.DataFrame]
    figures: Mapping[str, Callable[[Sequence[Any], Sequence[TaskLog]], Figure]]


def numbered(name: str, number: int) -> str:
    """Return the name of the figure of run ``number`` (from 0): ``name``, ``name-2``, ..."""
    return name if number == 0 else f"{name}-{number + 1}"


def files_of(plot: Plot) -> PlotFiles:
    """Return a plot as the contents of its files."""
    return PlotFiles(as_files(plot.figure), plot.data.to_csv(index=False), plot.says)


def image(drawn: Drawn, name: str, folder: str = "figures/") -> str:
    """Return a figure for a page, with links to its files in ``folder``."""
    files = [f"{folder}{name}.{suffix}" for suffix in ("svg", "png", "csv")]
    return page.figure(drawn[name].formats.svg, name, drawn[name].says, files)


def by_episode(runs: Sequence[Any], measured: Sequence[Measured]) -> pd.DataFrame:
    """Return a metric of runs as a row per run and episode: scheduler, run, episode, value."""
    metric = measured[0].metric
    rows = [
        (name, run.run.id, episode, value)
        for name, run, found in zip(names_of(runs), runs, measured, strict=True)
        for episode, value in found.by_episode.items()
    ]
    return pd.DataFrame(rows, columns=["scheduler", "run", "episode", metric.name])
