"""All figures of a report as files, drawn by two processes where there are processors for them."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from testbed.experiment.reporting import Drawn, Plot, PlotFiles, Plots, files_of

SHARE: Final = 0.6
"""Part of the figures that the helper draws: this process lays all of them out meanwhile."""
FEWEST: Final = 4
"""Figures from which on a second process is worth its start."""


def all_drawn(plots: Plots, told: Callable[[int], None], *, helped: bool | None = None) -> Drawn:
    """Return the figures of a report as files, in their order, without those that show nothing.

    ``told`` hears how many are done. ``helped`` says whether a helper draws some of them; None:
    if it can. The files are the same.
    """
    if helped is None:
        helped = len(plots) >= FEWEST and _may_fork()
    names = list(plots)
    first = names[: int(SHARE * len(names))] if helped else []
    # Only this process reads the log: a database must not be used behind a fork.
    theirs = {name: plot for name in first if (plot := plots[name]()) is not None}
    drawn: dict[str, PlotFiles] = {}
    with _helper(theirs) as helper:
        for number, name in enumerate(names[len(first) :], start=1):
            if (plot := plots[name]()) is not None:
                drawn[name] = files_of(plot)
            told(number)
        drawn |= helper()
    for number, name in enumerate(first, start=len(names) - len(first) + 1):
        if name in theirs and name not in drawn:
            # The helper could not, as where it was killed.
            drawn[name] = files_of(theirs[name])
        told(number)
    return {name: drawn[name] for name in names if name in drawn}


def _may_fork() -> bool:
    """Return whether a fork is safe, which it is not beside other threads, and of use."""
    return (
        sys.platform == "linux"
        and threading.active_count() == 1
        and len(os.sched_getaffinity(0)) > 1
    )


@contextmanager
def _helper(plots: Mapping[str, Plot]) -> Iterator[Callable[[], dict[str, PlotFiles]]]:
    """Let a process draw ``plots``; yield a function that waits for them and returns them.

    It returns none if the process did not do it. The process has ended when the block has.
    """
    if not plots:
        yield dict
        return
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _draw_and_exit(plots, reading, writing)
    os.close(writing)
    done = False

    def wait() -> dict[str, PlotFiles]:
        nonlocal done
        with open(reading, "rb", closefd=False) as pipe:
            sent = pipe.read()
        _, status = os.waitpid(child, 0)
        done = True
        found: dict[str, PlotFiles] = {}
        return pickle.loads(sent) if status == 0 else found

    try:
        yield wait
    finally:
        os.close(reading)
        if not done:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _draw_and_exit(plots: Mapping[str, Plot], reading: int, writing: int) -> NoReturn:
    """Write the files of ``plots`` to a pipe and end this process, and nothing else of it."""
    code = 1
    try:
        # Ctrl-C is for the one who waits for it, who ends this one too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reading)
        with open(writing, "wb") as pipe:
            pickle.dump({name: files_of(plot) for name, plot in plots.items()}, pipe)
        code = 0
    finally:
        os._exit(code)
