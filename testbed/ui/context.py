"""Parts that every page uses: settings, colours, charts, and work beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

from nicegui import ui

from testbed.ui.options import Options as Options
from testbed.ui.palette import Palette

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command was told: the testbed shown first, and where past results are.

    ``name`` is the testbed's; ``task_log`` and ``artifacts`` are URLs, ``data_sets`` a folder that
    need not exist. ``options`` are those of the command that other commands need too, as one would
    type them.
    """

    name: str
    task_log: str
    artifacts: str
    data_sets: Path
    options: str = ""


class Context:
    """One visit of a page: made when a browser has opened it, and left behind with it."""

    def __init__(self, settings: Settings, palette: Palette, parameters: Mapping[str, str]) -> None:
        self.settings = settings
        self.parameters = parameters
        self._palette = palette
        self._followers: list[Callable[[Palette], None]] = []

    @property
    def palette(self) -> Palette:
        """The colours of the page now."""
        return self._palette

    @palette.setter
    def palette(self, palette: Palette) -> None:
        if palette == self._palette:
            return
        self._palette = palette
        for follower in self._followers:
            follower(palette)

    def on_palette(self, follower: Callable[[Palette], None]) -> None:
        """Call ``follower`` with the new colours whenever the page turns light or dark."""
        self._followers.append(follower)

    def chart(self, options: Callable[[Palette], Options]) -> ui.echart:
        """Add a chart; its options are asked for again when the page turns light or dark."""
        made = ui.echart(options(self._palette)).classes("chart")

        def repaint(palette: Palette) -> None:
            made.options.clear()
            made.options.update(options(palette))
            made.update()

        self.on_palette(repaint)
        return made

    async def work(self, function: Callable[_P, _R], *arguments: _P.args, **named: _P.kwargs) -> _R:
        """Return what ``function`` returns, which may read files or ask others meanwhile.

        Runs in a thread of its own, as a page must not wait for it on the event loop.
        """
        return await asyncio.to_thread(function, *arguments, **named)


Build: TypeAlias = Callable[[Context], Awaitable[None] | None]
"""Draws a page with the elements of NiceGUI; a TestbedError that it raises is shown instead."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its path, which may have parameters as in ``/runs/{run}``, and its title.

    ``listed`` pages are linked in the header of all pages.
    """

    path: str
    title: str
    build: Build
    listed: bool = True
