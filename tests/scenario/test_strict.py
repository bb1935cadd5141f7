"""YAML that reads otherwise than it looks, or that stands for more than it holds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.scenario import document
from testbed.scenario.document import DocumentError
from testbed.scenario.load import dumps, loads, shipped_text

HANG_S = 30.0
"""Each of these takes milliseconds; a quadratic way of reading one takes minutes."""

MISREAD = [
    "010",
    "-010",
    "+07",
    "00",
    "09",
    "0o10",
    "0O17",
    "0x10",
    "+0x1F",
    "0b101",
    "1_000",
    "1__0",
    "1_0.5",
    "1_000.5",
    "1:30",
    "190:20:30",
    "1:30.5",
    "-1:30",
]
WORDS = ["yes", "no", "on", "off", "Yes", "NO", "Off"]
NOT_FINITE = [".inf", "-.inf", ".nan", ".NaN", "+.Inf", "inf", "NaN", "1e400", "-1e400"]
LONG = ["9" * 41, "9" * 4301, "1" * 100_000, "0." + "1" * 5000, "1e" + "9" * 50, "0x" + "f" * 5000]


@pytest.mark.parametrize("text", [*MISREAD, *WORDS, *NOT_FINITE, *LONG], ids=lambda t: t[:12])
def test_a_value_that_is_not_what_it_looks_like_is_refused_with_its_line(text: str) -> None:
    found = refused(f"a: 1\nb: {text}\n")
    assert found.startswith("here:2"), found
    assert refused(f"a:\n- 1\n- [x, {text}]\n").startswith("here:3")
    with pytest.raises(DocumentError, match=r"--set nodes\.count:1"):
        document.value(text, "--set nodes.count")


@pytest.mark.parametrize("text", [*MISREAD, *WORDS])
def test_a_key_that_is_not_what_it_looks_like_is_refused_too(text: str) -> None:
    assert refused(f"a: 1\n? {text}\n: 3\n").startswith("here:2:3")


@pytest.mark.parametrize("text", [*MISREAD, *WORDS, *NOT_FINITE, "2024-01-01"])
def test_in_quotes_it_is_the_text_that_it_looks_like(text: str) -> None:
    assert document.value(f"'{text}'", "here") == text


@pytest.mark.parametrize("text", ["count: !!int '010'", "x: !!float '1:30'", "x: !!bool maybe"])
def test_a_tag_does_not_let_it_through(text: str) -> None:
    assert refused(text).startswith("here:1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("10", 10),
        ("+3", 3),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("0.25", 0.25),
        ("true", True),
        ("False", False),
        ("~", None),
        ("10MB/s", "10MB/s"),
        ("2024-01-01", "2024-01-01"),
        ("v1_000", "v1_000"),
        ("10.0.0.1", "10.0.0.1"),
        ("y", "y"),
    ],
)
def test_what_every_reader_of_yaml_reads_the_same_stays(text: str, value: Any) -> None:
    assert document.value(text, "here") == value


def doubling(lines: int, form: str) -> str:
    first = {"list": "a0: &a0 [x, x]", "merge": "a0: &a0 {x: 1, y: 2}"}[form]
    one = {"list": "a{0}: &a{0} [*a{1}, *a{1}]", "merge": "a{0}: &a{0} {{<<: [*a{1}, *a{1}]}}"}
    return "\n".join([first, *(one[form].format(i, i - 1) for i in range(1, lines))])


BOMBS = {
    "aliases": (doubling(64, "list"), "aliases that repeat"),
    "merge keys": (doubling(64, "merge"), "merge keys that bring in too much"),
    "many merges": ("a0: &a {x: 1}\nb: {<<: [" + "*a, " * 20_000 + "*a]}", "merge keys"),
    "a list in itself": ("a: &a [*a]", "aliases that repeat or contain each other"),
    "a mapping in itself": ("a: &a {b: {<<: *a}}", "contain each other"),
    "a mapping merged with itself": ("a: &a {<<: *a}", "contain each other"),
    "deep lists": ("[" * 100_000, "nested too deeply"),
    "deep mappings": ("{a: " * 50_000, "nested too deeply"),
    "deep dashes": ("- " * 50_000 + "x", "nested too deeply"),
    "a number in a quantity": ("a: 1\n" + "b: " + "7" * 1_000_000 + "KB", "thousands of digits"),
    "the same key": ("a: 1\nb: 2\na: 3", "'a' stands here a second time, first in line 1"),
    "the same key in quotes": ("a: 1\n'a': 3", "stands here a second time"),
    "a tab": ("a:\n\tb: 1", "a tab"),
    "a tab after blanks": ("a:\n  b: 1\n \tc: 1", "a tab"),
    "a tag of Python": ("a: !!python/name:os.system", "the tag"),
    "a date by its tag": ("a: !!timestamp 2024-01-01", "the tag"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_document_that_is_made_to_harm_is_refused_with_its_line_at_once(name: str) -> None:
    text, reason = BOMBS[name]
    begun = time.monotonic()
    found = refused(text)
    assert time.monotonic() - begun < HANG_S
    assert found.startswith("here:")
    assert reason in found


def test_merge_keys_that_stay_small_are_read() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\nlater: {z: {k: &c {<<: *b, x: 4}}}\nw: *c"
    read = document.parse(text.encode(), "here")
    assert read["one"] == {"x": 1, "y": 3}
    assert read["w"] == read["later"]["z"]["k"] == {"x": 4, "y": 2}


def test_a_scenario_says_file_line_and_what_to_write() -> None:
    with pytest.raises(UsageError) as caught:
        loads("apiVersion: edge-testbed/v1\nnodes:\n  count: 010\n")
    (problem,) = caught.value.problems
    assert problem.path == "scenario:3:10"
    assert "010 is read as different numbers" in problem.seen
    assert "without leading zeros" in problem.allowed


@given(text=st.text("01_:.-+eExob[]{}&*<,! \t\n'\"#?|>~ayn", max_size=60) | st.text(max_size=60))
def test_any_text_is_data_or_is_refused(text: str) -> None:
    try:
        document.value(text, "here")
    except DocumentError as error:
        found = [problem.path for problem in error.problems]
    else:
        return
    assert found
    assert all(path.startswith("here") for path in found)


TEXTS = [*MISREAD, *WORDS, *NOT_FINITE, "1e3", "09", "2024-01-01", "~", "null", "=", "a: b", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_written_reads_as_the_same_text(text: str) -> None:
    scenario = loads(shipped_text("quickstart"), [f"scheduler.options.x='{text}'"])
    assert scenario.scheduler.options == {"x": text}
    assert loads(dumps(scenario)) == scenario


def refused(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        document.parse(text.encode(), "here")
    return str(caught.value)
