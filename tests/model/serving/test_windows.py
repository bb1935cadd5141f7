"""What a node counts, window by window."""

from __future__ import annotations

from testbed.model.serving.record import WindowRecord
from testbed.model.serving.windows import Windows


def test_a_window_has_what_was_counted_and_said_in_it_alone() -> None:
    windows = Windows(2, 7, 1000)
    counts = {"local": 3}
    windows.said(2, 10)
    windows.heard(4)
    assert windows.until(999, [counts]) == []
    assert windows.until(1000, [counts]) == [WindowRecord(2, 7, 0, ({"local": 3},), 2, 20, 1, 4)]
    counts["local"] += 1
    counts["to:1"] = 2
    assert windows.until(3500, [counts]) == [
        WindowRecord(2, 7, 1, ({"local": 1, "to:1": 2},), 0, 0, 0, 0),
        WindowRecord(2, 7, 2, ({},), 0, 0, 0, 0),
    ]
    counts["to:1"] += 1
    assert windows.present([counts]) == WindowRecord(2, 7, 3, ({"to:1": 1},), 0, 0, 0, 0)


def test_the_first_window_is_the_one_in_which_a_node_begins() -> None:
    windows = Windows(0, 0, 1000, 2500)
    assert windows.end == 3000
    assert [each.window for each in windows.until(4000, [{}])] == [2, 3]
