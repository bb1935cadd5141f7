"""The page that compares runs, pair by pair of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from nicegui import ui

from testbed.storage.tasklog import Run, TaskLog
from testbed.ui.context import Context
from testbed.ui.elements import card, heading, text
from testbed.ui.past import charts, commands, comparing, parts
from testbed.ui.past.comparing import ComparisonView
from testbed.ui.past.log import with_log
from testbed.ui.past.runs import runs_of


async def compare(context: Context) -> None:
    """Compare the runs that the address names: ``?runs=a,b&by=metric``, or ``?like=run``."""
    parts.styled()
    parameters = context.parameters

    def read(log: TaskLog) -> tuple[tuple[str, ...], list[Run]]:
        known = log.runs()
        asked = tuple(log.run(each).id for each in runs_of(parameters))
        if not asked and "like" in parameters:
            asked = comparing.like(known, log.run(parameters["like"]).id)
        return asked, known

    heading("Compare runs")
    asked, known = await with_log(context, read)
    page = _ComparePage(context, asked, known, parameters.get("by") or None)
    await page.draw()


class _ComparePage:
    def __init__(
        self, context: Context, asked: Sequence[str], known: Sequence[Run], by: str | None
    ) -> None:
        self._context = context
        self._asked = tuple(asked)
        self._known = {run.id: run for run in known}
        self._by = by

    async def draw(self) -> None:
        found: ComparisonView | None = None
        if self._asked:
            found = await with_log(
                self._context, lambda log: comparing.read(log, self._asked, self._by)
            )
        with ui.element("div").classes("stack"):
            self._draw_choice(found)
            if found is not None:
                self._draw_results(found)

    # --- what is compared -------------------------------------------------------------------

    def _draw_choice(self, found: ComparisonView | None) -> None:
        with card("Runs"):
            with ui.element("div").classes("row"):
                for run in self._asked:
                    self._chip(run)
            with ui.element("div").classes("filters"):
                add = ui.select(self._candidates(), label="Add a run", value=None, with_input=True)
                add.props("dense outlined options-dense").classes("search")
                add.on_value_change(lambda: self._go((*self._asked, str(add.value)), self._by))
                if found is not None:
                    by = ui.select(list(found.metrics), label="Metric", value=found.metric.name)
                    by.props("dense outlined options-dense").classes("search")
                    by.on_value_change(lambda: self._go(self._asked, str(by.value)))
            if len(self._asked) > 1:
                line = commands.comparing(self._context.settings, self._asked, self._by)
                parts.command(line)
            else:
                ui.label("Choose two runs or more; the list begins with those that met the same.")

    def _chip(self, id: str) -> None:
        run = self._known[id]
        rest = tuple(each for each in self._asked if each != id)
        with ui.element("span").classes("row tag"):
            ui.link(f"{run.info.scheduler} {id}", f"/runs/{id}")
            remove = ui.button(icon="close", color=None, on_click=lambda: self._go(rest, self._by))
            remove.props(f'flat dense round size=sm aria-label="leave out {id}"')

    def _candidates(self) -> dict[str, str]:
        runs = list(self._known.values())
        alike = comparing.comparable(runs, self._asked[0]) if self._asked else []
        ordered = {run.id: run for run in (*reversed(alike), *reversed(runs))}
        return {
            id: f"{id}: {run.info.scheduler}, {run.info.name}"
            + (f", {run.info.label}" if run.info.label else "")
            for id, run in ordered.items()
            if id not in self._asked
        }

    @staticmethod
    def _go(runs: Sequence[str], by: str | None) -> None:
        query = {"runs": ",".join(runs), **({"by": by} if by else {})}
        ui.navigate.to(f"/compare?{urlencode(query, safe=',')}")

    # --- how they compare -------------------------------------------------------------------

    def _draw_results(self, found: ComparisonView) -> None:
        metric, comparison = found.metric, found.comparison
        title = metric.title[:1].upper() + metric.title[1:]
        if found.problem:
            with card("Not compared"), ui.element("div").props('role="alert"'):
                ui.label(found.problem).style("white-space: pre-wrap")
        with ui.element("div").classes("pair"):
            parts.chart(
                self._context,
                f"{title}: mean, 95 % interval, episodes",
                lambda palette: charts.runs_by_metric(found.measured, metric, palette),
                says="; ".join(
                    f"{name} {metric.shown(each.interval)}" for name, each in found.measured
                ),
                height=90 + 62 * len(found.measured),
            )
            if comparison is not None:
                parts.chart(
                    self._context,
                    "Paired differences, 95 % intervals; filled: real",
                    lambda palette: charts.differences(comparison.pairs, found.titles, palette),
                    says="; ".join(pair.verdict for pair in comparison.pairs),
                    height=90 + 62 * len(comparison.pairs),
                )
            parts.chart(
                self._context,
                f"{title}, by episode",
                lambda palette: charts.episodes_of_runs(found.measured, metric, palette),
                says=f"{metric.title} of each run by episode",
            )
            if comparison is not None:
                with card("Verdicts"):
                    with ui.element("ul"):
                        for pair in comparison.pairs:
                            text("li", pair.verdict)
                    for line in (*comparison.warnings, *comparison.left_out):
                        ui.label(line).classes("warning")
        if comparison is not None:
            with card("Table"):
                heads = (
                    *("~Run", "Scheduler", "~Driver", "~>Episodes"),
                    *(f">{metric.name}", "~>95 %", ""),
                )
                parts.table(heads, comparison.table())
