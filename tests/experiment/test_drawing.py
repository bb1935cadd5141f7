"""Figures drawn by two processes: the same files, in the same order, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable

import pandas as pd
import pytest

from testbed.experiment import drawing
from testbed.experiment.drawing import all_drawn
from testbed.experiment.figures import new_figure
from testbed.experiment.reporting import Plot, Plots, files_of

ME = os.getpid()


def plot(number: int) -> Plot:
    """Return a figure of a line; it may be laid out by this process only."""
    assert os.getpid() == ME
    figure, axes = new_figure()
    axes.plot([0, 1], [0, number])
    return Plot(figure, pd.DataFrame({"x": [0, 1], "y": [0, number]}), f"figure {number}")


def plots(count: int) -> Plots:
    def later(number: int) -> Callable[[], Plot | None]:
        return lambda: None if number == 2 else plot(number)

    return {f"plot-{number}": later(number) for number in range(count)}


def test_two_processes_draw_what_one_does() -> None:
    heard: list[int] = []
    alone = all_drawn(plots(6), lambda done: None, helped=False)
    helped = all_drawn(plots(6), heard.append, helped=True)

    assert list(helped) == list(alone) == [f"plot-{n}" for n in (0, 1, 3, 4, 5)]
    assert all(helped[name].formats.png == alone[name].formats.png for name in alone)
    assert {name: each.csv for name, each in helped.items()} == {
        name: each.csv for name, each in alone.items()
    }
    assert heard == [1, 2, 3, 4, 5, 6]


def test_what_a_helper_cannot_draw_is_drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    real = files_of

    def only_here(each: Plot) -> object:
        if os.getpid() != ME:
            raise MemoryError
        return real(each)

    monkeypatch.setattr(drawing, "files_of", only_here)
    assert len(all_drawn(plots(6), lambda done: None, helped=True)) == 5


def test_no_process_is_left_when_it_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    fork = os.fork

    def noted() -> int:
        made.append(fork())
        return made[-1]

    monkeypatch.setattr(os, "fork", noted)

    def interrupt() -> Plot | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        all_drawn({**plots(5), "last": interrupt}, lambda done: None, helped=True)
    (child,) = made
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
