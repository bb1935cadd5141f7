"""The frame of all HTML pages of results: contents, tables, figures, styles.

A page is one file that loads nothing: figures stand in it as SVG. It follows the reader's choice of
light or dark colours and is readable on a telephone, where only tables and wide figures can be
moved sideways. Every text that is given to these functions is escaped here unless it is said to be
HTML already.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

ABSENT: Final = "–"
"""Stands in cells that have no value, as no cell is empty."""

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --faint: #5a5a5a; --rule: #ddd;
  --band: #eee; --head: #f4f4f4; --link: #0b5cad; --bad: #b00000; --good: #00734c;
  --doubt: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e6ea; --faint: #a8aeb8;
  --rule: #40454d; --band: #2a2e35; --head: #22262c; --link: #7ab8ff; --bad: #ff8a80;
  --good: #5fd39d; --doubt: #e3b341; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
a { color: var(--link); }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.4rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; }
.wide { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { background: var(--head); }
.number { text-align: right; }
td.text { min-width: 14rem; white-space: normal; }
.absent { color: var(--faint); }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 46rem; fill: currentColor; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure .wide { margin: 0; }
figcaption, .note { color: var(--faint); font-size: 0.88rem; max-width: 46rem; }
.contents ul { list-style: none; padding: 0; margin: 0.4rem 0; display: flex; flex-wrap: wrap;
  gap: 0.1rem 1.2rem; }
pre { overflow-x: auto; background: var(--head); padding: 0.6rem 0.8rem; font-size: 0.82rem; }
code { overflow-wrap: anywhere; }
.bad, .differs { color: var(--bad); } .agrees, .good { color: var(--good); }
.undecided { color: var(--doubt); } .agrees, .differs, .undecided { font-weight: 600; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 0.7rem; }
  th, td { padding: 0.25rem 0.45rem; }
  .contents a { display: inline-block; padding: 0.3rem 0; }
}
@media print { body { max-width: none; } .contents { display: none; }
  figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading, which the contents list; ``parts`` are HTML.

    ``style`` is CSS that it needs besides that of all pages.
    """

    heading: str
    parts: Sequence[str]
    name: str = ""
    style: str = ""

    @property
    def id(self) -> str:
        """Return the anchor of the section: its ``name``, or the words of its heading."""
        return self.name or re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")


def framed(title: str, lead: Iterable[str], sections: Iterable[Section]) -> str:
    """Return a page: its title, the parts before the contents (HTML), contents and sections."""
    shown = [section for section in sections if section.parts]
    entries = "".join(
        f'<li><a href="#{html.escape(each.id)}">{html.escape(each.heading)}</a></li>'
        for each in shown
    )
    body = "".join(
        f'<section><h2 id="{html.escape(each.id)}">{html.escape(each.heading)}</h2>'
        f"{''.join(each.parts)}</section>"
        for each in shown
    )
    style = "".join([_STYLE, *(each.style for each in shown)])
    contents = f'<nav class="contents" aria-label="Contents"><ul>{entries}</ul></nav>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{''.join(lead)}{contents if shown else ''}"
        f"<main>{body}</main></body></html>\n"
    )


def note(text: str) -> str:
    """Return a note: a paragraph in a smaller, fainter type; what is in backticks is code."""
    return f'<p class="note">{_with_code(text)}</p>'


def paragraph(text: str) -> str:
    """Return a paragraph; what is in backticks is code."""
    return f"<p>{_with_code(text)}</p>"


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{html.escape(text)}</h3>"


def folded(summary: str, text: str) -> str:
    """Return a text of many lines that is shown when its ``summary`` is clicked at."""
    return (
        f"<details><summary>{html.escape(summary)}</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )


def command_line(command: str) -> str:
    """Return a command as one would type it."""
    return f"<p><code>{html.escape(command)}</code></p>"


def listed(lines: Iterable[str]) -> str:
    """Return a list of lines; empty if there are none."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that can be moved sideways; all cells are HTML already, empty ones are marked.

    Columns whose cells are all numbers are aligned to the right.
    """
    cells = [[cell or ABSENT for cell in row] for row in rows]
    numbers = [all(_is_number(row[place]) for row in cells) for place in range(len(head))]
    texts = [any(len(_plain(row[place])) > _LONG for row in cells) for place in range(len(head))]
    classes = [
        ' class="number"' if number else ' class="text"' if text else ""
        for number, text in zip(numbers, texts, strict=True)
    ]
    heads = "".join(
        f"<th{kind}>{cell or ABSENT}</th>" for cell, kind in zip(head, classes, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(_cell(cell, kind) for cell, kind in zip(row, classes, strict=True))}</tr>"
        for row in cells
    )
    return (
        '<div class="wide"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


_LONG: Final = 40
"""Letters of a cell from which on its column is wrapped."""


def _cell(cell: str, kind: str) -> str:
    shown = f'<span class="absent">{cell}</span>' if cell == ABSENT else cell
    return f"<td{kind}>{shown}</td>"


def _plain(cell: str) -> str:
    return re.sub(r"<[^>]*>", "", cell)


_NUMBER: Final = re.compile(
    r"[-+−]?[\d.,]+(e[-+]\d+)?( (to|\.\.|±) [-+−]?[\d.,]+)?( \([-+][\d.]+\))?"
)
"""A number, perhaps with its interval or a difference behind it."""


def _is_number(cell: str) -> bool:
    return cell == ABSENT or _NUMBER.fullmatch(cell) is not None


def frame_table(frame: pd.DataFrame, digits: int = 1) -> str:
    """Return a data frame as a table: columns as heads, floats with so many digits."""
    rows = [
        [html.escape(_shown(value, digits)) for value in row]
        for row in frame.itertuples(index=False, name=None)
    ]
    return table([html.escape(str(column)) for column in frame.columns], rows)


def _shown(value: object, digits: int) -> str:
    if value is None or value != value:
        return ABSENT
    if isinstance(value, bool | Integral):
        return str(value)
    return f"{value:.{digits}f}" if isinstance(value, Real) else str(value)


def figure(svg: bytes | str, name: str, says: str, files: Sequence[str] = ()) -> str:
    """Return a figure with its caption and links to its files.

    Args:
        svg: the figure as matplotlib writes it; it gets the colours of the page.
        name: the name of the figure, unique on the page.
        says: the caption, which also describes it to who cannot see it.
        files: addresses of its files, relative to the page.
    """
    links = ", ".join(
        f'<a href="{html.escape(file)}">{html.escape(file.rsplit(".", 1)[-1].upper())}</a>'
        for file in files
    )
    more = f" {links}" if links else ""
    return (
        f'<figure><div class="wide">{_inline(svg, name)}</div>'
        f'<figcaption id="{name}-says">{html.escape(says)}{more}</figcaption></figure>'
    )


_COLOURS: Final = {
    # Texts have no colour in the file, and get the page's.
    "#000000": "currentColor",
    "#222222": "currentColor",
    "#444444": "var(--faint)",
    "#555555": "var(--faint)",
    "#dddddd": "var(--rule)",
    "#eeeeee": "var(--band)",
}
"""Colours of figures that are other ones on a dark page. White faces are left out."""

_COLOUR: Final = re.compile("|".join(_COLOURS))
_SIZE: Final = re.compile(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')
_ID: Final = re.compile(r'\bid="([^"]+)"')
_REFERENCE: Final = re.compile(r'(xlink:href="#|url\(#)([^")]+)')
_SMALLEST: Final = 0.85
"""A figure is not shown smaller than so many pixels of a page for each point."""


def _inline(svg: bytes | str, name: str) -> str:
    """Return an SVG file of matplotlib as an element of a page.

    Its ids are random, and the same in several figures; here they are numbers after ``name``.
    """
    text = svg.decode("utf-8") if isinstance(svg, bytes) else svg
    found = _SIZE.search(text)
    if found is None:
        raise ValueError(f"figure {name} is no SVG of matplotlib")
    inner = text[found.end() : text.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner, flags=re.S)
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    inner = inner.replace("fill: #ffffff", "fill: none")
    inner = _COLOUR.sub(lambda match: _COLOURS[match[0]], inner)
    ids: dict[str, str] = {}
    for each in _ID.findall(inner):
        ids.setdefault(each, f"{name}-{len(ids)}")
    used = {each for _, each in _REFERENCE.findall(inner)}
    seen: set[str] = set()

    def renamed(match: re.Match[str]) -> str:
        # What nothing refers to needs no id, and a glyph that is drawn twice keeps the first.
        each = match[1]
        if each not in used or each in seen:
            return ""
        seen.add(each)
        return f'id="{ids[each]}"'

    inner = _ID.sub(renamed, inner)
    inner = _REFERENCE.sub(lambda match: match[1] + ids.get(match[2], match[2]), inner)
    width, height = float(found[1]), float(found[2])
    return (
        f'<svg role="img" aria-labelledby="{name}-says" viewBox="0 0 {width:g} {height:g}" '
        f'style="min-width: {_SMALLEST * width:.0f}px" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{inner}</svg>'
    )
