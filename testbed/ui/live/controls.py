"""The buttons of the live page, each with the dialog that asks before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from nicegui import ui

from testbed.model.faults import KINDS
from testbed.ui.live import actions
from testbed.ui.live.commands import Commands
from testbed.ui.live.dialog import ActionDialog
from testbed.ui.live.network import Network
from testbed.ui.live.snapshot import Event, Snapshot
from testbed.ui.live.watcher import Watcher

_DEFAULT: Final = "the scenario's"


class Controls:
    """The buttons for the testbed ``name``. They are drawn where it is made."""

    def __init__(self, name: str, network: Network, watcher: Watcher, commands: Commands) -> None:
        self._name, self._network, self._watcher = name, network, watcher
        self._commands = commands
        self._schedulers = list(actions.schedulers(network.hook))
        with ui.element("div").classes("row controls").props('role="group" aria-label="controls"'):
            self._start = _button("Start run", "play_arrow", self.start_run, color="primary")
            self._stop = _button("Stop run", "stop", self.stop_run)
            self._change = _button("Scheduler", "alt_route", lambda: self.set_scheduler(()))
            self._deploy = _button("Policy", "psychology", self.deploy)
            self._fault = _button("Fault", "bolt", lambda: self.inject(()))
            self._kill = _button("Kill node", "dangerous", lambda: self.kill(0))
        # Dialogs are made when they are asked for, and then belong to the place of the buttons.
        self._place = ui.element("div")

    def refresh(self, snapshot: Snapshot) -> None:
        """Enable what can be done now."""
        active = snapshot.active
        reachable = not snapshot.problem and snapshot.state is not None
        for button, possible in (
            (self._start, reachable and not active),
            (self._stop, reachable and active),
            (self._change, reachable and active),
            (self._fault, reachable and active),
            (self._deploy, reachable),
            (self._kill, reachable),
        ):
            if button.enabled != possible:
                button.set_enabled(possible)

    def start_run(self) -> None:
        """Ask for a run, and start it."""
        network = self._network
        chosen: dict[str, Any] = {"scheduler": "", "episodes": None, "label": "", "first": 0}

        def command() -> str:
            return self._commands.run(
                chosen["scheduler"],
                _whole(chosen["episodes"]),
                chosen["label"],
                _whole(chosen["first"]) or 0,
            )

        def act() -> Sequence[Event]:
            return actions.start_run(
                self._name,
                chosen["scheduler"],
                _whole(chosen["episodes"]),
                chosen["label"],
                _whole(chosen["first"]) or 0,
            )

        dialog = self._dialog("Start a run", "Start", command, act)
        with dialog.fields():
            default = f"{_DEFAULT} ({network.scheduler})"
            self._scheduler_field(chosen, dialog, {"": default})
            _number(
                f"episodes ({_DEFAULT}: {network.episodes})", chosen, "episodes", dialog, least=1
            )
            _number("first episode; equal ones have equal tasks", chosen, "first", dialog)
            _text("label, to find the run again", chosen, "label", dialog)
        dialog.open()

    def stop_run(self) -> None:
        """Ask whether the run is to end, and end it."""
        state = self._watcher.snapshot.state
        if state is None or state.run is None:
            return
        run = state.run.progress.run
        self._dialog(
            f"Stop run {run}?",
            "Stop run",
            lambda: self._commands.stop(run),
            lambda: actions.stop_run(self._name, run),
            hurts="The run ends before its last episode. What has happened is in the task log.",
        ).open()

    def set_scheduler(self, nodes: Sequence[int]) -> None:
        """Ask for another scheduler of ``nodes`` (none: all), and change it."""
        names = self._schedulers
        chosen: dict[str, Any] = {"scheduler": names[0] if names else "", "nodes": list(nodes)}
        dialog = self._dialog(
            "Change the scheduler",
            "Change",
            lambda: self._commands.scheduler(chosen["scheduler"], sorted(chosen["nodes"])),
            lambda: actions.set_scheduler(self._name, chosen["scheduler"], sorted(chosen["nodes"])),
        )
        with dialog.fields():
            self._scheduler_field(chosen, dialog, {})
            self._nodes_field(chosen, dialog, "nodes (none: all)")
        dialog.open()

    async def deploy(self) -> None:
        """Ask for a policy, and deploy it; or take the last one back."""
        import asyncio

        known = await asyncio.to_thread(actions.policies, self._name)
        chosen: dict[str, Any] = {"policy": known[0] if known else "", "nodes": []}
        dialog = self._dialog(
            "Deploy a policy",
            "Deploy",
            lambda: self._commands.deploy(chosen["policy"], sorted(chosen["nodes"])),
            lambda: actions.deploy(self._name, chosen["policy"], sorted(chosen["nodes"])),
        )
        with dialog.fields():
            _select("policy", {each: each for each in known}, chosen, "policy", dialog)
            if self._watcher.snapshot.active:
                self._nodes_field(chosen, dialog, "nodes (none: all)")
            _button("Roll back to the one before...", "undo", self.roll_back)
        dialog.open()

    def roll_back(self) -> None:
        """Ask whether the last deploy is to be undone, and undo it."""
        self._dialog(
            "Roll back to the policy before?",
            "Roll back",
            self._commands.roll_back,
            lambda: actions.roll_back(self._name),
            hurts="All nodes go back to what decided before the last deploy.",
        ).open()

    def kill(self, node: int) -> None:
        """Ask which node is to die, and kill it."""
        chosen: dict[str, Any] = {"node": node}
        dialog = self._dialog(
            "Kill a node?",
            "Kill it",
            lambda: self._commands.kill(chosen["node"]),
            lambda: actions.kill(self._name, chosen["node"]),
            hurts="Its process ends at once, as in a crash: what it holds is lost, and the run "
            "goes on without it. On this machine it does not come back.",
        )
        with dialog.fields():
            options = {each: f"node {each}" for each in range(self._network.size)}
            _select("node", options, chosen, "node", dialog)
        dialog.open()

    def inject(self, nodes: Sequence[int]) -> None:
        """Ask for a fault of ``nodes``, and inject it; or release all of them."""
        kinds = {kind.name: f"{kind.name}: {kind.summary}" for kind in KINDS.values()}
        chosen: dict[str, Any] = {
            "kind": next(iter(kinds)),
            "for": "5s",
            "nodes": list(nodes),
            "from": [],
            "to": [],
            "factor": 0.2,
            "failureRate": 1.0,
            "mode": "",
        }

        def entry() -> dict[str, Any]:
            kind = KINDS[chosen["kind"]]
            places = ("nodes",) if kind.target == "nodes" else ("from", "to")
            found: dict[str, Any] = {"kind": kind.name, "for": chosen["for"]}
            found |= {key: sorted(chosen[key]) or "all" for key in places}
            found |= {key: chosen[key] for key in kind.parameters if chosen[key] not in ("", None)}
            return found

        dialog = self._dialog(
            "Inject a fault",
            "Inject",
            lambda: self._commands.inject(entry()),
            lambda: actions.inject(self._name, entry()),
        )
        with dialog.fields():
            kind_field = _select("kind", kinds, chosen, "kind", dialog)
            _text("for, in emulated time", chosen, "for", dialog)
            by_key = {
                "nodes": self._nodes_field(chosen, dialog, "nodes (none: all)", "nodes"),
                "from": self._nodes_field(chosen, dialog, "links from (none: all)", "from"),
                "to": self._nodes_field(chosen, dialog, "links to (none: all)", "to"),
                "factor": _number("factor", chosen, "factor", dialog),
                "failureRate": _number("failures per second", chosen, "failureRate", dialog),
                "mode": _select("mode", {"": "default"}, chosen, "mode", dialog),
            }

            def show_fields() -> None:
                kind = KINDS[chosen["kind"]]
                places = {"nodes"} if kind.target == "nodes" else {"from", "to"}
                for key, field in by_key.items():
                    field.set_visibility(key in places or key in kind.parameters)
                modes = by_key["mode"]
                chosen["mode"] = ""
                modes.set_options({"": "default", **{m: m for m in kind.modes}}, value="")
                modes.set_visibility(len(kind.modes) > 1)

            kind_field.on_value_change(show_fields)
            show_fields()
            _button("Release all faults by hand", "healing", self.clear_faults)
        dialog.open()

    def clear_faults(self) -> None:
        """Ask whether all faults by hand are to end, and end them."""
        self._dialog(
            "Release all faults by hand?",
            "Release",
            self._commands.clear_faults,
            lambda: actions.clear_faults(self._name),
        ).open()

    def _dialog(
        self,
        title: str,
        button: str,
        command: Callable[[], str],
        act: Callable[[], Sequence[Event]],
        hurts: str = "",
    ) -> ActionDialog:
        with self._place:
            return ActionDialog(
                title, button=button, command=command, act=act, done=self._watcher.note, hurts=hurts
            )

    def _scheduler_field(
        self, chosen: dict[str, Any], dialog: ActionDialog, first: dict[str, str]
    ) -> None:
        options = {**first, **{name: name for name in self._schedulers}}
        _select("scheduler", options, chosen, "scheduler", dialog)

    def _nodes_field(
        self, chosen: dict[str, Any], dialog: ActionDialog, label: str, key: str = "nodes"
    ) -> Any:
        options = {each: f"node {each}" for each in range(self._network.size)}
        field = _select(label, options, chosen, key, dialog, several=True)
        field.props("use-chips")
        return field


def _button(label: str, icon: str, act: Callable[[], Any], color: str | None = None) -> ui.button:
    button = ui.button(label, icon=icon, on_click=act, color=color)
    return button.props("no-caps unelevated" if color else "no-caps outline")


def _select(
    label: str,
    options: dict[Any, str],
    chosen: dict[str, Any],
    key: str,
    dialog: ActionDialog,
    *,
    several: bool = False,
) -> Any:
    def change(event: Any) -> None:
        chosen[key] = event.value
        dialog.changed()

    field = ui.select(options, label=label, value=chosen[key], multiple=several, on_change=change)
    return field.props("outlined dense options-dense").classes("field")


def _number(
    label: str, chosen: dict[str, Any], key: str, dialog: ActionDialog, least: float = 0
) -> Any:
    def change(event: Any) -> None:
        chosen[key] = event.value
        dialog.changed()

    field = ui.number(label, value=chosen[key], min=least, on_change=change)
    return field.props("outlined dense").classes("field")


def _text(label: str, chosen: dict[str, Any], key: str, dialog: ActionDialog) -> Any:
    def change(event: Any) -> None:
        chosen[key] = event.value or ""
        dialog.changed()

    return (
        ui.input(label, value=chosen[key], on_change=change)
        .props("outlined dense")
        .classes("field")
    )


def _whole(value: Any) -> int | None:
    return None if value in (None, "") else int(value)
