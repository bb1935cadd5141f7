"""Elements that several of these pages use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from nicegui import ui

from testbed.errors import TestbedError
from testbed.experiment.facts import Fact
from testbed.experiment.measured import Table
from testbed.ui.context import Context
from testbed.ui.elements import CommandLine, card, text
from testbed.ui.options import Options
from testbed.ui.palette import Palette
from testbed.ui.past.style import sheet

STATES: Final = {
    "running": "running",
    "completed": "good",
    "degraded": "warning",
    "invalid": "warning",
    "stopped": "muted",
    "failed": "bad",
    "interrupted": "bad",
    "learning": "running",
    "finished": "good",
}
"""Class of the text of a state; the text says the same."""

_TONES: Final = {"good": "good", "warning": "warning"}


def styled() -> None:
    """Add the style sheet of these pages."""
    ui.add_css(sheet())


def command(line: str) -> None:
    """Show a command line that does what the page does."""
    CommandLine(line)


def state(name: str, tag: str = "span") -> None:
    """Show a state of a run or an experiment."""
    text(tag, name, f"state {STATES.get(name, 'muted')}")


def tags(names: Iterable[str]) -> None:
    """Show tags."""
    for name in names:
        text("span", name, "tag")


def facts(found: Iterable[Fact]) -> None:
    """Show facts as names and texts."""
    with ui.element("dl").classes("facts"):
        for name, told, tone in found:
            text("dt", name.strip())
            shown = (
                f"state {STATES.get(told, 'muted')}" if tone == "state" else _TONES.get(tone, "")
            )
            text("dd", told, shown)


def chart(
    context: Context,
    title: str,
    options: Callable[[Palette], Options],
    *,
    says: str,
    height: int | None = None,
) -> ui.echart:
    """Add a chart in a part of its own; ``says`` describes it to who cannot see it."""
    with card(title):
        made = context.chart(options)
        made.props(f'role="img" aria-label="{_attribute(says)}"')
        if height is not None:
            made.style(f"height: {height}px")
    return made


def redraw(chart: ui.echart, options: Options) -> None:
    """Show other values in a chart."""
    chart.options.clear()
    chart.options.update(options)
    chart.update()


def head(columns: Iterable[tuple[str, str]]) -> None:
    """Add the head of a table: titles of columns, and classes of their cells."""
    with ui.element("thead"), ui.element("tr"):
        for title, classes in columns:
            text("th", title, classes).props('scope="col"')


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Add a table of texts.

    Heads that begin with ``>`` are of columns of numbers, with ``~`` of those that only wide
    windows show.
    """
    columns = [
        (
            title.lstrip("~>"),
            " ".join(name for mark, name in ((">", "number"), ("~", "wide")) if mark in title[:2]),
        )
        for title in heads
    ]
    with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
        head(columns)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for cell, (_, classes) in zip(row, columns, strict=True):
                        text("td", cell, classes)


def small_table(found: Table) -> None:
    """Add a table as summaries of runs have them, with heads that are not shouted."""
    heads = [
        f"{'>' * each.startswith('>')}{each.removeprefix('>').capitalize()}" for each in found.heads
    ]
    table(heads, found.rows)


def refused(error: TestbedError) -> None:
    """Tell that what was asked for was not done, and why."""
    ui.notify(
        str(error),
        type="negative",
        multi_line=True,
        close_button="close",
        timeout=0,
        classes="multi-line-notification",
    )


def _attribute(value: str) -> str:
    """Return a text as the value of a property in double quotes."""
    return value.replace("\\", "\\\\").replace('"', "'").replace("\n", " ")
