"""Experiments with requests: cases that are played once, and statements about what came out.

A case is a scenario with overrides, in the simulator or on the real network of this machine. Its
result is stored under a hash of all that decides it. Statements compare numbers of cases with what
is expected, within a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from testbed.errors import PermanentError, TestbedError
from testbed.experiment.reproduce.claims import Verdict
from testbed.experiment.reproduce.points import SIMULATOR, none_or, write_text
from testbed.experiment.reproduce.runner import ComputationStatus, Report
from testbed.model.run_state import RunState
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.load import draw, dumps, load
from testbed.scenario.plan import ServingPlan
from testbed.sim.serving import ServingSimulation
from testbed.storage.tasklog import RequestRow, open_task_log
from testbed.version import __version__

FORMAT: Final = 1
"""Version of the files of results; others are not read."""

NAME: Final = "reproduce-requests"
"""Name of the testbeds."""

By: TypeAlias = str
"""Who answered: ``node J``, or the status of a refusal."""


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario with overrides, and what plays it."""

    name: str
    scenario: str
    overrides: tuple[str, ...] = ()
    driver: str = SIMULATOR

    def plan(self) -> ServingPlan:
        """Return what is played."""
        drawn = draw(load(self.scenario, self.overrides))
        assert isinstance(drawn, ServingPlan)
        return drawn

    @property
    def key(self) -> str:
        """Name of its result among stored ones."""
        plan = self.plan()
        settings = {
            "toolkit": __version__,
            "driver": self.driver,
            "scenario": plan.scenario_hash,
            "scheduler": asdict(plan.scheduler),
            "time_scale": plan.time_scale if self.driver != SIMULATOR else None,
        }
        text = json.dumps(settings, sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of the requests of a case.

    ``answered`` has the requests of the users of each node by second and by who answered.
    The rest is None in the simulator: the run's state with reasons, requests whose client saw
    another status than the node, and latencies of served requests at the client in milliseconds.
    """

    answered: Mapping[int, Mapping[By, tuple[int, ...]]]
    state: str | None = None
    reasons: tuple[str, ...] = ()
    disagreeing: int | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None

    def per_second(self, source: int, by: By, first: int, until: int) -> float:
        """Return the requests of a node's users answered by ``by``, per second of a part."""
        return sum(self._series(source, by)[first:until]) / (until - first)

    def total(self, by: By, first: int = 0, until: int | None = None) -> int:
        """Return how many requests of all users ``by`` answered."""
        return sum(sum(self._series(source, by)[first:until]) for source in self.answered)

    @property
    def seconds(self) -> int:
        """How long users sent requests."""
        return max((len(s) for each in self.answered.values() for s in each.values()), default=0)

    def _series(self, source: int, by: By) -> tuple[int, ...]:
        return tuple(self.answered.get(source, {}).get(by, ()))


@dataclass(frozen=True, slots=True)
class Check:
    """A number of a case, and what it should be."""

    what: str
    measured: float
    expected: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether it is as expected."""
        return abs(self.measured - self.expected) <= self.tolerance

    def __str__(self) -> str:
        wanted = f"{self.expected:g}"
        if self.tolerance:
            wanted += f" ± {self.tolerance:g}"
        return f"{self.what}: {self.measured:.4g} (expected {wanted})"


Found: TypeAlias = "Callable[[Mapping[str, CaseResult]], Iterable[Check]]"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement about cases, with the numbers that decide it."""

    text: str
    cases: tuple[str, ...]
    checks: Found
    source: Literal["paper", "ours"] = "ours"

    def judge(self, results: Mapping[str, CaseResult]) -> dict[str, Any]:
        """Hold it against what came out; return the finding as plain values for JSON."""
        checks = list(self.checks(results)) if set(self.cases) <= results.keys() else []
        wrong = [check for check in checks if not check.holds]
        verdict: Verdict = "differs" if wrong else "agrees" if checks else "not run"
        shown = wrong or checks
        found = "; ".join(map(str, shown)) or "The cases that would decide it have not been played"
        return {
            "claim": self.text,
            "source": self.source,
            "verdict": verdict,
            "found": f"{found}.",
            "comparisons": [
                {**asdict(check), "verdict": "agrees" if check.holds else "differs"}
                for check in checks
            ],
        }


# --- playing --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CaseStore:
    """A folder with one JSON file per case that has been played."""

    folder: Path

    def get(self, case: Case) -> CaseResult | None:
        """Return the stored result of a case; None if there is none, or the file is damaged."""
        try:
            stored = json.loads(self._path(case).read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                return None
            answered = {
                int(source): {by: tuple(series) for by, series in each.items()}
                for source, each in stored.pop("answered").items()
            }
            reasons = tuple(stored.pop("reasons"))
            return CaseResult(answered, reasons=reasons, **stored)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, case: Case, result: CaseResult) -> None:
        """Store a result; a reader never sees half of it.

        Raises: PermanentError: the folder cannot be written.
        """
        document = {"format": FORMAT, **asdict(result)}
        write_text(self._path(case), json.dumps(document) + "\n")

    def _path(self, case: Case) -> Path:
        return self.folder / f"{case.key}.json"


def play_all(cases: Sequence[Case], store: CaseStore, report: Report) -> None:
    """Play those of ``cases`` that have no result yet, one after another.

    Raises: TestbedError: as ``play``; those before it are stored.
    """
    missing = [case for case in cases if store.get(case) is None]
    stored, total = len(cases) - len(missing), len(missing)
    report(ComputationStatus(0, total, stored, 0.0, {}))
    for done, case in enumerate(missing):

        def tell(stage: str, share: float, done: int = done, title: str = case.name) -> None:
            running = {title: (stage, share)}
            report(ComputationStatus(done, total, stored, done / total, running))

        tell("simulating" if case.driver == SIMULATOR else "bringing the network up", 0.0)
        if case.driver == SIMULATOR:
            store.put(case, simulated(case))
        else:
            store.put(case, on_network(case, store.folder, tell))
        passed = (done + 1) / total
        report(ComputationStatus(done + 1, total, stored, passed, {}, finished=case.name))


def simulated(case: Case) -> CaseResult:
    """Play a case in the simulator."""
    plan = case.plan()
    result = ServingSimulation(plan).episode(0)
    rows = [RequestRow.of(each, "") for each in result.requests]
    return CaseResult(_by_second(rows, plan))


def on_network(case: Case, folder: Path, tell: Callable[[str, float], None]) -> CaseResult:
    """Play a case on the real network, which is brought up for it and taken down again.

    Raises: PermanentError: the run did not end as one that can be used. TestbedError: as
    ``LocalRuntime.up``.
    """
    from testbed.rpc.operator import OperatorClient
    from testbed.runtime.local import LocalRuntime

    place = (folder / "unfinished" / case.key).absolute()
    place.mkdir(parents=True, exist_ok=True)
    scenario = load(case.scenario, case.overrides)
    plan = draw(
        scenario,
        storage_url=str(place / "tasklog.sqlite"),
        artifacts_url=str(place / "artifacts"),
    )
    assert isinstance(plan, ServingPlan)
    runtime = LocalRuntime(place / "home")
    runtime.down(NAME)
    try:
        up = runtime.up(plan, NAME, scenario=dumps(scenario))
        with OperatorClient(up.address, up.token) as client:
            run_id = client.start_run(label=f"reproduce {case.name}")
            _watch(client, run_id, plan, tell)
        with open_task_log(up.store) as log:
            run, rows = log.run(run_id), list(log.requests(run_id))
    finally:
        runtime.down(NAME)
    if run.state not in (RunState.COMPLETED, RunState.DEGRADED, RunState.INVALID):
        raise PermanentError(f"the run of {case.name} is {run.state.value}: see its log in {place}")
    reasons = tuple(map(str, (run.certificate or {}).get("reasons", ())))
    latencies = [
        row.answered / MILLISECOND
        for row in rows
        if row.answered is not None and row.outcome is RequestOutcome.SERVED
    ]
    p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (math.nan, math.nan)
    result = CaseResult(
        _by_second(rows, plan),
        state=run.state.value,
        reasons=reasons,
        disagreeing=sum(row.status != row.client_status for row in rows),
        latency_p50=none_or(float(p50)),
        latency_p99=none_or(float(p99)),
    )
    shutil.rmtree(place, ignore_errors=True)
    return result


def _watch(client: Any, run_id: str, plan: ServingPlan, tell: Callable[[str, float], None]) -> None:
    """Wait for the end of a run; ends it if interrupted."""
    try:
        for progress in client.watch_run(run_id):
            left = progress.seconds_left
            if left is not None:
                share = 1.0 - left / max(left, plan.episode_seconds * plan.episodes)
                tell(f"{progress.generated} requests, {left:.0f} s left", share)
    except BaseException:
        with suppress(TestbedError):
            client.stop_run(run_id)
        raise


def _by_second(
    rows: Iterable[RequestRow], plan: ServingPlan
) -> dict[int, dict[By, tuple[int, ...]]]:
    seconds = -(-plan.horizon.length // SECOND)
    counts: dict[int, dict[By, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0] * seconds))
    for row in rows:
        if row.status is None:
            by = row.outcome.value
        else:
            by = str(row.status) if row.server is None else f"node {row.server}"
        # A request of the last second may come a little late on a network.
        second = min(seconds - 1, row.at // SECOND)
        counts[row.source][by][second] += 1
    return {
        source: {by: tuple(series) for by, series in sorted(each.items())}
        for source, each in sorted(counts.items())
    }
