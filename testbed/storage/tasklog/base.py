"""The task log as a seam: what a run leaves, who it was, and how to ask for it again.

The controller and the simulator write; reports, comparisons, exports and data sets read, also while
the run goes on. Implementations pass ``testbed.testing.tasklog.TaskLogContract``.
"""

from __future__ import annotations

import platform
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

from testbed.errors import Problem, UsageError
from testbed.model.events import DecisionRecord, Record
from testbed.model.faults import KINDS
from testbed.model.faults.seam import BY_HAND
from testbed.model.history import TaskRow
from testbed.model.hook import Decided, Hook, Recorded
from testbed.model.run_state import RunState
from testbed.model.serving.record import RequestOutcome, WindowRecord
from testbed.model.serving.route import RoutingRecord
from testbed.model.task import Outcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, Plan, PlanHead, ServingPlan, load
from testbed.storage.tasklog.serving import RequestRow
from testbed.version import __version__

Driver: TypeAlias = Literal["network", "simulator"]
LogTable: TypeAlias = Literal["tasks", "events", "decisions", "requests", "windows", "routings"]

TABLES_OF: Final[ByModel[tuple[LogTable, ...]]] = ByModel(
    "the task log",
    {
        TASKS: ("tasks", "events", "decisions"),
        SERVING: ("requests", "windows", "routings"),
    },
)
"""The tables of runs of each model."""

_Outcome = TypeVar("_Outcome", Outcome, RequestOutcome)

_REPLAY: Final = re.compile(r"(?:^|; )replay of (\S+)$")

TESTBED: Final = "testbed"
"""Under this key of its versions a run has the name of the testbed it was made on."""

LONGEST_TEXT: Final = 255
"""Characters of a label and of a scheduler's name."""

_NO_TEXT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})

LATEST = "latest"
"""Names the run that was begun last wherever a run's id is asked for."""


def utc_now() -> str:
    """Now, in UTC, as ISO 8601 with milliseconds: the only form of wall-clock time in a log."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Return a unique id that sorts by the second and can be typed: ``20260131-142501-9f3a``."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def current_versions() -> dict[str, str]:
    """Return the versions a result may depend on."""
    return {"edge-testbed": __version__, "python": platform.python_version()}


def label_of_replay(run_id: str, label: str = "") -> str:
    """Return the label of a replay of ``run_id``: the user's own text and the reference."""
    reference = f"replay of {run_id}"
    return f"{label}; {reference}" if label else reference


def _text_problems(name: str, text: str) -> Iterator[Problem]:
    if len(text) > LONGEST_TEXT:
        seen = f"{text[:20]}... has {len(text)} characters"
        yield Problem(name, seen, f"up to {LONGEST_TEXT}")
    elif any(unicodedata.category(each) in _NO_TEXT for each in text):
        yield Problem(name, ascii(text), "one line of text in UTF-8, without control characters")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Description of a run that is known when it begins.

    ``plan`` is the JSON of the ``Plan`` as used, ``scenario`` the text of the scenario file it
    came from where there was one. Episodes ``first_episode`` to ``first_episode + episodes - 1``
    are run; ``episodes`` is what was asked for. ``label`` is free text to find the run again.
    ``versions`` are those a result may depend on, and the ``testbed`` it was made on. ``model`` is
    that of the plan.
    """

    id: str
    name: str
    scenario_hash: str
    scheduler: str
    driver: Driver
    plan: str
    seeds: Mapping[str, int]
    episodes: int
    first_episode: int = 0
    label: str = ""
    scenario: str | None = None
    versions: Mapping[str, str] = field(default_factory=current_versions)
    started: str = field(default_factory=utc_now)
    model: str = TASKS

    @property
    def testbed(self) -> str | None:
        """Name of the testbed it was made on; None of the simulator's and of earlier releases'."""
        return self.versions.get(TESTBED)

    @property
    def replay_of(self) -> str | None:
        """The id of the run that this one replays, from its label; None if it is no replay."""
        found = _REPLAY.search(self.label)
        return None if found is None else found[1]

    @property
    def own_label(self) -> str:
        """The label without the reference to the run that is replayed."""
        return _REPLAY.sub("", self.label)

    @classmethod
    def of(
        cls,
        plan: PlanHead,
        driver: Driver,
        *,
        id: str | None = None,
        episodes: int | None = None,
        first_episode: int = 0,
        scheduler: str | None = None,
        label: str = "",
        scenario: str | None = None,
    ) -> RunInfo:
        """Return a new run of ``plan``; what is None is taken from the plan or made up (the id).

        Raises: UsageError: a label or the name of a scheduler that not every log can hold, or that
        no line of a table can show.
        """
        seeds = plan.seeds
        scheduler = plan.scheduler.name if scheduler is None else scheduler
        problems = [*_text_problems("label", label), *_text_problems("scheduler", scheduler)]
        if problems:
            raise UsageError("a run cannot be logged like this", problems)
        return cls(
            id=new_run_id() if id is None else id,
            name=plan.name,
            scenario_hash=plan.scenario_hash,
            scheduler=scheduler,
            driver=driver,
            plan=plan.to_json(),
            seeds={
                "topology": seeds.topology,
                "workload": seeds.workload,
                "faults": seeds.faults,
                "schedulers": seeds.schedulers,
            },
            episodes=plan.episodes if episodes is None else episodes,
            first_episode=first_episode,
            label=label,
            scenario=scenario,
            model=plan.model,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the log knows it: what it is, and what has become of it.

    ``certificate`` is the fidelity certificate, None of a run that has not ended and of the
    simulator's, which has nothing to certify; only what a user's own code failed at may stand in
    theirs. ``tags``, in order, and ``note`` are what a user said of it afterwards.
    """

    info: RunInfo
    state: RunState
    ended: str | None = None
    certificate: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.info.id

    @property
    def head(self) -> PlanHead:
        """The plan as used, of whatever model.

        Raises: ValueError if another version of this toolkit wrote it.
        """
        return load(self.info.plan)

    @property
    def model(self) -> str:
        """Its family of work, that of its plan."""
        return self.info.model

    @property
    def plan(self) -> Plan:
        """The plan as used, of a run of tasks.

        Raises: ValueError if another version of this toolkit wrote it, or it is of another model.
        """
        plan = self.head
        if not isinstance(plan, Plan):
            raise ValueError(f"it has {plan.work}, not {Plan.work}")
        return plan

    @property
    def changes(self) -> tuple[Mapping[str, Any], ...]:
        """Changes of the scheduler that were accepted while it ran, in their order."""
        noted = (self.certificate or {}).get("scheduler_changes", ())
        return tuple(change for change in noted if change["accepted"])

    @property
    def code_failures(self) -> tuple[str, ...]:
        """At how many tasks a user's own scheduler or application failed, and why at the first."""
        return tuple((self.certificate or {}).get("code_failures", ()))

    @property
    def faults(self) -> tuple[Mapping[str, Any], ...]:
        """The faults that held in it, by episode and beginning, as its certificate has them.

        For a run of the simulator those of its plan: what was asked for is what happened there.
        """
        noted = (self.certificate or {}).get("faults")
        if noted is not None:
            return tuple(noted)
        with suppress(ValueError):
            plan, first = self.head, self.info.first_episode
            if isinstance(plan, Plan | ServingPlan) and plan.faults:
                return fault_documents(plan, range(first, first + self.info.episodes))
        return ()

    @property
    def faults_by_hand(self) -> tuple[Mapping[str, Any], ...]:
        """Those that stand in no scenario: injected while it ran, or repeated from such a run."""
        noted = (self.certificate or {}).get("faults", ())
        return tuple(fault for fault in noted if fault["entry"] == BY_HAND)

    @property
    def trustworthy(self) -> bool:
        """Whether it went to its end, complete and within its limits of fidelity."""
        return self.state is RunState.COMPLETED


def fault_documents(
    plan: Plan | ServingPlan, episodes: Iterable[int]
) -> tuple[Mapping[str, Any], ...]:
    """Return the faults of ``plan`` in these episodes, as certificates have them."""
    return tuple(
        {
            "episode": episode,
            "id": fault.id,
            "what": KINDS[fault.kind].describe(fault),
            **fault.to_document(),
        }
        for episode in episodes
        for fault in plan.timeline(episode).faults
    )


class TaskLog(Protocol):
    """Runs with all their events, decisions and tasks, or requests, windows and routings.

    Every writing call is one transaction: it happened completely or not at all. One process writes
    a run; any number read at the same time and see what is committed. Calls may come from any
    thread. ``run_id`` is the complete id, as ``run(...).id`` gives it.

    Raises (every call): PermanentError: the store is damaged, full, read-only or of another
    version. TemporaryError: it did not answer in time. UsageError: there is no such run.
    """

    def begin_run(self, info: RunInfo) -> None:
        """Enter a run as ``running``. Again for a known run: only its state is set back.

        Raises: UsageError: another run, of another plan, has this id.
        """
        ...

    def append(self, run_id: str, records: Sequence[Record], decisions: Sequence[Decided]) -> int:
        """Add what is not there yet; returns how many rows were new.

        A record is known by (run, task, seq), a decision by (run, node, episode, number),
        where the number is that of the slot or period; one that is there already stays as it is,
        so a batch may be sent again. All decisions of a run are of one hook.
        """
        ...

    def append_serving(
        self,
        run_id: str,
        requests: Sequence[RequestRow] = (),
        windows: Sequence[WindowRecord] = (),
        routings: Sequence[RoutingRecord] = (),
    ) -> int:
        """Add what is not there yet of a serving run; return how many rows were new.

        A request is known by (run, episode, request), a window by (run, episode, node, window), a
        routing by (run, episode, node, number); one that is there already stays as it is, so a
        batch may be sent again. Routings may come with ``append`` as well.
        """
        ...

    def write_tasks(self, run_id: str, rows: Sequence[TaskRow]) -> None:
        """Enter the rows of ended tasks, in place of earlier rows of the same tasks."""
        ...

    def end_run(
        self, run_id: str, state: RunState, certificate: Mapping[str, Any] | None = None
    ) -> None:
        """Enter the state in which the run ended, and that it ended now."""
        ...

    def close_run(
        self, run_id: str, state: RunState, certificate: Mapping[str, Any] | None = None
    ) -> int:
        """End a run whose writer could not; the number of tasks that had no end.

        Each of them gets one, ``lost``, and each task in the log without a row gets its row. Cut
        off in the middle, the run has not ended and it can be repeated.
        """
        ...

    def hand_in(
        self,
        run_id: str,
        records: Sequence[Record],
        decisions: Sequence[Decided],
        *,
        final: bool | None = None,
    ) -> int:
        """Add records that come after their episode; return the number of those refused.

        Each task still ends exactly once, and its row is folded anew from all its records. With
        ``final``, what the run has told of its tasks stands: records of a task that it ended as
        lost, or did not tell of, are refused. Without, a node's own end takes the place of an end
        that was made for want of it. None: final where the run's certificate says
        ``tasks_closed``, or says nothing of it and the run has neither failed nor been cut short.
        """
        ...

    def tag_run(
        self, run_id: str, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Add tags to a run, and remove others; return all it has now, in order.

        What it has already, or has not, is no problem.

        Raises: UsageError: something cannot be a tag.
        """
        ...

    def note_run(self, run_id: str, note: str) -> None:
        """Replace the note of a run; an empty one removes it.

        Raises: UsageError: the text is too long, or has control characters.
        """
        ...

    def delete_run(self, run_id: str) -> None:
        """Remove a run with all that the log has of it.

        Raises: UsageError: it has not ended.
        """
        ...

    def runs(self) -> list[Run]:
        """Return all runs, in the order in which they were begun."""
        ...

    def run(self, run_id: str) -> Run:
        """Return the run with this id, or the only one whose id begins so, or the ``latest``.

        Raises: UsageError: none or several; names those that could be meant.
        """
        ...

    def outcomes(self, run_id: str) -> dict[Outcome, int]:
        """Number of tasks by outcome, all outcomes in it."""
        ...

    def outcomes_by_run(self, run_ids: Sequence[str]) -> dict[str, dict[Outcome, int]]:
        """Return the same of several runs, by their ids."""
        ...

    def request_outcomes(self, run_ids: Sequence[str]) -> dict[str, dict[RequestOutcome, int]]:
        """Return the number of requests by outcome, all outcomes in it, by the ids of runs."""
        ...

    def counts(self, run_id: str) -> dict[LogTable, int]:
        """Number of rows by table, of the tables that runs of its model have."""
        ...

    def tasks(self, run_id: str, *, episode: int | None = None) -> Iterator[TaskRow]:
        """Rows of tasks in order of their id."""
        ...

    def records(
        self, run_id: str, *, episode: int | None = None, task_id: int | None = None
    ) -> Iterator[Record]:
        """Records in order of (task, seq)."""
        ...

    def decisions(
        self, run_id: str, *, episode: int | None = None, node: int | None = None
    ) -> Iterator[DecisionRecord]:
        """Decisions about tasks in order of (episode, node, slot), with logged idle slots."""
        ...

    def decisions_of(
        self,
        hook: Hook[Recorded],
        run_id: str,
        *,
        episode: int | None = None,
        node: int | None = None,
    ) -> Iterator[Recorded]:
        """Decisions of a run for ``hook``, in order of (episode, node, number).

        None if the decisions of the run are of another hook.
        """
        ...

    def requests(self, run_id: str, *, episode: int | None = None) -> Iterator[RequestRow]:
        """Requests in order of (episode, request)."""
        ...

    def windows(
        self, run_id: str, *, episode: int | None = None, node: int | None = None
    ) -> Iterator[WindowRecord]:
        """Windows in order of (episode, node, window)."""
        ...

    def routings(
        self, run_id: str, *, episode: int | None = None, node: int | None = None
    ) -> Iterator[RoutingRecord]:
        """Routings in order of (episode, node, number), as ``decisions_of`` gives them."""
        ...

    def columns(self, table: LogTable) -> tuple[str, ...]:
        """Return the names of the columns that ``threads`` gives."""
        ...

    def rows(
        self, table: LogTable, run_id: str, *, chunk: int = 20_000, only: Sequence[str] = ()
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Return a table as stored, in its order, at most ``chunk`` rows at a time.

        With names of columns in ``only``, rows have the columns of the table's key and then these.
        """
        ...

    def close(self) -> None:
        """Give back what is held open; further calls may open it again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


Column: TypeAlias = Sequence[Any]
"""Values of one column of a table, a row each."""


class EpisodeColumns(NamedTuple):
    """The rows of an episode as they are stored, by columns, without the first, the run.

    The columns are those of ``schema``, the rows in the order of their key. What makes them
    guarantees that they are those that ``packing`` makes of the episode's records, decisions and
    rows of tasks. A table of no rows has no columns either.
    """

    histories: Sequence[Column]
    decisions: Sequence[Column]
    tasks: Sequence[Column]

    def rows(self, run: int) -> tuple[list[tuple[Any, ...]], ...]:
        """Return the rows of the three tables."""
        return tuple(
            list(zip([run] * len(columns[0]), *columns, strict=True)) if columns else []
            for columns in self
        )


@runtime_checkable
class EpisodeLog(TaskLog, Protocol):
    """A task log that takes whole episodes in the form in which they are stored.

    Not every log can; records and decisions can be handed to each, one by one.
    """

    def write_episodes(self, run_id: str, episodes: Sequence[EpisodeColumns]) -> None:
        """Enter episodes of which nothing is there yet, all in one transaction."""
        ...


def outcomes_of(log: TaskLog, runs: Sequence[Run]) -> dict[str, Mapping[str, int]]:
    """Return the tasks or requests of runs by outcome, all outcomes in it, by the ids of runs."""
    found: dict[str, Mapping[str, int]] = {}
    for model in dict.fromkeys(run.model for run in runs):
        ids = [run.id for run in runs if run.model == model]
        if "requests" in TABLES_OF.named(model):
            found.update((run, _by_name(each)) for run, each in log.request_outcomes(ids).items())
        else:
            found.update((run, _by_name(each)) for run, each in log.outcomes_by_run(ids).items())
    return found


def _by_name(counts: Mapping[_Outcome, int]) -> Mapping[str, int]:
    return {outcome.value: count for outcome, count in counts.items()}
