"""Families of work in the simulator: what plays the episodes of a plan, and logs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from testbed.errors import PermanentError
from testbed.model.failures import Failures
from testbed.model.history import fold_all
from testbed.model.serving.failures import RoutingFailures
from testbed.model.serving.record import RequestOutcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, Plan, ServingPlan
from testbed.sim.choice import chosen
from testbed.sim.serving import ServingResult, ServingSimulation
from testbed.sim.simulator import EpisodeResult, SchedulerChoice, Simulation
from testbed.storage.tasklog import (
    EpisodeColumns,
    EpisodeLog,
    RequestRow,
    TaskLog,
    fault_documents,
)

WORTHWHILE: Final = 30_000
"""Expected tasks from which on the compiled engine, which takes a second to load, is faster."""

_TOGETHER: Final = 5_000
"""Tasks that are stored at once, about: a commit takes as long as storing a hundred."""


class Simulated(Protocol):
    """A plan under one scheduler, episode by episode."""

    @property
    def scheduler_name(self) -> str:
        """Name of the scheduler in the task log."""
        ...

    def episode(self, episode: int) -> Any:
        """Run one episode; return an ``EpisodeResult`` or ``ServingResult``."""
        ...


@runtime_checkable
class WritesRows(Simulated, Protocol):
    """A simulation that gives rows of the task log at once; see ``CompiledSimulation``."""

    @property
    def writes_rows(self) -> bool:
        """Whether it can do so for its plan."""
        ...

    def rows(self, episode: int, *, complete: bool = True) -> tuple[EpisodeResult, EpisodeColumns]:
        """Run one episode; its outcomes, and the rows of the task log about it."""
        ...


class Logging(Protocol):
    """Plays episodes of a plan into a run; gives the result of each when it is stored."""

    def __call__(
        self,
        simulation: Any,
        plan: Any,
        numbers: Iterable[int],
        task_log: TaskLog,
        run_id: str,
        tasks_only: bool,
    ) -> Iterator[Any]: ...


class Failed(Protocol):
    """Counts what the user's own code failed at, and tells it in sentences."""

    @property
    def lines(self) -> tuple[str, ...]: ...

    def add(self, failure: Any, /) -> None: ...


class Simulator(NamedTuple):
    """The simulator of a family.

    ``make`` is called with a plan, a scheduler (None: the plan's), its options, and whether to
    ``keep`` records. ``log`` plays episodes into a run, ``has_tasks`` says whether with only how
    tasks ended, if asked; ``failures`` counts what is in ``failed`` of results; ``notes`` returns
    what the certificate of a run with these episodes says besides.
    """

    make: Callable[..., Simulated]
    log: Logging
    has_tasks: bool
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
    name, given = chosen(plan, scheduler, options)
    per_slot = sum(plan.topology.arrival_probability)
    if keep and per_slot * plan.workload.slots * plan.episodes >= WORTHWHILE and not given:
        # Loading the compiler takes longer than most simulations.
        from testbed.sim.compiled import NAMES, CompiledSimulation
        from testbed.sim.engine.arrays import problems_of

        if isinstance(name, str) and name in NAMES and not problems_of(plan):
            return CompiledSimulation(plan, name)
    return Simulation(plan, scheduler, options, keep=keep)


def _log_tasks(
    simulation: Simulated,
    plan: Plan,
    numbers: Iterable[int],
    task_log: TaskLog,
    run_id: str,
    tasks_only: bool,
) -> Iterator[EpisodeResult]:
    if (
        isinstance(simulation, WritesRows)
        and simulation.writes_rows
        and isinstance(task_log, EpisodeLog)
    ):
        yield from _log_rows(simulation, numbers, task_log, run_id, tasks_only)
        return
    for number in numbers:
        result = simulation.episode(number)
        rows, illegal = fold_all((), result.records, result.decisions)
        if illegal:
            raise PermanentError(
                f"the simulator made a contradictory history; this is a defect: {illegal[0]}"
            )
        if not tasks_only:
            task_log.append(run_id, result.records, result.decisions)
        task_log.write_tasks(run_id, rows)
        yield result


def _log_rows(
    simulation: WritesRows,
    numbers: Iterable[int],
    task_log: EpisodeLog,
    run_id: str,
    tasks_only: bool,
) -> Iterator[EpisodeResult]:
    """Play and log episodes, as many at once as have ``_TOGETHER`` tasks."""
    waiting: list[tuple[EpisodeResult, EpisodeColumns]] = []
    tasks = 0
    for number in chain(numbers, (None,)):
        if number is not None:
            waiting.append(simulation.rows(number, complete=not tasks_only))
            tasks += len(waiting[-1][0].outcomes)
        if waiting and (number is None or tasks >= _TOGETHER):
            task_log.write_episodes(run_id, [columns for _, columns in waiting])
            yield from (result for result, _ in waiting)
            waiting, tasks = [], 0


def _faults_by_hand(plan: Plan, episodes: range) -> dict[str, Any]:
    return {"faults": fault_documents(plan, episodes)} if plan.by_hand else {}


# --- requests -------------------------------------------------------------------------------------


def _log_requests(
    simulation: Simulated,
    plan: ServingPlan,
    numbers: Iterable[int],
    task_log: TaskLog,
    run_id: str,
    tasks_only: bool,
) -> Iterator[ServingResult]:
    names = [function.name for function in plan.network.functions]
    for number in numbers:
        result = simulation.episode(number)
        rows = _request_rows(plan, result, names)
        task_log.append_serving(run_id, rows, result.windows, result.routings)
        yield result


def _request_rows(
    plan: ServingPlan, result: ServingResult, names: Sequence[str]
) -> list[RequestRow]:
    rows = [RequestRow.of(record, names[record.function]) for record in result.requests]
    if plan.log_requests == "all":
        rows += [
            RequestRow(
                *(request.episode, request.id, request.source, names[request.function], at),
                *(None, RequestOutcome.LOST, None, None, None),
            )
            for at, request in result.lost
        ]
    return rows


SIMULATIONS: Final = ByModel(
    "the simulator",
    {
        TASKS: Simulator(tasks_simulation, _log_tasks, True, Failures, _faults_by_hand),
        SERVING: Simulator(
            ServingSimulation, _log_requests, False, RoutingFailures, lambda plan, episodes: {}
        ),
    },
)
"""By the model of the plan."""
