"""A dialog that asks before something is done, and shows the command that does the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nicegui import ui

from testbed.errors import TestbedError
from testbed.ui.elements import CommandLine, heading, text
from testbed.ui.live.snapshot import Event


class ActionDialog:
    """A dialog with fields, which are added in ``fields``, and a button that does it.

    Args:
        title: What is to be done.
        button: Text of the button.
        command: Returns the command line for what the fields say now.
        act: Does it, in a thread; returns events to be noted. Raises: TestbedError: it could not.
        done: Gets the events.
        hurts: What it does to a run, where that cannot be undone; empty: it can.
    """

    def __init__(
        self,
        title: str,
        *,
        button: str,
        command: Callable[[], str],
        act: Callable[[], Sequence[Event]],
        done: Callable[[Sequence[Event]], None],
        hurts: str = "",
    ) -> None:
        self._command, self._act, self._done = command, act, done
        self._dialog = ui.dialog()
        self._dialog.on("hide", self._dialog.delete)
        with self._dialog, ui.element("div").classes("card stack dialog"):
            heading(title, 2)
            if hurts:
                text("p", hurts, "warning")
            self._fields = ui.element("div").classes("stack")
            text("span", "The same on the command line:", "muted")
            self._line = CommandLine("")
            self._problem = text("p", "", "bad problem").props('role="alert"')
            with ui.element("div").classes("row end"):
                cancel = ui.button("Cancel", on_click=self._dialog.close, color=None)
                cancel.props("outline no-caps" + (" autofocus" if hurts else ""))
                self._button = ui.button(
                    button, on_click=self._carry_out, color="negative" if hurts else "primary"
                )
                self._button.props("no-caps unelevated")

    @contextmanager
    def fields(self) -> Iterator[None]:
        """Add fields in the block."""
        with self._fields:
            yield

    def changed(self) -> None:
        """Show the command for what the fields say now."""
        self._line.show(self._command())

    def open(self) -> None:
        """Ask."""
        self._problem.set_text("")
        self.changed()
        self._dialog.open()

    async def _carry_out(self) -> None:
        self._button.disable()
        self._problem.set_text("")
        try:
            events = await asyncio.to_thread(self._act)
        except TestbedError as error:
            self._problem.set_text(str(error))
            return
        finally:
            self._button.enable()
        self._dialog.close()
        self._done(events)
