"""Small elements that several pages use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement


def heading(text: str, level: int = 1) -> TextElement:
    """Add a heading."""
    return TextElement(tag=f"h{level}", text=text)


def inline(text: str) -> TextElement:
    """Add text within a line."""
    return TextElement(tag="span", text=text)


def code(text: str) -> TextElement:
    """Add text that can be typed as it stands."""
    return TextElement(tag="code", text=text)


def text(tag: str, content: object, classes: str = "") -> TextElement:
    """Add an element of HTML with nothing but text in it."""
    return TextElement(tag=tag, text=str(content)).classes(classes)


@contextmanager
def card(title: str, classes: str = "") -> Iterator[None]:
    """Give a part of a page with a title."""
    with ui.element("section").classes(f"card stack {classes}"):
        heading(title, 2)
        yield


class CommandLine:
    """A command line that is shown as code, with a button that copies it."""

    def __init__(self, line: str) -> None:
        self._line = line
        with ui.element("div").classes("command"):
            self._shown = code(line)
            button = ui.button(icon="content_copy", on_click=self._copy, color=None)
            button.props('flat dense size=sm aria-label="copy the command"')

    def show(self, line: str) -> None:
        """Show another line."""
        self._line = line
        self._shown.set_text(line)

    def _copy(self) -> None:
        ui.clipboard.write(self._line)
        ui.notify("copied", type="positive", timeout=1500)
