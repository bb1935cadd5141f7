"""Pages of results: what stands in them, and that they fit a telephone."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from testbed.experiment import figures, page
from testbed.experiment.page import Section
from tests.experiment.pages import checked

HOSTILE = "<script>alert('&')</script>"


def written(tmp_path: Path, *sections: Section) -> Path:
    path = tmp_path / "index.html"
    path.write_text(page.framed(f"Title {HOSTILE}", [page.note(HOSTILE)], sections))
    return path


def test_every_text_is_escaped(tmp_path: Path) -> None:
    frame = pd.DataFrame({HOSTILE: [HOSTILE]})
    parts = [
        *(each(HOSTILE) for each in (page.note, page.paragraph, page.heading, page.command_line)),
        page.frame_table(frame),
        page.folded(HOSTILE, HOSTILE),
        page.listed([HOSTILE]),
    ]
    path = written(tmp_path, Section(HOSTILE, parts))
    assert "<script>" not in path.read_text()
    assert checked(path).tables == [[[HOSTILE], [HOSTILE]]]


def test_no_cell_is_empty_and_numbers_are_aligned(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "name": ["a", ""],
            "share": [0.25, math.nan],
            "count": [3, 12],
            "interval": ["1.0 to 2.5", ""],
            "known": [True, None],
        }
    )
    text = page.frame_table(frame)
    path = written(tmp_path, Section("Table", [text]))
    assert checked(path).tables[0][1:] == [
        ["a", "0.2", "3", "1.0 to 2.5", "True"],
        ["–", "–", "12", "–", "–"],
    ]
    assert [re.search(f"<th([^>]*)>{name}", text)[1] for name in frame] == [  # type: ignore[index]
        *("", ' class="number"', ' class="number"', ' class="number"', ""),
    ]


def test_contents_list_every_section_that_has_something(tmp_path: Path) -> None:
    path = written(
        tmp_path, Section("First one", ["<p>a</p>"]), Section("None", []), Section("x", ["b"], "y")
    )
    text = path.read_text()
    assert re.findall(r'<li><a href="#([^"]+)">([^<]+)', text) == [
        ("first-one", "First one"),
        ("y", "x"),
    ]
    assert 'name="viewport"' in text
    checked(path)


def test_figures_have_the_colours_of_the_page_and_ids_of_their_own(tmp_path: Path) -> None:
    def svg() -> bytes:
        figure, axes = figures.new_figure(height=2)
        axes.plot([0, 1], [0, 1], "o-", color="#0072B2", label="label")
        axes.legend()
        return figures.as_files(figure).svg

    first, second = (page.figure(svg(), "a", "says", ["a.svg"]) for _ in range(2))
    assert first == second, "nothing in it is random"
    assert all(each in first for each in ("currentColor", "#0072b2", "var(--rule)"))
    assert not any(each in first for each in ("#000000", "<style", "<metadata"))
    (tmp_path / "a.svg").write_bytes(svg())
    other = page.figure(svg(), "b", "says")
    checked(written(tmp_path, Section("Both", [first, other])))


def test_what_is_no_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="no SVG"):
        page.figure("<p>text</p>", "a", "says")
