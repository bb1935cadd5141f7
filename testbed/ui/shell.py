"""The frame of every page: header with links, light or dark, and errors shown as text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Final

from fastapi import Request
from nicegui import ui

from testbed.errors import TestbedError
from testbed.ui.context import Context, Page, Settings
from testbed.ui.elements import heading
from testbed.ui.palette import palette
from testbed.ui.style import sheet

LOOK: Final = "testbed_look"
"""Cookie with the choice between light, dark, and what the system prefers."""

_LOOKS: Final[dict[str, bool | None]] = {"auto": None, "light": False, "dark": True}
_SYSTEM_DARK: Final = "matchMedia('(prefers-color-scheme: dark)')"


def register(pages: Sequence[Page], settings: Settings) -> None:
    """Make the pages known to NiceGUI, each with the frame."""
    for page in pages:
        _register(page, pages, settings)


def _register(page: Page, pages: Sequence[Page], settings: Settings) -> None:
    async def visit(request: Request) -> None:
        await _visit(page, pages, settings, request)

    ui.page(page.path, title=f"{page.title} - testbed")(visit)


async def _visit(page: Page, pages: Sequence[Page], settings: Settings, request: Request) -> None:
    ui.add_css(sheet())
    ui.context.client.content.style("padding: 0; gap: 0")
    chosen = request.cookies.get(LOOK, "auto")
    look = ui.dark_mode(_LOOKS.get(chosen))
    with ui.element("header").classes("top"):
        ui.link("testbed", "/").classes("brand")
        with ui.element("nav").props('aria-label="pages"'):
            for each in pages:
                if each.listed:
                    link = ui.link(each.title, each.path)
                    if each is page:
                        link.props('aria-current="page"')
        choice = ui.select(list(_LOOKS), value=chosen if chosen in _LOOKS else "auto")
        choice.props('dense options-dense borderless aria-label="light or dark"')
    # Within the element `main` of the framework.
    body = ui.element("div").classes("content")
    ui.skip_link(target=body)
    await ui.context.client.connected()
    system_dark = bool(await ui.run_javascript(f"{_SYSTEM_DARK}.matches", timeout=10.0))
    parameters = {**request.query_params, **request.path_params}
    context = Context(settings, palette(_is_dark(look.value, system_dark)), parameters)
    _follow_look(context, look, choice, system_dark)
    with body:
        await _build(page, context)


def _is_dark(chosen: bool | None, system_dark: bool) -> bool:
    return system_dark if chosen is None else chosen


def _follow_look(
    context: Context, look: ui.dark_mode, choice: ui.select, system_dark: bool
) -> None:
    """Change the colours with the user's choice, and with what the system prefers."""
    system = [system_dark]

    def repaint() -> None:
        context.palette = palette(_is_dark(look.value, system[0]))

    def chosen() -> None:
        look.value = _LOOKS[choice.value]
        ui.run_javascript(
            f"document.cookie = '{LOOK}={choice.value}; path=/; max-age=31536000; SameSite=Strict'"
        )
        repaint()

    def preferred(dark: bool) -> None:
        system[0] = dark
        repaint()

    choice.on_value_change(chosen)
    ui.on("system-look", lambda event: preferred(bool(event.args)))
    ui.run_javascript(
        f"{_SYSTEM_DARK}.addEventListener('change', e => emitEvent('system-look', e.matches))"
    )


async def _build(page: Page, context: Context) -> None:
    """Draw the page; where it cannot be drawn, say why."""
    try:
        building = page.build(context)
        if inspect.isawaitable(building):
            await building
    except TestbedError as error:
        with ui.element("section").classes("card stack").props('role="alert"'):
            heading("This page cannot be shown")
            ui.label(str(error)).style("white-space: pre-wrap")
