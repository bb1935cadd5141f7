"""``make bench-compare A=REV B=REV``: is B faster than A, beyond the noise of this machine?

Both revisions are checked out into a temporary folder (``.`` is the working tree) and share this
environment. Two processes, one of each, do the same piece of work in turn, in the order A B B A, so
that what else the machine does hits both. Processor time is compared, pair by pair: the median of
the ratios B / A, with the interval that covers the true median with at least 95 %, from the
binomial distribution of its rank. ``--instructions`` counts instructions with callgrind instead,
where valgrind is installed: for differences that are smaller than the noise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.workloads import WORKLOADS

ROOT: Final = Path(__file__).resolve().parents[1]
WORKER: Final = Path(__file__).with_name("workloads.py")
HERE: Final = "."
"""The working tree, in place of a revision."""
SLOW: Final = {"network": 5}
"""Pairs of workloads that take long."""
PAIRS: Final = 15
COVERED: Final = 0.95
_STARTS: Final = 120.0


class CannotCompare(Exception):
    """A revision has no such workload, or it fails there; the message says what was printed."""


@dataclass(frozen=True)
class Ratio:
    """Comparison of B with A: the median of paired ratios and the interval around it."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out equality."""
        return not self.low <= 1.0 <= self.high


def ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Return the median of ``after[k] / before[k]``, with the interval of its rank.

    With fewer than six pairs no interval covers 95 %; then it goes from the least to the largest.
    """
    found = sorted(b / a for a, b in zip(before, after, strict=True))
    return Ratio(statistics.median(found), *_interval(found), len(found))


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The k-th smallest and k-th largest, with the largest k that still covers the median."""
    count, k = len(ordered), 0
    while 2 * sum(math.comb(count, i) for i in range(k + 1)) / 2**count <= 1 - COVERED:
        k += 1
    k = max(0, k - 1)
    return ordered[k], ordered[count - 1 - k]


class Worker:
    """A process that does pieces of a workload in one tree."""

    def __init__(self, name: str, tree: Path, prefix: Sequence[str] = ()) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(WORKER), name, str(tree)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tree,
            env=environment(tree),
            text=True,
        )
        self._answer()

    def piece(self, count: int = 1) -> dict[str, Any]:
        """Do ``count`` pieces; return seconds of processor time and items."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            raise CannotCompare(f"{self._name}: {said.strip().splitlines()[-1:] or 'it ended'}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process in order and wait for it; one that does not end is killed."""
        if self._process.poll() is None:
            try:
                self._process.communicate(timeout=_STARTS)
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which ``testbed`` is that of ``tree``."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("TESTBED_")}
    return {**own, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Give the tree of a revision, removed at the end; of ``HERE`` the one that is worked on."""
    if revision == HERE:
        yield ROOT
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder.resolve()
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def timed(name: str, trees: tuple[Path, Path], pairs: int) -> tuple[list[float], list[float]]:
    """Return processor time per item of both trees, in microseconds, pair by pair."""
    found: tuple[list[float], list[float]] = ([], [])
    with ExitStack() as stack:
        workers = []
        for tree in trees:
            worker = Worker(name, tree)
            stack.callback(worker.close)
            workers.append(worker)
        for pair in range(pairs):
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                done = workers[which].piece()
                found[which].append(1e6 * done["seconds"] / done["items"])
    return found


def instructions(name: str, tree: Path) -> float:
    """Return instructions per item, by callgrind: those of four pieces less those of none."""
    counts, items = [], 0
    for pieces in (0, 4):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "callgrind"
            grind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}"]
            worker = Worker(name, tree, grind)
            try:
                if pieces:
                    items = worker.piece(pieces)["items"]
            finally:
                worker.close()
            counts.append(_total(out.read_text(encoding="utf-8", errors="replace")))
    return (counts[1] - counts[0]) / items


def _total(profile: str) -> int:
    for line in profile.splitlines():
        if line.startswith(("totals:", "summary:")):
            return int(line.split()[1])
    raise CannotCompare("callgrind has counted nothing")


def compared(name: str, trees: tuple[Path, Path], pairs: int) -> str:
    """Return the row of a workload in the table."""
    before, after = timed(name, trees, min(pairs, SLOW.get(name, pairs)))
    found = ratio(before, after)
    verdict = "no difference is seen"
    if found.told_apart:
        verdict = "B is faster" if found.median < 1 else "B is slower"
    return (
        f"| {_about(name)} | {statistics.median(before):,.1f} us | "
        f"{statistics.median(after):,.1f} us | {found.median:.3f} "
        f"({found.low:.3f} to {found.high:.3f}) | {verdict} |"
    )


def counted(name: str, trees: tuple[Path, Path]) -> str:
    """Return the row of a workload whose instructions are counted."""
    before, after = (instructions(name, tree) for tree in trees)
    return (
        f"| {_about(name)} | {before:,.0f} | {after:,.0f} | {after / before:.4f} | instructions |"
    )


def _about(name: str) -> str:
    return f"{name}: {(WORKLOADS[name].__doc__ or '').strip()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two revisions; exit status 1 if a workload could not be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description="Compare the speed of two revisions."
    )
    parser.add_argument("a", help="a revision of git, or `.` for the working tree")
    parser.add_argument("b", help="the one that it is compared with")
    default = [name for name in WORKLOADS if name not in SLOW]
    parser.add_argument(
        "--work",
        action="append",
        choices=list(WORKLOADS),
        help=f"what to do, repeatable; default: {', '.join(default)}",
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of each (%(default)s)")
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions (needs valgrind)"
    )
    given = parser.parse_args(arguments)
    if given.instructions and not shutil.which("valgrind"):
        parser.error("valgrind is not installed (apt-get install valgrind)")
    columns = "instructions per item" if given.instructions else "processor time per item"
    failed = 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        here = Path(folder)
        a = stack.enter_context(checked_out(given.a, here / "a"))
        b = stack.enter_context(checked_out(given.b, here / "b"))
        print(f"| work | A: {given.a} | B: {given.b} | B / A, {columns} | |")
        print("|---|---|---|---|---|", flush=True)
        for name in given.work or default:
            try:
                row = counted(name, (a, b)) if given.instructions else None
                print(row or compared(name, (a, b), given.pairs), flush=True)
            except CannotCompare as error:
                failed += 1
                print(f"| {_about(name)} | | | | not compared: {error} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # As after Ctrl-C: what was checked out is removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
