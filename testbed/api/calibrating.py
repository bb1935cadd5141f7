"""Calibration of this machine: testbeds of its own, brought up, run and taken down one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from testbed.api import home, notices
from testbed.errors import PermanentError, Problem, TemporaryError, UsageError
from testbed.experiment.calibration.estimate import Forecast, forecast, nodes_carried
from testbed.experiment.calibration.questions import SCENARIO, Question
from testbed.experiment.calibration.requests import (
    SENT_PER_S,
    slow_enough,
    too_many_requests,
)
from testbed.experiment.calibration.search import FULL, QUICK, Told, calibrate
from testbed.experiment.calibration.values import Calibration, MachineFacts, Trial, load, store
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, Plan, PlanHead, ServingPlan
from testbed.scenario.plan import load as load_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.rpc.operator import OperatorClient, Progress
    from testbed.runtime.base import Runtime, Testbed
    from testbed.scenario.schema import Deployment

FOLDER: Final = ".calibrating"
"""Folder in the home for the testbeds of a calibration; removed at its end."""
NAME: Final = "calibration"
MEMORY_SHARE: Final = 0.8
"""Share of the available memory that a network may be expected to need."""
PATIENCE: Final = 3.0
"""A run that takes so many times what it should is ended: the machine does not carry it."""
GRACE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Usage:
    """Processor time so far, in seconds.

    Of the controller, of the nodes, of these in the kernel, of the machine (busy, in all).
    """

    at: float
    controller: float
    nodes: float
    kernel: float
    busy: float
    total: float


class LocalRunner:
    """Makes the runs of a calibration on this machine, in a home of their own below ``folder``.

    ``watch`` is given the progress of each run while it goes on.
    """

    def __init__(
        self,
        folder: Path,
        machine: MachineFacts,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._watch = watch
        self._per_node: dict[bool, int] = {}

    def __call__(self, question: Question, level: int, episodes: int) -> Trial:
        """See ``search.Runner``."""
        nodes = question.nodes(level)
        needed = self._per_node.get(question.shared, 0) * nodes
        available = int(MEMORY_SHARE * psutil.virtual_memory().available)
        if needed > available:
            seen = f"{nodes} nodes need {needed / 1e9:.1f} GB of memory"
            reason = f"{seen}, of which {available / 1e9:.1f} GB may be used"
            return Trial(level, valid=False, reasons=(reason,), ran=False)
        began = time.monotonic()
        try:
            trial = self._run(question, level, episodes)
        except (TemporaryError, PermanentError) as error:
            # Too slow to answer in time, or out of something: it is not carried.
            reason = str(error).partition("\n")[0]
            trial = Trial(level, valid=False, reasons=(reason,))
        if trial.memory:
            self._per_node[question.shared] = trial.memory // nodes
        return replace(trial, seconds=time.monotonic() - began)

    def _run(self, question: Question, level: int, episodes: int) -> Trial:
        from testbed.runtime.registry import LOCAL, Settings, open_runtime
        from testbed.scenario.load import load as load_scenario
        from testbed.scenario.resolve import plan as planned

        scenario = load_scenario(SCENARIO, question.settings(level, self._machine.cores))
        log = str(self._folder / "tasklog.sqlite")
        artifacts = str(self._folder / "artifacts")
        plan = planned(scenario, episodes=episodes, storage_url=log, artifacts_url=artifacts)
        settings = Settings(home=self._folder, deployment=scenario.deployment)
        place = open_runtime(LOCAL, settings)
        try:
            testbed = place.up(plan, NAME)
            return self._watched(place, testbed, plan, level)
        finally:
            place.down(NAME)
            for file in self._folder.glob("tasklog.sqlite*"):
                file.unlink()

    def _watched(self, place: Runtime, testbed: Testbed, plan: Plan, level: int) -> Trial:
        from testbed.api.running import client_of

        with client_of(testbed, timeout=60.0) as client:
            before = self._usage(testbed)
            ended = self._follow(client, plan)
            after = self._usage(testbed)
            memory = sum(map(_memory, self._processes(testbed)))
        seconds = after.at - before.at
        busy = (after.busy - before.busy) / max(1e-9, after.total - before.total)
        own = (after.controller + after.nodes - before.controller - before.nodes) / seconds
        used: dict[str, Any] = {
            "controller": (after.controller - before.controller) / seconds,
            "nodes": (after.nodes - before.nodes) / seconds,
            # The machine counts in ticks, so that the difference may fall below 0.
            "others": max(0.0, busy * (psutil.cpu_count() or 1) - own),
            "busy": busy,
            "memory": memory,
            "task_mb": plan.workload.size_bytes.mean / 1e6,
        }
        if ended is None:
            reason = f"it took more than {PATIENCE:g} times as long as it should"
            return Trial(level, valid=False, reasons=(reason,), **used)
        trial = replace(_certified(testbed.store, ended, plan, level), **used)
        tasks = max(1.0, trial.tasks_per_s * plan.episodes * plan.episode_seconds)
        nodes = after.nodes - before.nodes
        return replace(
            trial,
            controller_ms=1000 * (after.controller - before.controller) / tasks,
            nodes_ms=1000 * nodes / tasks,
            kernel=(after.kernel - before.kernel) / max(1e-9, nodes),
        )

    def _follow(self, client: OperatorClient, plan: Plan) -> str | None:
        """Run the episodes of ``plan`` and return the id of the run; None if it takes too long."""
        deadline_s = plan.workload.deadline.maximum / 1e6 * plan.time_scale
        should = plan.episodes * (plan.episode_seconds + deadline_s + 1.0)
        until = time.monotonic() + PATIENCE * should + GRACE_S
        run_id = client.start_run(episodes=plan.episodes)
        for progress in client.watch_run(run_id):
            self._watch(progress)
            if time.monotonic() > until:
                return None
        return run_id

    def _processes(self, testbed: Testbed) -> list[tuple[str, psutil.Process]]:
        from testbed.runtime.processes import of_testbed

        return list(of_testbed(testbed.directory, {}).values())

    def _usage(self, testbed: Testbed) -> _Usage:
        from testbed.runtime.base import CONTROLLER

        spent = {True: 0.0, False: 0.0}
        kernel = 0.0
        for name, process in self._processes(testbed):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            spent[name == CONTROLLER] += times.user + times.system
            kernel += times.system if name != CONTROLLER else 0.0
        machine = psutil.cpu_times()
        total = sum(machine)
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return _Usage(time.monotonic(), spent[True], spent[False], kernel, total - idle, total)


def _memory(entry: tuple[str, psutil.Process]) -> int:
    """Return the proportional set size of a process in bytes; the resident one without it."""
    try:
        full = entry[1].memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(full, "pss", full.rss))


def _certified(store_url: str, run_id: str, plan: Plan, level: int) -> Trial:
    """Return a trial with what the log has about a run."""
    from testbed.storage.tasklog import open_task_log

    with open_task_log(store_url, create=False) as log:
        run = log.run(run_id)
        tasks = moved = 0
        for row in log.tasks(run_id):
            tasks += 1
            moved += row.size_bytes if row.transmission is not None else 0
    certificate = run.certificate or {}
    seconds = plan.episodes * plan.episode_seconds
    terms = {}
    reasons = list(certificate.get("reasons", ("it has no certificate",)))
    if certificate:
        terms = {
            "transmission": certificate["transmission"]["p95_of_limit"],
            "execution": certificate["execution"]["p95_of_limit"],
            "arrivals": certificate["generator"]["p95"] / max(1, plan.limits.generator_lateness),
        }
    if not run.trustworthy and not reasons:
        reasons.append(f"the run is {run.state.value}")
    return Trial(
        level,
        valid=run.trustworthy,
        reasons=tuple(reasons),
        terms=terms,
        tasks_per_s=tasks / seconds,
        tasks_per_slot=tasks / (plan.episodes * plan.workload.slots),
        mb_per_s=moved / 1e6 / seconds if plan.payload == "bytes" else 0.0,
    )


def calibrated(
    questions: Sequence[Question],
    *,
    quick: bool,
    tell: Callable[[Told], None],
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Calibration:
    """Calibrate this machine, store the result in the home, and return it.

    ``tell`` hears of every trial before and after it, ``watch`` of its run while it goes on.
    Answers to other questions that the home has for this machine are kept, unless another release
    gave them. Interrupted, it leaves the home as it was, and nothing runs.

    Raises:
        UsageError: another calibration of this home is going on.
        PrerequisiteMissing, PermanentError: the home cannot be written.
    """
    from testbed.runtime.directory import writing

    machine = MachineFacts.here()
    with _place() as folder:
        runner = LocalRunner(folder, machine, watch)
        knees = calibrate(questions, QUICK if quick else FULL, runner, tell)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = Calibration(machine, when, quick, knees)
    earlier = load(home.home(), machine)
    if earlier is not None and earlier.machine.version == machine.version:
        found = found.with_knees_of(earlier)
    with writing(home.home()):
        store(home.home(), found)
    return found


@contextmanager
def _place() -> Iterator[Path]:
    """Give a folder for testbeds that nobody else uses, and remove it with all that runs in it."""
    import shutil

    from testbed.runtime.directory import lock, private_folder, writing
    from testbed.runtime.local import LocalRuntime

    base = home.home()
    folder = base / FOLDER
    with lock(base / f"{FOLDER}.lock", "a calibration"):
        try:
            # What one that was killed has left.
            LocalRuntime(folder).down(NAME)
            with writing(folder):
                private_folder(folder)
            yield folder
        finally:
            LocalRuntime(folder).down(NAME)
            shutil.rmtree(folder, ignore_errors=True)


def shared_processes(plan: PlanHead, deployment: Deployment | None) -> bool:
    """Return whether nodes of a testbed on this machine share processes."""
    from testbed.runtime.hosting import Hosting

    return any(len(group) > 1 for group in Hosting.of(deployment).groups(plan, home.home()))


def forecast_here(plan: Plan, *, shared: bool) -> Forecast:
    """Return whether runs of ``plan`` will be faithful on this machine, as far as is known."""
    machine = MachineFacts.here()
    return forecast(plan, load(home.home(), machine), machine, shared=shared)


def suited(plan: PlanHead, *, shared: bool) -> Forecast:
    """Return what is expected of runs of ``plan`` here, with the time scale that suits them.

    Raises: UsageError: it has no tasks, so no time scale is found by itself.
    """
    return _FORECASTS.of(plan)(plan, shared)


def _suits_requests(plan: ServingPlan, _shared: bool) -> Forecast:
    scale = slow_enough(plan)
    allowed = (
        f"a number; --time-scale {scale:g} should do: its users send up to "
        f"{plan.highest_rate * plan.time_scale / scale:,.0f} requests per second of real time "
        f"then, and one machine sends about {SENT_PER_S:,.0f} in time"
    )
    raise UsageError(
        f"the time scale of scenario {plan.name} is not found by itself: it has {plan.work}, and "
        f"what this machine carries is known of {Plan.work} only",
        [Problem("--time-scale", "auto", allowed)],
    )


_FORECASTS: Final[ByModel[Callable[[Any, bool], Forecast]]] = ByModel(
    "a forecast",
    {TASKS: lambda plan, shared: forecast_here(plan, shared=shared), SERVING: _suits_requests},
)


def nodes_carried_here() -> int:
    """Return how many nodes this machine is expected to emulate faithfully in real time."""
    machine = MachineFacts.here()
    return nodes_carried(load(home.home(), machine), machine)


def warn_if_doubtful(plan: PlanHead, *, shared: bool, up_again: bool = False) -> None:
    """Warn if runs of ``plan`` on this machine will probably not be faithful."""
    warning = _DOUBTS.of(plan)(plan, shared, up_again)
    if warning:
        notices.warn(warning)


def _doubt_of_tasks(plan: Plan, shared: bool, up_again: bool) -> str:
    expected = forecast_here(plan, shared=shared)
    return expected.warning(up_again=up_again) if expected.doubtful else ""


def _doubt_of_requests(plan: ServingPlan, _shared: bool, up_again: bool) -> str:
    return too_many_requests(plan, up_again=up_again)


_DOUBTS: Final[ByModel[Callable[[Any, bool, bool], str]]] = ByModel(
    "the calibration", {TASKS: _doubt_of_tasks, SERVING: _doubt_of_requests}
)
"""What makes runs on this machine doubtful, in words, by the model of the plan."""


def told(expected: Forecast) -> str:
    """Return the time scale that a forecast has found, in words."""
    scale = expected.time_scale
    basis = "as calibrated" if expected.capacity.measured else "a guess without `testbed calibrate`"
    speed = f"{scale:g} times slower" if scale > 1 else f"{1 / scale:g} times faster"
    than = "in real time" if scale == 1 else f"{speed} than real time"
    return f"time scale {scale:g}: {than} ({basis})"


def forecast_of(testbed: Testbed) -> Forecast:
    """Return what is expected of runs of tasks of a testbed of this machine.

    Raises: UsageError: nothing is known about it, or its runs have no tasks.
    """
    found = _plan_of(testbed)
    if found is None:
        raise UsageError(
            f"it is not known which time scale suits testbed '{testbed.name}'",
            [Problem("--time-scale", "auto", "a number, as in --time-scale 2")],
        )
    return suited(found[0], shared=found[1])


def warn_before_run(testbed: Testbed, time_scale: float | None = None) -> None:
    """Warn if runs of a testbed of this machine will probably not be faithful.

    ``time_scale`` is that of the runs, None for the testbed's own.
    """
    found = _plan_of(testbed)
    if found is None:
        return
    plan, shared = found
    if time_scale is not None:
        plan = replace(plan, time_scale=time_scale)
    warn_if_doubtful(plan, shared=shared, up_again=True)


def _plan_of(testbed: Testbed) -> tuple[PlanHead, bool] | None:
    """Return the plan of a testbed of this machine, and whether its nodes share processes.

    None if it is of another release: nothing is known about it.
    """
    from testbed.runtime.base import CONTROLLER
    from testbed.runtime.directory import RunDirectory

    place = RunDirectory(testbed.directory.parent, testbed.name)
    try:
        plan = load_plan(place.plan.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    hosts = {pid for name, (pid, _) in place.processes().items() if name != CONTROLLER}
    return plan, len(hosts) < testbed.nodes
