"""A whole campaign: trials dealt to lanes, progress, the report, and one line of counts."""

from __future__ import annotations

import json
import queue
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tests.campaign.faults  # noqa: F401 - registers them
from tests.campaign.lane import Lane, Result
from tests.campaign.scene import FAULTS
from tests.campaign.services import Services
from tests.campaign.trial import Trial, draw

REPORT: Final = "report.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign does: ``only`` lists trials to repeat alone; empty: all ``faults``.

    ``long`` takes in faults that take minutes.
    """

    faults: int
    seed: int
    stores: tuple[str, ...] = ("sqlite",)
    hdfs: bool = False
    long: bool = False
    only: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    lanes: int = 2

    @property
    def available(self) -> tuple[str, ...]:
        """The names of the faults it deals, in order."""
        has = {"mysql"} if "mysql" in self.stores else set()
        has |= {"hdfs"} if self.hdfs else set()
        has |= {"long"} if self.long else set()
        names = (name for name, each in FAULTS.items() if each.needs <= has)
        return tuple(name for name in names if not self.kinds or name in self.kinds)

    def trials(self) -> list[Trial]:
        """All trials, in order. What needs a server of its own has it as its task log."""
        numbers = self.only or range(self.faults)
        found = []
        for number in numbers:
            trial = draw(self.seed, number, self.available, self.stores)
            found.append(trial.at_store(FAULTS[trial.fault].needs))
        return found

    def repeat(self, number: int) -> str:
        """The command that repeats a trial alone."""
        options = [f"FAULTS={self.faults}", f"SEED={self.seed}", f"ONLY={number}"]
        if self.stores != ("sqlite",):
            options.append(f"STORES={','.join(self.stores)}")
        options += ["HDFS=1"] if self.hdfs else []
        options += ["LONG=1"] if self.long else []
        options += [f"KINDS={','.join(self.kinds)}"] if self.kinds else []
        return f"make crash-campaign {' '.join(options)}"


@dataclass(slots=True)
class Counts:
    """The last line of a campaign."""

    faults: int = 0
    kinds: set[str] = field(default_factory=set)
    runs: int = 0
    tasks: int = 0
    open: int = 0
    states: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)
    violations: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count a trial."""
        self.faults += 1
        self.kinds.add(result.trial.fault)
        for each in result.accounts.values():
            self.runs += 1
            self.tasks += each.generated
            self.open += each.open
            self.states[each.state] += 1
        if result.violations:
            self.failed.append(result)
        self.violations.update(each.kind for each in result.violations)

    def line(self, seconds: float) -> str:
        """The counts in one line."""
        always = ("unaccounted", "double end", "wrong state", "hang", "left behind", "next up")
        others = sorted(set(self.violations) - set(always))
        said = [f"{self.violations[kind]} {kind}" for kind in (*always, *others)]
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return (
            f"{self.faults} faults of {len(self.kinds)} kinds, {self.runs} runs ({states}), "
            f"{self.tasks} tasks: {', '.join(said)}; {len(self.failed)} faults with violations, "
            f"{self.open} tasks open in runs cut short; {seconds:.0f} s"
        )


def carry_out(plan: Plan, out: Path, say: Callable[[str], None]) -> Counts:
    """Run a campaign, write its report below ``out``, and return its counts.

    ``say`` gets a line of progress for each trial.
    """
    out.mkdir(parents=True, exist_ok=True)
    trials: queue.SimpleQueue[Trial] = queue.SimpleQueue()
    waiting = plan.trials()
    for trial in waiting:
        trials.put(trial)
    counts = Counts()
    total, began = len(waiting), time.monotonic()
    lock = threading.Lock()
    stopping = threading.Event()
    with (out / REPORT).open("w", encoding="utf-8") as report:

        def take(result: Result) -> None:
            with lock:
                counts.add(result)
                line = {**result.document(), "repeat": plan.repeat(result.trial.number)}
                report.write(json.dumps(line) + "\n")
                report.flush()
                left = (time.monotonic() - began) / counts.faults * (total - counts.faults)
                say(_progress(result, counts.faults, total, left))

        root = Path(tempfile.mkdtemp(prefix="tbc-", dir="/tmp"))
        services = Services(root)
        lanes = [Lane(root / str(number), services, out) for number in range(plan.lanes)]
        threads = [
            threading.Thread(target=_work, args=(lane, trials, take, stopping)) for lane in lanes
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
            for lane in lanes:
                lane.close()
            services.close()
            shutil.rmtree(root, ignore_errors=True)
    return counts


def _work(
    lane: Lane,
    trials: queue.SimpleQueue[Trial],
    take: Callable[[Result], None],
    stopping: threading.Event,
) -> None:
    while not stopping.is_set():
        try:
            trial = trials.get_nowait()
        except queue.Empty:
            break
        for result in lane.run(trial):
            take(result)
    for result in lane.finish():
        take(result)


def _progress(result: Result, done: int, total: int, left_s: float) -> str:
    runs = result.accounts.values()
    states = ", ".join(f"{each.state} {each.ended}/{each.generated}" for each in runs)
    line = (
        f"[{done}/{total}] #{result.trial.number} {result.trial.fault}"
        f"{f' ({result.note})' if result.note else ''}: {states or 'no run'}; "
        f"{result.seconds:.1f} s; about {_minutes(left_s)} left"
    )
    return "\n".join([line, *(f"    {each.kind}: {each.what}" for each in result.violations)])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
