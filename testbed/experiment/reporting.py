"""What the reports of all families of work share: parts of a page, and what a family adds."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment.figures import Formats
from testbed.experiment.metrics import Metric
from testbed.storage.tasklog import TaskLog

Drawn: TypeAlias = Mapping[str, Formats]
"""Figures by name, as files."""

Tables: TypeAlias = Mapping[str, pd.DataFrame]
"""Tables by name."""


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """The part of a report that is for runs of one family of work.

    ``standard`` is the metric that is shown in any case, under ``heading``; the figure and the rows
    of the table there are ``row`` of each run and the figure with the metric's name. ``draw``
    returns the figures of runs, ``tables`` their tables; ``sections`` returns the page behind the
    verdicts as HTML, ``network`` what stands behind the faults. ``timings`` makes a table of the
    certificate of a run. ``figures`` draw single figures from Python, by name: of summaries and
    the log of each.
    """

    standard: Metric
    heading: str
    draw: Callable[[TaskLog, Sequence[Any]], dict[str, Figure]]
    tables: Callable[[Sequence[Any]], dict[str, pd.DataFrame]]
    row: Callable[[Any], dict[str, object]]
    sections: Callable[[TaskLog, Sequence[Any], Drawn, Tables], list[str]]
    network: Callable[[Sequence[Any], Drawn], list[str]]
    timings: Callable[[Mapping[str, Any]], pd.DataFrame]
    figures: Mapping[str, Callable[[Sequence[Any], Sequence[TaskLog]], Figure]]


def numbered(name: str, number: int) -> str:
    """Return the name of the figure of run ``number`` (from 0): ``name``, ``name-2``, ..."""
    return name if number == 0 else f"{name}-{number + 1}"


def image(files: Formats, says: str) -> str:
    """Return a figure for a page; ``says`` describes it to who cannot see it."""
    data = base64.b64encode(files.png).decode()
    return f'<p><img alt="{html.escape(says)}" src="data:image/png;base64,{data}"></p>'


def html_table(table: pd.DataFrame) -> str:
    """Return a table for a page, which can be moved sideways where it is wider than the page."""
    text = table.to_html(index=False, border=0, float_format=lambda value: f"{value:.1f}")
    return f'<div class="wide">{text}</div>'


def note(text: str) -> str:
    """Return a note for a page."""
    return f'<p class="note">{html.escape(text)}</p>'
