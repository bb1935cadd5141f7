"""Replay: the tasks, fates and faults of a logged run once more, under another scheduler.

Nothing of the workload is stored for it: arrivals, fates and planned faults are functions of the
seeds in the run's plan, so drawing them anew gives the same ones. That they are the same is not
assumed: an episode is replayed only where the log has exactly the tasks that the plan draws.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from testbed.errors import Problem, UsageError
from testbed.experiment.by_hand import described, read
from testbed.experiment.comparison import check_comparable
from testbed.experiment.history import plan_of
from testbed.experiment.statistics import MIN_PAIRS, PairedComparison, compare, corrected
from testbed.experiment.task_summary import RunSummary
from testbed.model.faults import Fault
from testbed.model.history import TaskRow
from testbed.model.task import Outcome, Task
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.storage.tasklog import Run, TaskLog

_HOW: Final = frozenset(
    {
        *("name", "scenario_hash", "scheduler", "episodes", "time_scale", "payload", "chunk_bytes"),
        *("application", "log_idle_slots", "storage_url", "artifacts_url", "limits", "by_hand"),
        "objective",
    }
)
"""Fields of a plan that do not say what its scenario emulates."""

_SHOWN: Final = 8
"""Differences between two plans that are named; the rest is counted."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An episode that cannot be replayed, and why."""

    episode: int
    reason: str


@dataclass(frozen=True, slots=True)
class Original:
    """A run to be replayed: its plan, and the episodes whose tasks are those that the plan draws.

    ``changed`` names what happened in the run from outside and a replay does not repeat, and
    ``repeated`` the faults by hand that it does, which are in ``plan``.
    """

    run: Run
    plan: Plan
    episodes: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    changed: tuple[str, ...]
    repeated: str = ""

    @property
    def first_episode(self) -> int:
        """The number of the first episode to replay."""
        return self.episodes[0]

    @property
    def count(self) -> int:
        """Return the number of episodes from the first to the last of ``episodes``."""
        return self.episodes[-1] - self.episodes[0] + 1

    @property
    def faults_by_hand(self) -> dict[int, tuple[Fault, ...]]:
        """Return the faults by hand of the episodes to replay; those cleared at once were none."""
        return {
            episode: tuple(fault for fault in faults if fault.begin < fault.end)
            for episode, faults in self.plan.by_hand.items()
            if self.first_episode <= episode <= self.episodes[-1]
        }

    @property
    def scheduler(self) -> SchedulerSpec:
        """The scheduler the run began with, with its options."""
        planned, name = self.plan.scheduler, self.run.info.scheduler
        return planned if planned.name == name else SchedulerSpec(name)

    def planned(self, scheduler: SchedulerSpec, artifacts_url: str | None) -> Plan:
        """Return the plan of a replay in the simulator."""
        return dataclasses.replace(
            self.plan, scheduler=scheduler, episodes=self.count, artifacts_url=artifacts_url
        )

    def only_replayed(self, summary: RunSummary) -> RunSummary:
        """``summary`` of this run or of a replay, over the episodes that both have."""
        return summary.only(self.episodes)


def original(
    log: TaskLog,
    run_id: str,
    episode: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Original:
    """Read a run that is to be replayed, and compare its tasks with those its plan draws.

    ``episode`` is the only one to replay; None takes all that can be. ``progress`` is told how many
    episodes have been compared.

    Raises: UsageError: no such run, its plan cannot be read, or no episode can be replayed; names
    the reason for each.
    """
    run = log.run(run_id)
    plan = plan_of(run)
    asked = range(run.info.first_episode, run.info.first_episode + run.info.episodes)
    if episode is not None and episode not in asked:
        raise UsageError(
            f"run {run.id} has no episode {episode}",
            [Problem("--episode", str(episode), f"allowed: {asked[0]} to {asked[-1]}")],
        )
    completed = (run.certificate or {}).get("episodes_completed", len(asked))
    wanted = asked if episode is None else (episode,)
    good: list[int] = []
    left_out: list[LeftOut] = []
    for done, number in enumerate(wanted):
        progress(done)
        logged = list(log.tasks(run.id, episode=number))
        wrong = _difference(logged, arrivals(plan, number), number - asked[0] < completed)
        if wrong:
            left_out.append(LeftOut(number, wrong + _crowd(run, number)))
        else:
            good.append(number)
    if not good:
        raise UsageError(
            f"run {run.id} ({run.state.value}) cannot be replayed: none of its episodes is "
            "complete in the log",
            [Problem("", line, "") for line in told(left_out)],
        )
    changed = tuple(_from_outside(run, plan))
    repeated = described(run, good) if plan.by_hand else ""
    return Original(run, plan, tuple(good), tuple(left_out), changed, repeated)


def told(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """Return the episodes that cannot be replayed as sentences, neighbours of one reason as one."""
    groups: list[list[LeftOut]] = []
    for each in left_out:
        last = groups[-1][-1] if groups else None
        if last is not None and last == LeftOut(each.episode - 1, each.reason):
            groups[-1].append(each)
        else:
            groups.append([each])
    for group in groups[:_SHOWN]:
        yield f"{_named(group)}: {group[0].reason}"
    if rest := sum(len(group) for group in groups[_SHOWN:]):
        yield f"{rest} more episodes are not replayed: --json lists them"


def _named(group: Sequence[LeftOut]) -> str:
    if len(group) == 1:
        return f"episode {group[0].episode} is not replayed"
    return f"episodes {group[0].episode} to {group[-1].episode} are not replayed"


def arrivals(plan: Plan, episode: int) -> list[Task]:
    """Return the tasks that the plan draws for an episode, in order of their ids."""
    return [task for slot in plan.tasks(episode) for task in slot]


def _difference(logged: Sequence[TaskRow], drawn: Sequence[Task], completed: bool) -> str:
    """Return how the tasks of the log differ from those that were drawn; empty if not."""
    if not logged and drawn:
        return "no task is in the log"
    if not completed:
        return f"was cut short: {len(logged)} of {len(drawn)} tasks are in the log"
    expected = {task.id: task for task in drawn}
    there = {row.task_id for row in logged}
    missing = len(expected.keys() - there)
    foreign = sum(expected.get(row.task_id) != row.task for row in logged)
    wrong = []
    if missing:
        wrong.append(f"{missing} of the {len(drawn)} tasks that its plan draws are not in the log")
    if foreign:
        wrong.append(f"{foreign} of the {len(logged)} tasks in the log are not as its plan draws")
    return "; ".join(wrong)


def _crowd(run: Run, episode: int) -> str:
    """Return what to add to the reason for an episode whose arrivals somebody changed by hand."""
    if not any(
        fault["episode"] == episode and fault.get("kind") == "arrivals"
        for fault in run.faults_by_hand
    ):
        return ""
    return " (its arrivals were changed by hand, at other slots than the log says)"


def _from_outside(run: Run, plan: Plan) -> Iterator[str]:
    """Return what was done to the run by hand while it went on and is not repeated.

    Faults that stand in the plan are not among it: they are drawn anew like the arrivals.
    """
    if run.changes:
        said = ", ".join(
            f"{change['scheduler']} from episode {change['episode']}, slot {change['slot']}"
            for change in run.changes
        )
        yield f"the scheduler was changed while it ran ({said})"
    missing = read(run, plan.topology.size).missing
    if missing:
        yield f"not all faults of it are known ({'; '.join(missing)})"
    dead = (run.certificate or {}).get("dead_nodes", {})
    if dead:
        yield f"nodes left it while it ran ({', '.join(map(str, dead))})"


def differences(plan: Plan, other: Plan) -> list[Problem]:
    """Return where two plans emulate different things: the path, the value here, the value there.

    Names, schedulers, numbers of episodes and how a plan is carried out do not matter.
    """
    found = [
        problem
        for field in dataclasses.fields(Plan)
        if field.name not in _HOW
        for problem in _differing(field.name, getattr(plan, field.name), getattr(other, field.name))
        # The schedulers' own draws are no part of what the tasks meet.
        if problem.path != "seeds.schedulers"
    ]
    return [*found[:_SHOWN], *_more(len(found))]


def _differing(path: str, here: Any, there: Any) -> Iterator[Problem]:
    if here == there:
        return
    if dataclasses.is_dataclass(here) and type(here) is type(there):
        for field in dataclasses.fields(here):
            yield from _differing(
                f"{path}.{field.name}", getattr(here, field.name), getattr(there, field.name)
            )
    elif isinstance(here, tuple) and isinstance(there, tuple) and len(here) == len(there):
        for index, (first, second) in enumerate(zip(here, there, strict=True)):
            yield from _differing(f"{path}[{index}]", first, second)
    elif isinstance(here, tuple) and isinstance(there, tuple):
        yield Problem(path, f"{len(here)} entries in the run", f"{len(there)} on the testbed")
    else:
        yield Problem(path, f"{here} in the run", f"{there} on the testbed")


def _more(count: int) -> list[Problem]:
    return [Problem("", f"and {count - _SHOWN} more", "")] if count > _SHOWN else []


@dataclass(frozen=True, slots=True)
class OutcomeChanges:
    """The outcomes of the same tasks under two schedulers.

    ``moves`` counts the tasks by (outcome in the original, outcome in the replay), equal ones left
    out. ``saved`` succeeded only in the replay, ``spoilt`` only in the original. ``same_node`` went
    to the same node in both. ``same_course`` agree in everything that the log says of them but
    measured times: node, outcome, stage and time from arrival to end.
    """

    tasks: int
    moves: tuple[tuple[str, str, int], ...]
    same_node: int
    same_course: int

    @property
    def same_outcome(self) -> int:
        """Tasks that ended the same way."""
        return self.tasks - sum(count for _, _, count in self.moves)

    @property
    def saved(self) -> int:
        """Tasks that succeeded in the replay and not in the original."""
        return sum(count for _, new, count in self.moves if new == Outcome.SUCCEEDED)

    @property
    def spoilt(self) -> int:
        """Tasks that succeeded in the original and not in the replay."""
        return sum(count for old, _, count in self.moves if old == Outcome.SUCCEEDED)

    def lines(self) -> Iterator[str]:
        """Return the changes between success and each other outcome as sentences, both ways."""
        counts = {(old, new): count for old, new, count in self.moves}
        good = Outcome.SUCCEEDED.value
        for outcome in Outcome:
            bad = outcome.value
            saved, spoilt = counts.get((bad, good), 0), counts.get((good, bad), 0)
            if bad != good and (saved or spoilt):
                yield f"{_saved(saved, outcome)}, {spoilt} the other way"
        other = sum(count for (old, new), count in counts.items() if good not in (old, new))
        if other:
            yield f"{_tasks(other)} {'fails' if other == 1 else 'fail'} in another way than before"
        if self.same_course == self.tasks:
            yield f"all {_tasks(self.tasks)} took the same course"
        else:
            yield (
                f"{self.same_outcome} of {_tasks(self.tasks)} ended the same way, "
                f"{self.same_node} went to the same node"
            )

    @property
    def document(self) -> dict[str, Any]:
        """The changes as plain values for JSON."""
        return {
            "tasks": self.tasks,
            "same_outcome": self.same_outcome,
            "same_node": self.same_node,
            "same_course": self.same_course,
            "saved": self.saved,
            "spoilt": self.spoilt,
            "moves": [{"original": o, "replay": n, "tasks": count} for o, n, count in self.moves],
        }


def _tasks(count: int) -> str:
    return f"{count} task" if count == 1 else f"{count} tasks"


def _saved(count: int, outcome: Outcome) -> str:
    was, verb = ("was", "succeeds") if count == 1 else ("were", "succeed")
    ended = {
        Outcome.DROPPED: f"{was} dropped",
        Outcome.REFUSED: f"{was} refused",
        Outcome.TRANSMISSION_FAILED: "failed in transmission",
        Outcome.EXECUTION_FAILED: "failed in execution",
        Outcome.LOST: f"{was} lost",
    }
    return f"{_tasks(count)} that {ended[outcome]} {verb}"


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay beside its original, over the episodes that both have.

    ``comparison`` is replay minus original, paired by episode.
    """

    original: RunSummary
    summary: RunSummary
    comparison: PairedComparison
    changes: OutcomeChanges

    @property
    def verdict(self) -> str:
        """The difference in success rate as a sentence."""
        difference = self.comparison.difference
        ours, theirs = self.summary.run.info.scheduler, self.original.run.info.scheduler
        said = f"{ours} against {theirs}: {100 * difference.mean:+.1f} points"
        if not any(self.comparison.differences):
            return f"{said} in every episode"
        if self.comparison.real is None:
            return f"{said}; at least {MIN_PAIRS} episodes are needed to say whether that is real"
        interval = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
        return f"{said} ({interval}, {self.comparison.p_text})"

    @property
    def document(self) -> dict[str, Any]:
        """The replay as plain values for JSON."""
        return {
            **self.summary.document,
            "difference": {
                "episodes": list(self.comparison.episodes),
                **self.comparison.document,
            },
            "changes": self.changes.document,
            "verdict": self.verdict,
        }


def compared(original: RunSummary, replay: RunSummary) -> Replay:
    """Return a replay beside its original, both over the same episodes.

    Raises: UsageError: they met different tasks.
    """
    check_comparable((original, replay))
    return Replay(
        original=original,
        summary=replay,
        comparison=compare(replay.by_episode, original.by_episode),
        changes=_changes(original.tasks, replay.tasks),
    )


def judged(replays: Sequence[Replay]) -> list[Replay]:
    """Return replays of one run that were made at once, with p values adjusted for their number."""
    found = corrected([each.comparison for each in replays])
    return [
        dataclasses.replace(replay, comparison=each)
        for replay, each in zip(replays, found, strict=True)
    ]


def _changes(first: pd.DataFrame, second: pd.DataFrame) -> OutcomeChanges:
    both = first.merge(second, on="task", suffixes=("_1", "_2"), validate="one_to_one")
    moves = Counter(zip(both["outcome_1"], both["outcome_2"], strict=True))
    order = [outcome.value for outcome in Outcome]

    def same(column: str) -> pd.Series[bool]:
        old, new = both[f"{column}_1"], both[f"{column}_2"]
        return (old == new) | (old.isna() & new.isna())

    node = same("destination")
    return OutcomeChanges(
        tasks=len(both),
        moves=tuple(
            (old, new, moves[old, new])
            for old in order
            for new in order
            if old != new and moves[old, new]
        ),
        same_node=int(node.sum()),
        same_course=int((node & same("outcome") & same("stage") & same("elapsed")).sum()),
    )
