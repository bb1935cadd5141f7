"""Small elements of HTML that NiceGUI has no name for."""

from __future__ import annotations

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
