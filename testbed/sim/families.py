"""Families of work in the simulator: what plays the episodes of a plan, and logs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from testbed.errors import PermanentError
from testbed.model.failures import Failures
from testbed.model.history import fold_all
from testbed.model.serving.failures import RoutingFailures
from testbed.model.serving.record import RequestOutcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, Plan, ServingPlan
from testbed.sim.serving import ServingResult, ServingSimulation
from testbed.sim.simulator import EpisodeResult, SchedulerChoice, Simulation
from testbed.storage.tasklog import RequestRow, TaskLog, fault_documents

WORTHWHILE: Final = 30_000
"""Expected tasks from which on the compiled engine, which takes a second to load, is faster."""


class Simulated(Protocol):
    """A plan under one scheduler, episode by episode."""

    @property
    def scheduler_name(self) -> str:
        """Name of the scheduler in the task log."""
        ...

    def episode(self, episode: int) -> Any:
        """Run one episode; return an ``EpisodeResult`` or ``ServingResult``."""
        ...


class Failed(Protocol):
    """Counts what the user's own code failed at, and tells it in sentences."""

    @property
    def lines(self) -> tuple[str, ...]: ...

    def add(self, failure: Any, /) -> None: ...


class Simulator(NamedTuple):
    """The simulator of a family.

    ``make`` is called with a plan, a scheduler (None: the plan's), its options, and whether to
    ``keep`` records. ``log`` enters the result of an episode of a plan into a run; ``failures``
    counts what is in ``failed`` of results; ``notes`` returns what the certificate of a run with
    these episodes says besides.
    """

    make: Callable[..., Simulated]
    log: Callable[[TaskLog, str, Any, Any], None]
    failures: Callable[[], Failed]
    notes: Callable[[Any, range], dict[str, Any]]


# --- tasks ----------------------------------------------------------------------------------------


def tasks_simulation(
    plan: Plan,
    scheduler: SchedulerChoice | None = None,
    options: Mapping[str, object] | None = None,
    *,
    keep: bool = True,
) -> Simulated:
    """Return what plays the episodes of ``plan``.

    The compiled engine where it covers plan and scheduler and as many tasks are expected as are
    worth its loading, else the heap simulator: the results are equal.

    Raises:
        UsageError: unknown scheduler or option.
    """
    name, given = scheduler, options
    if scheduler is None:
        name = plan.scheduler.name
        given = plan.scheduler.options if options is None else options
    per_slot = sum(plan.topology.arrival_probability)
    if keep and per_slot * plan.workload.slots * plan.episodes >= WORTHWHILE and not given:
        # Loading the compiler takes longer than most simulations.
        from testbed.sim.compiled import NAMES, CompiledSimulation
        from testbed.sim.engine.arrays import problems_of

        if isinstance(name, str) and name in NAMES and not problems_of(plan):
            return CompiledSimulation(plan, name)
    return Simulation(plan, scheduler, options, keep=keep)


def _log_tasks(task_log: TaskLog, run_id: str, plan: Plan, result: EpisodeResult) -> None:
    rows, illegal = fold_all((), result.records, result.decisions)
    if illegal:
        raise PermanentError(
            f"the simulator made a contradictory history; this is a defect: {illegal[0]}"
        )
    task_log.append(run_id, result.records, result.decisions)
    task_log.write_tasks(run_id, rows)


def _faults_by_hand(plan: Plan, episodes: range) -> dict[str, Any]:
    return {"faults": fault_documents(plan, episodes)} if plan.by_hand else {}


# --- requests -------------------------------------------------------------------------------------


def _log_requests(task_log: TaskLog, run_id: str, plan: ServingPlan, result: ServingResult) -> None:
    names = [function.name for function in plan.network.functions]
    rows = [RequestRow.of(record, names[record.function]) for record in result.requests]
    if plan.log_requests == "all":
        rows += [
            RequestRow(
                *(request.episode, request.id, request.source, names[request.function], at),
                *(None, RequestOutcome.LOST, None, None, None),
            )
            for at, request in result.lost
        ]
    task_log.append_serving(run_id, rows, result.windows, result.routings)


SIMULATIONS: Final = ByModel(
    "the simulator",
    {
        TASKS: Simulator(tasks_simulation, _log_tasks, Failures, _faults_by_hand),
        SERVING: Simulator(
            ServingSimulation, _log_requests, RoutingFailures, lambda plan, episodes: {}
        ),
    },
)
"""By the model of the plan."""
