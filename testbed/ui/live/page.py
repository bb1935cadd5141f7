"""The live page: draws snapshots of a testbed as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from nicegui import background_tasks, json, ui
from nicegui.elements.mixins.text_element import TextElement

from testbed.ui.context import Context
from testbed.ui.elements import CommandLine, card, heading, inline, text
from testbed.ui.live import actions, charts, figures
from testbed.ui.live.commands import Commands
from testbed.ui.live.controls import Controls
from testbed.ui.live.network import Network
from testbed.ui.live.snapshot import Event, Snapshot, flows
from testbed.ui.live.style import sheet
from testbed.ui.live.watcher import LARGE, Watcher, watcher_of
from testbed.ui.options import Options
from testbed.ui.palette import Palette

SLOW: Final = 2
"""Every how many snapshots charts are drawn that change slowly."""

SLOW_LARGE: Final = 4
"""The same in a network of many nodes."""

EVENTS_SHOWN: Final = 60

_DRAW: Final = """
window.drawCharts = (charts) => {
  for (const [id, options] of Object.entries(charts)) {
    // Not before it has been made with its first options.
    getElement(Number(id))?.chart?.setOption(options, {replaceMerge: ["series"], lazyUpdate: true});
  }
};
"""
"""Draws charts anew in the browser, all that a snapshot changes with one message."""

_MARKS: Final = {
    "run": "▶",
    "scheduler": "⇄",
    "policy": "◆",
    "node": "●",
    "fault": "⚡",
    "problem": "!",
}


async def live(context: Context) -> None:
    """Show a testbed: the one that the address names, else the one of the command."""
    ui.add_css(sheet())
    name = context.parameters.get("name") or context.settings.name
    page = LivePage(context, name, watcher_of(name))
    page.start()
    # Those that are elsewhere may take a while.
    page.offer(await context.work(actions.testbeds))


class LivePage:
    """One visit of the live page, of the testbed ``name``."""

    def __init__(self, context: Context, name: str, watcher: Watcher) -> None:
        self._context, self._name, self._watcher = context, name, watcher
        self._commands = Commands(name, context.settings.options)
        self._network: Network | None = None
        self._task: asyncio.Task[None] | None = None
        self._drawn = 0
        self._events: tuple[Event, ...] = ()
        self._node: NodeDialog | None = None
        self._parts: Parts | None = None
        with ui.element("div").classes("row head"):
            heading("Live")
            self._choice = ui.select([name], value=name, label="testbed")
            self._choice.props("outlined dense options-dense").classes("testbeds")
            self._choice.on_value_change(lambda event: ui.navigate.to(f"/?name={event.value}"))
            self._headline = text("span", "", "muted headline")
        self._problem = ui.element("section").classes("card stack").props('role="alert"')
        with self._problem:
            self._problem_text = text("p", "", "bad problem")
            text("span", "Bring one up; this page then shows it by itself:", "muted")
            CommandLine(self._commands.up())
        self._problem.set_visibility(False)
        self._body = ui.element("div").classes("stack")
        with self._body:
            text("p", "asking the controller ...", "muted")

    def offer(self, names: Sequence[str]) -> None:
        """Let the user choose between the testbeds of these names."""
        self._choice.set_options(list(dict.fromkeys((self._name, *names))))

    def start(self) -> None:
        """Follow the testbed for as long as the page is open and can be seen."""
        client = ui.context.client
        client.on_delete(self._pause)
        ui.on("page-seen", lambda event: self._follow() if event.args else self._pause())
        ui.run_javascript(
            "document.addEventListener('visibilitychange', "
            "() => emitEvent('page-seen', !document.hidden))"
        )
        self._follow()

    def _follow(self) -> None:
        if self._task is None:
            self._task = background_tasks.create(self._watch(), name="live page")

    def _pause(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _watch(self) -> None:
        with self._watcher.watching():
            while True:
                self._show(self._watcher.snapshot)
                await self._watcher.changed()

    def _show(self, snapshot: Snapshot) -> None:
        self._problem.set_visibility(bool(snapshot.problem))
        self._problem_text.set_text(snapshot.problem)
        if snapshot.network is None:
            self._body.set_visibility(not snapshot.problem)
            return
        self._body.set_visibility(True)
        if snapshot.network != self._network:
            self._network = snapshot.network
            self._body.clear()
            with self._body:
                self._parts = Parts(self._context, snapshot.network, self)
            self._drawn, self._events = 0, ()
        self._headline.set_text(" · ".join(figures.headline(snapshot, self._name)))
        assert self._parts is not None
        every = SLOW_LARGE if snapshot.network.size > LARGE else SLOW
        self._parts.refresh(snapshot, slow=self._drawn % every == 0)
        self._drawn += 1
        if snapshot.events != self._events:
            self._events = snapshot.events
            self._parts.show_events(snapshot.events)
        if self._node is not None:
            self._node.refresh(snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is shown."""
        return self._watcher.snapshot

    @property
    def commands(self) -> Commands:
        """Command lines for this testbed."""
        return self._commands

    def controls(self, network: Network) -> Controls:
        """Draw the buttons."""
        return Controls(self._name, network, self._watcher, self._commands)

    def open_node(self, number: int, controls: Controls) -> None:
        """Show all of a node."""
        with self._body:
            self._node = NodeDialog(number, self._commands, controls, self._forget_node)
        self._node.refresh(self.snapshot)

    def _forget_node(self) -> None:
        self._node = None


class Parts:
    """The parts of the page for one network, drawn where it is made."""

    def __init__(self, context: Context, network: Network, page: LivePage) -> None:
        self._context, self._page = context, page
        self._client = ui.context.client
        self._client.run_javascript(_DRAW)
        self._slow: list[tuple[ui.echart, Callable[[Snapshot, Palette], Options]]] = []
        self._controls = page.controls(network)
        self._tiles: list[tuple[TextElement, TextElement, TextElement]] = []
        with ui.element("div").classes("tiles"):
            for _ in figures.tiles(page.snapshot):
                with ui.element("section").classes("card tile"):
                    self._tiles.append(
                        (text("h2", "", "muted"), text("p", "", "value"), text("p", "", "muted"))
                    )
        with ui.element("div").classes("live"):
            with ui.element("div").classes("stack"):
                with card("Network", "network"):
                    self._picture = self._chart(
                        charts.network, "network with its nodes and links; the table has the same"
                    )
                    self._picture.on_point_click(self._clicked)
                    text("p", charts.network_legend(network), "muted small")
                    self._table = NodeTable(
                        network, lambda node: page.open_node(node, self._controls)
                    )
                with card("Events"):
                    self._log = ui.element("ol").classes("events")
                    self._log.props(
                        'role="log" aria-live="polite" aria-label="events" tabindex="0"'
                    )
            with ui.element("div").classes("grid"):
                self._slowly("Success by episode", charts.success)
                self._slowly(f"How {network.work} ended", charts.outcomes)
                self._slowly(f"Nodes over time: {network.load_name}", charts.queues)
                self._slowly("Busiest links", charts.busiest)
                self._slowly("Latency of what ended well, over the run so far", charts.latencies)
                self._slowly("Processors of the controller's machine", charts.processors)
        with ui.element("div").classes("grid"):
            with card("Fidelity so far"):
                self._fidelity = FidelityTable()
            with card("Afterwards"):
                text("p", "Runs on equal scenarios meet equal tasks, episode by episode.", "muted")
                ui.link("Compare the runs", "/compare")
                CommandLine(page.commands.compare())

    def refresh(self, snapshot: Snapshot, *, slow: bool) -> None:
        """Draw a snapshot; ``slow``: also what changes slowly."""
        palette = self._context.palette
        self._controls.refresh(snapshot)
        for (name, value, detail), tile in zip(self._tiles, figures.tiles(snapshot), strict=True):
            name.set_text(tile.name)
            _set(value, tile.value, f"value {tile.tone}")
            detail.set_text(tile.detail)
        drawn = {self._picture.id: charts.network(snapshot, palette)}
        if slow:
            drawn |= {chart.id: options(snapshot, palette) for chart, options in self._slow}
            self._fidelity.refresh(snapshot)
            self._table.refresh(snapshot)
        self._client.run_javascript(f"drawCharts({json.dumps(drawn)})")

    def show_events(self, events: tuple[Event, ...]) -> None:
        """Show the events, the newest first."""
        self._log.clear()
        with self._log:
            for event in reversed(events[-EVENTS_SHOWN:]):
                with ui.element("li").classes("bad" if event.bad else ""):
                    at = time.strftime("%H:%M:%S", time.localtime(event.at))
                    text("time", at, "muted number")
                    inline(f"{_MARKS[event.kind]} {event.text}")

    def _chart(self, options: Callable[[Snapshot, Palette], Options], says: str) -> ui.echart:
        chart = self._context.chart(lambda palette: options(self._page.snapshot, palette))
        return chart.props(f'role="img" aria-label="{says}"')

    def _slowly(self, title: str, options: Callable[[Snapshot, Palette], Options]) -> None:
        with card(title):
            self._slow.append((self._chart(options, title), options))

    def _clicked(self, event: Any) -> None:
        if event.data_type == "node":
            self._page.open_node(int(event.name), self._controls)


class NodeTable:
    """All nodes as a table, for the keyboard and for who cannot see the picture."""

    _HEADS: Final = ("node", "state", "scheduler", "load", "backlog", "timers late")

    def __init__(self, network: Network, opened: Callable[[int], None]) -> None:
        self._network = network
        self._rows: list[list[TextElement]] = []
        self._panel = ui.expansion("Nodes as a table").classes("nodes")
        with self._panel, ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
            with ui.element("thead"), ui.element("tr"):
                for head in self._HEADS:
                    text("th", head).props('scope="col"')
            with ui.element("tbody"):
                for number in range(network.size):
                    with ui.element("tr"):
                        with ui.element("td"):
                            button = ui.button(
                                str(number),
                                on_click=lambda number=number: opened(number),
                                color=None,
                            )
                            button.props(f'outline dense no-caps aria-label="open node {number}"')
                        self._rows.append([text("td", "-") for _ in self._HEADS[1:]])

    def refresh(self, snapshot: Snapshot) -> None:
        """Draw a snapshot, if the table is open."""
        if not self._panel.value:
            return
        out = charts.out_of_the_run(snapshot)
        for number, (node, row) in enumerate(zip(snapshot.nodes, self._rows, strict=False)):
            told = (
                charts.status_of(self._network, number, node, out=number in out),
                node.scheduler or "-",
                "-" if node.load is None else str(node.load),
                "-" if node.backlog is None else charts.milliseconds(node.backlog),
                charts.milliseconds(node.lag),
            )
            for cell, content in zip(row, told, strict=True):
                cell.set_text(content)


class FidelityTable:
    """The terms of the fidelity certificate as they stand."""

    def __init__(self) -> None:
        self._shown: tuple[figures.Judged, ...] = ()
        with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
            with ui.element("thead"), ui.element("tr"):
                for head in ("what", ">measured", ">allowed", "so far"):
                    number = "number" if head.startswith(">") else ""
                    text("th", head.removeprefix(">"), number).props('scope="col"')
            self._body = ui.element("tbody")
        text("p", "The verdict of the certificate comes at the end of the run.", "muted small")

    def refresh(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        found = figures.fidelity(snapshot)
        if found == self._shown:
            return
        self._shown = found
        self._body.clear()
        with self._body:
            for each in found:
                with ui.element("tr"):
                    text("td", each.name)
                    text("td", each.measured, "number")
                    text("td", each.allowed, "number")
                    text("td", each.verdict, each.tone)


class NodeDialog:
    """All that is known of one node, and what can be done to it."""

    def __init__(
        self, number: int, commands: Commands, controls: Controls, closed: Callable[[], None]
    ) -> None:
        self._number = number
        self._facts: dict[str, TextElement] = {}
        self._dialog = ui.dialog()
        with self._dialog, ui.element("div").classes("card stack dialog"):
            heading(f"Node {number}", 2)
            self._list = ui.element("dl").classes("facts")
            heading("Links", 3)
            self._flows = text("p", "", "small pre")
            with ui.element("div").classes("row"):
                for label, act in (
                    ("Scheduler", lambda: controls.set_scheduler((number,))),
                    ("Fault", lambda: controls.inject((number,))),
                    ("Kill", lambda: controls.kill(number)),
                ):
                    button = ui.button(label, on_click=act, color=None)
                    button.props("no-caps outline")
            text("span", "Its log:", "muted")
            CommandLine(commands.logs(number))
            with ui.element("div").classes("row end"):
                close = ui.button("Close", on_click=self._dialog.close, color=None)
                close.props("no-caps outline autofocus")
        self._closed = closed
        self._dialog.on("hide", self._hidden)
        self._dialog.open()

    def _hidden(self) -> None:
        self._closed()
        self._dialog.delete()

    def refresh(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        known, nodes = snapshot.network, snapshot.nodes
        if known is None or self._number >= len(nodes):
            return
        node = nodes[self._number]
        out = self._number in charts.out_of_the_run(snapshot)
        status = charts.status_of(known, self._number, node, out=out)
        if node.reason and node.condition != "healthy":
            status = f"{status}: {node.reason}"
        for name, told in (("state", status), *charts.facts(known, self._number, node)):
            if name not in self._facts:
                with self._list:
                    text("dt", name)
                    self._facts[name] = text("dd", told)
            self._facts[name].set_text(told)
        lines = [
            f"{flow.source} → {flow.destination}: {flow.work_rate:.1f} {known.work}/s, "
            f"{flow.total.work} in the run"
            for flow in flows(snapshot.samples)
            if self._number in (flow.source, flow.destination)
        ]
        self._flows.set_text("\n".join(lines[:12]) or "nothing so far")


def _set(element: TextElement, content: str, classes: str) -> None:
    element.set_text(content)
    element.classes(replace=classes)
