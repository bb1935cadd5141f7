"""Tables without a terminal are the same lines as with a layout, made many times faster."""

from __future__ import annotations

import io

import pytest

from testbed.cli.console import WIDE, Rows, mark, plain, terminal


def laid_out(table: Rows) -> list[str]:
    """The lines that rich makes of the table."""
    console = terminal(io.StringIO())
    rendered = table.rendered()
    needed = console.measure(rendered, options=console.options.update(width=WIDE)).minimum
    console.width = max(console.width, needed)
    with console.capture() as capture:
        console.print(rendered)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_lines_are_those_of_the_layout() -> None:
    table = Rows([mark("RUN", "cyan"), ">N", "~" + mark("LABEL", "bold"), ">SHARE"])
    table.add(mark("a[b]", "cyan"), 12, plain("x [red] \\[ :smile: ü 漢字 \x07|"), None)
    table.add("b", None, plain("\\ end\\"), "1.5 %")
    table.add(mark("ccc\\", "bold red"), 3, "", mark("", "red"))
    assert table.lines() == laid_out(table)


def test_an_empty_table_is_its_header() -> None:
    table = Rows(["RUN", ">N"])
    assert table.lines() == laid_out(table) == ["RUN  N"]


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "x" * WIDE])
def test_what_needs_a_layout_gets_one(text: str) -> None:
    table = Rows(["RUN", "~LABEL"])
    table.add("a", text)
    assert table.lines() is None
