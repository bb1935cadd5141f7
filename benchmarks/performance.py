"""``python -m benchmarks.performance``: all tables of docs/performance.md, in ten minutes.

Prints them as Markdown; with ``--write`` it puts them between the markers of the page and draws the
figure of the knees beside it. Let nothing else run meanwhile. What does not change with the machine
(figures of earlier revisions, their sources) stands in ``EARLIER`` here and in the page.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import bench_limits
from benchmarks.workloads import WORKLOADS, Work
from testbed.api.calibrating import LocalRunner
from testbed.experiment.calibration.drawing import draw
from testbed.experiment.calibration.questions import QUESTIONS
from testbed.experiment.calibration.search import QUICK, Told, calibrate
from testbed.experiment.calibration.values import Calibration, Knee, MachineFacts, Trial
from testbed.version import __version__

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "performance.md"
FIGURE: Final = ROOT / "docs" / "pictures" / "knees.png"
MARKERS: Final = ("<!-- measured: begin -->", "<!-- measured: end -->")
_EPISODES: Final = 3
_DISTURBED: Final = 0.1
"""Share of the cores that other programs may use before the page says so."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A network whose cost of a task is measured; ``before`` has the figures of an earlier
    revision: milliseconds of controller and nodes per task, megabytes (PSS) per node."""

    title: str
    question: str
    nodes: int
    before: tuple[float | None, float | None, float | None] = (None, None, None)


SETTINGS: Final = (
    Setting("10 nodes, metadata, a process each", "nodes-metadata", 10, (3.2, 8.7, 24.0)),
    Setting("20 nodes, metadata, a process each", "nodes-metadata", 20, (3.2, 11.0, 25.0)),
    Setting("10 nodes, real bytes, a process each", "nodes-bytes", 10, (3.5, 15.4, 35.0)),
    Setting("100 nodes, metadata, shared processes", "nodes-metadata-shared", 100),
    Setting("40 nodes, real bytes, shared processes", "nodes-bytes-shared", 40),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance")
    parser.add_argument("--write", action="store_true", help=f"put them into {PAGE.name}")
    parser.add_argument("--quick", action="store_true", help="one short run of each, no knees")
    given = parser.parse_args(arguments)
    machine = MachineFacts.here()
    limits = {row["benchmark"]: row["value"] for row in bench_limits.rows(1 if given.quick else 5)}
    with tempfile.TemporaryDirectory() as folder:
        runner = LocalRunner(Path(folder), machine)
        episodes = 1 if given.quick else _EPISODES
        costs = [
            (each, _told(each.title, lambda each=each: _run(runner, each, episodes)))  # type: ignore[misc]
            for each in (SETTINGS[:1] if given.quick else SETTINGS)
        ]
        asked = [] if given.quick else list(QUESTIONS.values())
        knees = calibrate(asked, QUICK, runner, _tell)
    text = "\n\n".join(
        (
            _where(machine, [trial for _, trial in costs]),
            "### Cost of a task\n\n" + cost_table(costs),
            "### Knees\n\n" + knee_table(knees),
            "### Limits of the machine and the distance to them\n\n"
            + limit_table(limits, costs, knees, own_rates(given.quick)),
        )
    )
    print(text)
    if given.write:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write(text)
        if knees:
            draw(Calibration(machine, when, quick=True, knees=knees)).savefig(FIGURE)
    return 0


def _told(what: str, run: Callable[[], Trial]) -> Trial:
    sys.stderr.write(f"{what} ...\n")
    return run()


def _run(runner: LocalRunner, setting: Setting, episodes: int) -> Trial:
    return runner(QUESTIONS[setting.question], setting.nodes, episodes)


def _tell(told: Told) -> None:
    if told.trial is None:
        sys.stderr.write(f"{told.question.title}: {told.question.at(told.level)} ...\n")


def _where(machine: MachineFacts, trials: Sequence[Trial]) -> str:
    others = sum(each.others for each in trials) / max(1, len(trials))
    disturbed = ""
    if others > _DISTURBED * machine.cores:
        disturbed = (
            f" **Other programs kept {others:.1f} cores busy meanwhile: knees and errors are those "
            "of a busy machine.**"
        )
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d}: {machine.cores} cores, "
        f"{machine.memory / 1e9:.0f} GB of memory, {platform.system()} {platform.machine()}, "
        f"Python {machine.python}, release {__version__}, load {os.getloadavg()[0]:.1f} at the end."
        + disturbed
    )


def cost_table(costs: Sequence[tuple[Setting, Trial]]) -> str:
    """Return the processor time per task and the memory of each setting, before and now."""
    lines = [
        "| network | controller, ms/task | nodes, ms/task | of it in the kernel | PSS per node | "
        "worst error, in limits | valid |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting, trial in costs:
        controller, nodes, memory = setting.before
        if controller is not None:
            lines.append(
                f"| {setting.title}, before | {_figure(controller)} | {_figure(nodes)} | 32 % | "
                f"{_figure(memory)} MB | | |"
            )
        lines.append(
            f"| {setting.title}, now | {_figure(trial.controller_ms)} | {_figure(trial.nodes_ms)} "
            f"| {100 * trial.kernel:.0f} % | {_figure(trial.memory / setting.nodes / 1e6)} MB | "
            f"{_figure(trial.worst)} | {'yes' if trial.valid else 'no'} |"
        )
    return "\n".join(lines)


def knee_table(knees: Mapping[str, Knee]) -> str:
    """Return what the machine carries, and what limits it."""
    lines = ["| carries | up to | tasks/s | MB/s | limited by |", "|---|---|---|---|---|"]
    for name, knee in knees.items():
        question, best = QUESTIONS[name], knee.best
        if best is None or knee.level is None:
            lines.append(f"| {question.title} | none | | | {knee.limit} |")
            continue
        moved = f"{best.mb_per_s:,.0f}" if best.mb_per_s else ""
        lines.append(
            f"| {question.title} | {question.at(knee.level)} | {best.tasks_per_s:,.0f} | {moved} | "
            f"{knee.limit} |"
        )
    return "\n".join(lines)


def own_rates(quick: bool = False) -> dict[str, float]:
    """Return processor time per task of simulators and log, in microseconds.

    Beside it ``rows`` that the log stores for a task, and ``calls`` of Python functions that the
    reference simulator makes for one.
    """
    found = {}
    for name in ("simulator", "engine", "log"):
        sys.stderr.write(f"{name} ...\n")
        work = WORKLOADS[name]()
        work()
        best = float("inf")
        for _ in range(1 if quick else 5):
            began = time.process_time()
            items = work()
            best = min(best, (time.process_time() - began) / items)
        found[name] = 1e6 * best
    found["engine"] /= _tasks_per_episode()
    found["calls"] = _calls(WORKLOADS["simulator"]())
    found["rows"] = _rows()
    return found


def _calls(work: Work) -> float:
    """Return the number of calls of Python functions for each item of ``work``."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        items = work()
    finally:
        sys.setprofile(None)
    return calls / items


def _rows() -> float:
    """Return how many rows of all tables the log has for a task."""
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.record import record_run
    from testbed.storage.tasklog import open_task_log

    with tempfile.TemporaryDirectory() as folder, open_task_log(f"{folder}/log") as log:
        run = record_run(plan(load("paper-simulation")), log, episodes=1)
        return sum(log.counts(run).values()) / sum(log.outcomes(run).values())


def _tasks_per_episode() -> float:
    from testbed.scenario.load import load
    from testbed.scenario.plan import Plan
    from testbed.scenario.resolve import plan

    drawn = plan(load("paper-simulation"))
    assert isinstance(drawn, Plan)
    return sum(drawn.topology.arrival_probability) * drawn.workload.slots


def limit_table(
    limits: Mapping[str, float],
    costs: Sequence[tuple[Setting, Trial]],
    knees: Mapping[str, Knee],
    rates: Mapping[str, float],
) -> str:
    """Return each of our figures beside the limit that bounds it, and their ratio."""
    rows: list[tuple[str, float, str, str, float]] = []
    link = knees.get("link")
    if link is not None and link.level is not None:
        moved = "bytes between two nodes, paced"
        rows += [(moved, link.level, "MB/s", name, limits[name]) for name in _NAMES["bytes"]]
    trip = limits[_NAMES["trip"][0]] / 1000
    for setting, trial in costs:
        rows.append(
            (f"{setting.title}: a task", trial.controller_ms + trial.nodes_ms, "ms",
             _NAMES["trip"][0], trip)
        )  # fmt: skip
    count = rates["rows"]
    rows.append(
        (
            "a task into the SQLite log, simulated and stored",
            rates["log"],
            "us",
            f"SQLite: executemany of its {count:.1f} rows",
            count * limits[_NAMES["row"][0]],
        )
    )
    calls = rates["calls"]
    call = calls * limits[_NAMES["call"][0]] / 1000
    rows += [
        (
            f"a task in the {kind}",
            rates[name],
            "us",
            f"interpreter: the {calls:.0f} calls of the reference simulator, empty",
            call,
        )
        for name, kind in (("simulator", "reference simulator"), ("engine", "compiled engine"))
    ]
    lines = ["| figure | measured | limit | measured | ratio |", "|---|---|---|---|---|"]
    for what, value, unit, name, limit in rows:
        lines.append(
            f"| {what} | {_figure(value)} {unit} | {name} | {_figure(limit)} {unit} | "
            f"{_figure(value / limit)} |"
        )
    lines += ["", "All limits:", "", "| limit | measured |", "|---|---|"]
    units = bench_limits.UNITS
    lines += [f"| {name} | {_figure(value)} {units[name]} |" for name, value in limits.items()]
    return "\n".join(lines)


_NAMES: Final = {
    "bytes": (
        "Unix socket: bytes in chunks of 250 KB, one way",
        "memory: copy of 64 MB",
    ),
    "trip": ("Unix socket: round trip of 64 bytes, across two cores",),
    "row": ("SQLite: executemany of rows of 200 bytes, one transaction",),
    "call": ("interpreter: call of a function with two arguments",),
}


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(text: str, markers: tuple[str, str] = MARKERS) -> None:
    """Put ``text`` between these markers of the page."""
    begin, end = markers
    page = PAGE.read_text(encoding="utf-8")
    pattern = re.escape(begin) + r".*?" + re.escape(end)
    if not re.search(pattern, page, re.DOTALL):
        raise SystemExit(f"{PAGE} has no markers {begin} and {end}")
    parts = re.split(pattern, page, maxsplit=1, flags=re.DOTALL)
    PAGE.write_text(f"{parts[0]}{begin}\n{text}\n{end}{parts[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
