"""Values of rows within a statement."""

from __future__ import annotations

import pytest

from testbed.storage.tasklog.statements import Row, _literals


def test_numbers_and_plain_text_are_written_as_sql() -> None:
    rows: list[Row] = [(1, 'a "b"', None), (-2, "ü, [3]", 4)]
    assert _literals(rows) == ["(1, 'a \"b\"', NULL)", "(-2, 'ü, [3]', 4)"]


@pytest.mark.parametrize(
    "row",
    [
        (1, "it's"),
        (1, "'a\" b"),
        (1, "a\\b"),
        (1, "a\0"),
        (1, "a, None", None),
        (1, 'a, "b"'),
        (None, 1),
        (1, 2.5),
        (1, True),
        (1,),
    ],
)
def test_whatever_else_is_left_to_the_driver(row: Row) -> None:
    assert _literals([(1, "plain")[: len(row)], row]) == []
