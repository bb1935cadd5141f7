"""The page of one run: what it was, how it went, where time went, and its tasks one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nicegui import ui

from testbed.errors import TestbedError
from testbed.experiment import timeline
from testbed.experiment.history import arrival, task_history
from testbed.experiment.measured import Measured
from testbed.storage.tasklog import TaskLog
from testbed.ui.context import Context
from testbed.ui.elements import card, heading, text
from testbed.ui.past import charts, commands, parts
from testbed.ui.past.log import with_log
from testbed.ui.past.run import EpisodeView, RunView, read, read_episode
from testbed.ui.past.runs import row_of
from testbed.ui.past.runs_page import confirmed_deletion

_HEAT_HEIGHT: Final = 340


async def run(context: Context) -> None:
    """Show the run that the address names."""
    parts.styled()
    found = await with_log(context, lambda log: read(log, context.parameters["run"]))
    page = _RunPage(context, found)
    with ui.element("div").classes("stack"):
        page.draw_head()
        with ui.element("div").classes("pair"):
            page.draw_facts()
            page.draw_annotations()
        if found.nothing:
            with card("No results"):
                ui.label(found.nothing)
            return
        with ui.element("div").classes("pair"):
            page.draw_charts()
        if found.timed and found.episodes:
            await page.draw_episode()
        page.draw_tables()


class _RunPage:
    def __init__(self, context: Context, found: RunView) -> None:
        self._context = context
        self._found = found
        self._run = found.run

    def draw_head(self) -> None:
        info = self._run.info
        with ui.element("div").classes("row"):
            heading(f"{info.scheduler} on {info.name}")
            parts.state(self._run.state.value)
            ui.space()
            compare = ui.button("Compare with its like", icon="compare_arrows", color=None)
            compare.props("outline dense no-caps padding='2px 10px'")
            compare.on_click(lambda: ui.navigate.to(f"/compare?like={self._run.id}"))
            delete = ui.button("Delete", icon="delete", on_click=self._delete, color=None)
            delete.props("outline dense no-caps padding='2px 10px'")
        parts.command(self._command("runs", "show", self._run.id))

    def draw_facts(self) -> None:
        with card("Facts"):
            # What was said of it stands beside, where it can be changed.
            parts.facts(each for each in self._found.facts if each.name not in {"tags", "note"})
            if self._run.info.scenario is not None:
                with ui.expansion("The scenario as it was used").props("dense"):
                    text("pre", self._run.info.scenario, "scroll")

    def draw_annotations(self) -> None:
        with card("Tags and note"):
            chips = ui.input_chips("Tags", value=list(self._run.tags), new_value_mode="add-unique")
            chips.props("outlined dense hint='Enter adds one'")
            chips.on_value_change(lambda event: self._tag(chips))
            note = ui.textarea("Note", value=self._run.note).props("outlined autogrow")
            saved = ui.label().classes("muted").props('role="status"')
            with ui.element("div").classes("row"):
                save = ui.button("Save note", color=None).props("outline dense no-caps")
                save.on_click(lambda: self._note(str(note.value or ""), saved))
            parts.command(self._command("runs", "tag", self._run.id, "TAG"))
            parts.command(self._command("report", self._run.id, "--out", "report"))
            parts.command(self._command("export", self._run.id, "--format", "trace"))

    def draw_charts(self) -> None:
        found, run = self._found, self._run.id
        score = found.score
        if score is not None:
            parts.chart(
                self._context,
                f"{_capital(score.metric.title)}, by episode",
                lambda palette: charts.by_episode(score, palette),
                says=f"{score.metric.title} of run {run} by episode, mean "
                f"{score.metric.shown(score.interval)}",
            )
        ended = [name for name, count in found.outcomes.items() if count]
        parts.chart(
            self._context,
            f"How {found.work} ended",
            lambda palette: charts.outcomes(found.outcomes, palette),
            says=", ".join(f"{found.outcomes[name]} {name.replace('_', ' ')}" for name in ended),
            height=charts.height(len(ended)),
        )
        parts.chart(
            self._context,
            f"{_capital(found.work)} by the node that they arrived at",
            lambda palette: charts.by_node(found.by_node, palette),
            says=f"{found.work} by node and outcome",
        )
        if found.flows:
            parts.chart(
                self._context,
                f"Where {found.work} were done, % of a node's",
                lambda palette: charts.flows(found.flows, found.size, palette),
                says="share of each node's work that was done at each node",
                height=_HEAT_HEIGHT,
            )
        if found.times:
            parts.chart(
                self._context,
                f"Times of good {found.work}",
                lambda palette: charts.latency(found.times, palette),
                says=f"histogram of the times of {len(found.times)} {found.work}",
            )
        if found.stages:
            parts.chart(
                self._context,
                "Mean time of a succeeded task by stage",
                lambda palette: charts.stages(found.stages, palette),
                says=", ".join(f"{name} {mean:.1f} ms" for name, mean in found.stages.items()),
                height=charts.height(len(found.stages)),
            )

    async def draw_episode(self) -> None:
        """Draw the time line of an episode, and its tasks that did not succeed."""
        worst = self._found.worst
        first = self._found.episodes[0] if worst is None else worst
        with card("Time line of an episode"):
            with ui.element("div").classes("row"):
                options = {
                    number: f"episode {number}{' (the worst)' if number == worst else ''}"
                    for number in self._found.episodes
                }
                choice = ui.select(options, value=first, label="Episode")
                choice.props("dense outlined options-dense")
                choice.style("min-width: 180px")
                choice.on_value_change(lambda: self._show_episode(int(choice.value)))
                ui.html(
                    f'<span class="muted">{timeline.legend()}. Zoom with + and -, or Ctrl and the '
                    "wheel; move with the arrow keys or by dragging.</span>",
                    sanitize=False,
                )
            self._place = ui.element("div").classes("stack")
        await self._show_episode(first)

    async def _show_episode(self, number: int) -> None:
        run = self._run.id
        try:
            found = await with_log(self._context, lambda log: read_episode(log, run, number))
        except TestbedError as error:
            parts.refused(error)
            return
        self._place.clear()
        with self._place:
            if found.drawing:
                ui.html(found.drawing, sanitize=False)
                ui.run_javascript(timeline.SCRIPT)
            else:
                ui.label("The events of this episode are not logged.")
            if found.drawn == timeline.MOST_TASKS:
                ui.label(f"The first {found.drawn} tasks of the episode.").classes("muted")
            self._tasks(found)

    def _tasks(self, found: EpisodeView) -> None:
        heading(f"Tasks of episode {found.number} that did not succeed: {found.lacking}", 2)
        if not found.tasks:
            return
        heads = (
            *(("Task", "number"), ("Slot", "number wide"), ("At", "number"), ("Sent to", "number")),
            *(("Outcome", ""), ("After", "number wide"), ("Why", "wide")),
        )
        with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
            parts.head(heads)
            with ui.element("tbody"):
                for line in found.tasks:
                    with ui.element("tr"):
                        with ui.element("td").classes("number"):
                            show = ui.button(str(line.task), color=None)
                            show.props(f'flat dense no-caps size=sm aria-label="task {line.task}"')
                            show.classes("link")
                            show.on_click(lambda _, task=line.task: self._show_task(task))
                        text("td", line.slot, "number wide")
                        text("td", line.source, "number")
                        text("td", "-" if line.destination is None else line.destination, "number")
                        with ui.element("td"):
                            ui.label(line.outcome)
                            ui.label(line.why).classes("narrow muted")
                        text("td", line.after, "number wide")
                        text("td", line.why, "wide")
        if found.lacking > len(found.tasks):
            ui.label(f"The first {len(found.tasks)} of {found.lacking}.").classes("muted")
        parts.command(self._command("tasks", self._run.id, "--episode", str(found.number)))

    async def _show_task(self, task: int) -> None:
        run = self._run.id
        try:
            told = await with_log(self._context, lambda log: task_history(log, run, task))
        except TestbedError as error:
            parts.refused(error)
            return
        with ui.dialog() as dialog, ui.card().style("max-width: 700px; width: 100%"):
            heading(f"Task {task}", 2)
            ui.label(arrival(told.task)).classes("muted")
            parts.table(("", ""), [(name, line) for name, lines in told.facts for line in lines])
            parts.command(self._command("task", run, str(task), "--what-if"))
            ui.button("Close", on_click=dialog.close, color=None).props("outline autofocus")
        dialog.on("hide", dialog.delete)
        dialog.open()

    def draw_tables(self) -> None:
        found = self._found
        with ui.element("div").classes("pair"):
            with card("Metrics"):
                parts.table(
                    ("Metric", ">Mean of episodes", ">Episodes"),
                    [_metric_row(name, each) for name, each in found.metrics],
                )
            for each in found.tables:
                with card(each.heads[0].capitalize()):
                    parts.small_table(each)

    # --- changes ----------------------------------------------------------------------------

    async def _tag(self, chips: ui.input_chips) -> None:
        wanted = {each for given in chips.value or () for each in given.split()}
        now = set(self._run.tags)
        run, add, remove = self._run.id, sorted(wanted - now), sorted(now - wanted)
        if not add and not remove:
            return
        await self._change(lambda log: log.tag_run(run, add, remove))
        chips.set_value(list(self._run.tags))

    async def _note(self, note: str, saved: ui.label) -> None:
        run = self._run.id
        saved.text = "saved" if await self._change(lambda log: log.note_run(run, note)) else ""

    async def _change(self, change: Callable[[TaskLog], object]) -> bool:
        """Change what is said of the run, and read it again; return whether it was changed."""

        def work(log: TaskLog) -> None:
            change(log)
            self._run = log.run(self._run.id)

        try:
            await with_log(self._context, work)
        except TestbedError as error:
            parts.refused(error)
            return False
        return True

    async def _delete(self) -> None:
        run = self._run
        if not await confirmed_deletion(self._context, [row_of(run, self._found.outcomes)]):
            return
        if await self._gone(lambda log: log.delete_run(run.id)):
            ui.navigate.to("/runs")

    async def _gone(self, delete: Callable[[TaskLog], object]) -> bool:
        try:
            await with_log(self._context, delete)
        except TestbedError as error:
            parts.refused(error)
            return False
        return True

    def _command(self, *words: str) -> str:
        return commands.on_log(self._context.settings, *words)


def _metric_row(name: str, found: Measured | str) -> tuple[str, str, str]:
    if isinstance(found, str):
        return name, found, ""
    metric = found.metric
    return f"{name}: {metric.title}", metric.shown(found.interval), str(found.interval.count)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
