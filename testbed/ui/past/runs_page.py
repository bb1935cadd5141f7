"""The page with the list of all runs: found by what they are, tagged, compared, deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlencode

from nicegui import ui

from testbed.api.filters import Filter
from testbed.errors import PrerequisiteMissing, TestbedError, UsageError
from testbed.model.units import counted
from testbed.storage.tasklog import NothingLogged, TaskLog
from testbed.ui.context import Context
from testbed.ui.elements import card, heading, text
from testbed.ui.past import commands, parts
from testbed.ui.past.log import with_log
from testbed.ui.past.runs import PAGE, Choices, Listed, RunRow, filter_of, listed

_LABELS: Final = {
    "search": "Search",
    "scheduler": "Scheduler",
    "scenario": "Scenario",
    "testbed": "Testbed",
    "state": "State",
    "tag": "Tag",
    "label": "Label has",
    "since": "From",
    "until": "To",
}


async def runs(context: Context) -> None:
    """Show the runs that the address asks for."""
    parts.styled()
    heading("Runs")
    try:
        found = await with_log(context, lambda log: listed(log, filter_of(context.parameters)))
    except (PrerequisiteMissing, NothingLogged):
        with card("No runs yet"):
            ui.label("This task log has none. These commands make some:")
            parts.command(commands.on_log(context.settings, "sim", "quickstart"))
            parts.command(commands.plain(context.settings, "up", "quickstart"))
        return
    _List(context, found)


class _List:
    """The filters, the runs that they find, and what can be done with those that are ticked."""

    def __init__(self, context: Context, found: Listed) -> None:
        self._context = context
        self._only = filter_of(context.parameters)
        self._limit = PAGE
        self._asked = 0
        self._chosen: dict[str, RunRow] = {}
        with ui.element("div").classes("stack"):
            self._draw_filters(found.choices)
            with ui.element("section").classes("card stack"):
                with ui.element("div").classes("row"):
                    self._count = ui.label().props('role="status"')
                    ui.space()
                    self._compare = self._action("Compare", "compare_arrows", self._to_comparison)
                    self._tag = self._action("Tag", "label", self._ask_for_tags)
                    self._delete = self._action("Delete", "delete", self._ask_to_delete)
                self._place = ui.element("div").classes("stack")
        self._fill(found)

    # --- finding ----------------------------------------------------------------------------

    def _draw_filters(self, choices: Choices) -> None:
        given = self._only.given
        self._inputs: dict[str, ui.input | ui.select] = {}
        with ui.element("form").classes("card filters").props('role="search"') as form:
            form.on("submit.prevent", lambda: None)
            for name, label in _LABELS.items():
                value = given.get(name, "")
                known = getattr(choices, name, None)
                made: ui.input | ui.select
                if known is None:
                    made = ui.input(label, value=value).props("debounce=300 dense outlined")
                    if name in {"since", "until"}:
                        made.props("type=date stack-label")
                    else:
                        made.props("clearable")
                else:
                    options = {"": "any", **{each: each for each in known}}
                    # What the address asks for may be in no run.
                    options.setdefault(value, value)
                    made = ui.select(options, label=label, value=value)
                    made.props("dense outlined options-dense")
                made.classes("search" if name == "search" else "")
                made.on_value_change(self._filter)
                self._inputs[name] = made

    async def _filter(self) -> None:
        given = {name: str(each.value or "").strip() for name, each in self._inputs.items()}
        try:
            self._only = Filter(**{name: value for name, value in given.items() if value})
        except UsageError as error:
            parts.refused(error)
            return
        self._limit = PAGE
        query = urlencode(self._only.given)
        ui.navigate.history.replace(f"/runs?{query}" if query else "/runs")
        await self._refresh()

    async def _more(self) -> None:
        self._limit += PAGE
        await self._refresh()

    async def _refresh(self) -> None:
        self._asked += 1
        asked, only, limit = self._asked, self._only, self._limit
        try:
            found = await with_log(self._context, lambda log: listed(log, only, limit))
        except TestbedError as error:
            parts.refused(error)
            return
        # An answer to an earlier question may come after that to a later one.
        if asked == self._asked:
            self._fill(found)

    # --- the table --------------------------------------------------------------------------

    def _fill(self, found: Listed) -> None:
        there = {row.run: row for row in found.rows}
        self._chosen = {run: there[run] for run in self._chosen if run in there}
        shown = f", the latest {len(found.rows)} shown" if len(found.rows) < found.found else ""
        self._count.text = f"{found.found} of {counted(found.total, 'run')}{shown}"
        self._place.clear()
        with self._place:
            if found.rows:
                self._table(found.rows)
            else:
                ui.label("No run is like this.")
            if len(found.rows) < found.found:
                ui.button("Show more", on_click=self._more, color=None).props("outline no-caps")
            settings = self._context.settings
            parts.command(commands.listing(settings, self._only, max(1, len(found.rows))))
        self._count_chosen()

    def _table(self, rows: Sequence[RunRow]) -> None:
        works = {row.work for row in rows}
        heads = (
            *(("", "tick"), ("Run", ""), ("Scheduler", "wide"), ("Scenario", "wide")),
            *(("Began, UTC", "wide nowrap"), ("Where", "wide"), ("State", "")),
            *(
                ("Episodes", "wide number"),
                (" or ".join(sorted(works)).capitalize(), "wide number"),
            ),
            *(("Success", "number"), ("Label, tags, note", "wide")),
        )
        with ui.element("div").classes("scroll"), ui.element("table").classes("plain runs"):
            parts.head(heads)
            with ui.element("tbody"):
                for row in rows:
                    self._row(row)

    def _row(self, row: RunRow) -> None:
        with ui.element("tr") as line:
            with ui.element("td").classes("tick"):
                tick = ui.checkbox(value=row.run in self._chosen)
                tick.props(f'dense aria-label="choose run {row.run}"')
                tick.on_value_change(lambda event: self._choose(row, bool(event.value), line))
            with ui.element("td"):
                ui.link(row.run, f"/runs/{row.run}").classes("number nowrap")
                with ui.element("div").classes("narrow muted"):
                    ui.label(f"{row.scheduler}, {row.scenario}")
                    ui.label(row.began)
                    if row.label:
                        ui.label(row.label)
                    parts.tags(row.tags)
            text("td", row.scheduler, "wide")
            text("td", row.scenario, "wide")
            text("td", row.began, "wide nowrap")
            text("td", row.testbed or row.driver, "wide")
            parts.state(row.state, "td")
            text("td", row.episodes, "wide number")
            text("td", f"{row.pieces:,}", "wide number")
            text("td", row.success, "number nowrap")
            with ui.element("td").classes("wide"):
                if row.label:
                    text("span", f"{row.label} ")
                parts.tags(row.tags)
                if row.note:
                    ui.label(row.note.splitlines()[0]).classes("muted")
        line.classes("chosen" if row.run in self._chosen else "")

    def _choose(self, row: RunRow, chosen: bool, line: ui.element) -> None:
        if chosen:
            self._chosen[row.run] = row
            line.classes(add="chosen")
        else:
            self._chosen.pop(row.run, None)
            line.classes(remove="chosen")
        self._count_chosen()

    def _count_chosen(self) -> None:
        number = len(self._chosen)
        for button, least in ((self._compare, 2), (self._tag, 1), (self._delete, 1)):
            button.set_enabled(number >= least)
        self._compare.text = f"Compare {number}" if number else "Compare"

    # --- what can be done with runs ---------------------------------------------------------

    @staticmethod
    def _action(name: str, icon: str, do: Callable[[], object]) -> ui.button:
        button = ui.button(name, icon=icon, on_click=do, color=None)
        return button.props("outline dense no-caps padding='2px 10px'")

    def _to_comparison(self) -> None:
        # In the order in which they began.
        ui.navigate.to(f"/compare?runs={','.join(sorted(self._chosen))}")

    async def _ask_for_tags(self) -> None:
        runs = sorted(self._chosen)
        with ui.dialog() as dialog, ui.card():
            heading(f"Tag {counted(len(runs), 'run')}", 2)
            given = ui.input("Tags, with spaces between them").props("autofocus outlined")
            given.classes("w-full")
            with ui.element("div").classes("row"):
                ui.button("Add", on_click=lambda: dialog.submit("add"))
                remove = ui.button("Remove", on_click=lambda: dialog.submit("remove"), color=None)
                remove.props("outline")
                ui.button("Cancel", on_click=lambda: dialog.submit(None), color=None).props("flat")
        answer, names = await dialog, str(given.value or "").split()
        dialog.delete()
        if not answer or not names:
            return

        def change(log: TaskLog) -> None:
            for run in runs:
                log.tag_run(run, *((names, ()) if answer == "add" else ((), names)))

        await self._do(change)

    async def _ask_to_delete(self) -> None:
        runs = sorted(self._chosen)
        if await confirmed_deletion(self._context, [self._chosen[run] for run in runs]):

            def delete(log: TaskLog) -> None:
                for run in runs:
                    log.delete_run(run)

            await self._do(delete)

    async def _do(self, change: Callable[[TaskLog], object]) -> None:
        try:
            await with_log(self._context, change)
        except TestbedError as error:
            parts.refused(error)
        await self._refresh()


async def confirmed_deletion(context: Context, rows: Sequence[RunRow]) -> bool:
    """Ask whether runs are to be deleted."""
    named = counted(len(rows), "run")
    with ui.dialog() as dialog, ui.card():
        heading(f"Delete {named}?", 2)
        ui.label("All that the task log has of them is removed. This cannot be undone.")
        with ui.element("ul"):
            for row in rows:
                text("li", f"{row.run}: {row.scheduler}, {row.scenario}, {row.state}")
        parts.command(commands.on_log(context.settings, "runs", "delete", *(r.run for r in rows)))
        with ui.element("div").classes("row"):
            ui.button(f"Delete {named}", on_click=lambda: dialog.submit(True), color="negative")
            cancel = ui.button("Cancel", on_click=lambda: dialog.submit(False), color=None)
            cancel.props("flat autofocus")
    answer = bool(await dialog)
    dialog.delete()
    return answer
