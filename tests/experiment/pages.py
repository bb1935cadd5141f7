"""Checks of pages of results: their HTML, and the files beside them."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "img", "link", "hr", "input"}
"""Elements of HTML that have no end."""


class Page(HTMLParser):
    """A page that was read: tables as lists of rows of texts, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.links: list[str] = []
        self._ids: list[str] = []
        self._open: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)
        self.close()
        self.problems += [f"<{each}> is not closed" for each in self._open]
        twice = {each for each in self._ids if self._ids.count(each) > 1}
        self.problems += [f"id {each} is there twice" for each in twice]
        for link in self.links:
            if link.startswith("#") and link[1:] not in self._ids:
                self.problems.append(f"nothing has the id {link}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if (each := found.get("id")) is not None:
            self._ids.append(each)
        self.links += [
            str(value) for name, value in attrs if name in ("href", "xlink:href") and value
        ]
        self.links += [
            f"#{value[5:-1]}" for _, value in attrs if value and value.startswith("url(#")
        ]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
            return
        self._open.pop()
        if tag in ("td", "th") and self._cell is not None:
            text = "".join(self._cell).strip()
            self._cell = None
            self.tables[-1][-1].append(text)
            if not text:
                self.problems.append(f"an empty cell behind {self.tables[-1][-1][:-1]}")

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def table(self, head: str) -> list[dict[str, str]]:
        """Return the rows of the first table with a column of that head, by their heads."""
        [first, *rows] = next(each for each in self.tables if head in each[0])
        return [dict(zip(first, row, strict=True)) for row in rows]


def checked(path: Path) -> Page:
    """Return the page in a file; its HTML is sound, and every file that it names is there."""
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    assert all(len(row) == len(table[0]) for table in page.tables for row in table)
    missing = [
        each
        for each in page.links
        if not each.startswith(("#", "data:")) and not (path.parent / each).exists()
    ]
    assert missing == []
    return page


def check_files(path: Path) -> Page:
    """See that the page is sound, and that each figure beside it is there in three forms."""
    page = checked(path)
    folder = path.parent / "figures" if (path.parent / "figures").is_dir() else path.parent
    names = {each.stem for each in folder.glob("*.svg")}
    assert names
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        with (folder / f"{name}.csv").open(encoding="utf-8") as stream:
            assert len(list(csv.reader(stream))) > 1, name
    return page
