"""Summary of a run of tasks, from its log alone: success rate, outcomes, times, destinations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Final

from testbed.experiment.measured import (
    Column,
    Heard,
    NothingToReport,
    Shown,
    Summary,
    Table,
    interval_document,
)
from testbed.experiment.messages import Messages, MessageWindow, read_messages, total
from testbed.experiment.metrics import MESSAGES_FRAME, SUCCESS_RATE, Metric
from testbed.experiment.statistics import Interval, in_per_cent
from testbed.model.task import Outcome
from testbed.storage.tasklog import Run, TaskLog

if TYPE_CHECKING:
    import pandas as pd

STAGES: Final = (
    "transmission_waiting",
    "transmission",
    "execution_waiting",
    "execution",
)
"""The four times of a task, in the order in which they pass (model section 3)."""


@dataclass(frozen=True)
class RunSummary(Summary):
    """One run with its tasks.

    ``columns`` has the values of each column of the log's table of tasks, in order of the tasks;
    times in microseconds. One more, ``deciding``, is from a task's arrival to the decision about
    it, NaN where there is none. ``read_windows`` counts the messages between nodes; it reads the
    log, and only where they are asked for.
    """

    work: ClassVar[str] = "tasks"
    frames: ClassVar[tuple[str, ...]] = ("tasks", MESSAGES_FRAME)

    columns: Mapping[str, Sequence[Any]]
    read_windows: Callable[[], tuple[MessageWindow, ...]] = tuple

    @property
    def task_count(self) -> int:
        """Number of tasks."""
        return len(self.columns["task"])

    @property
    def count(self) -> int:
        """See ``Summary``."""
        return self.task_count

    @property
    def episodes(self) -> tuple[int, ...]:
        """See ``Summary``."""
        return tuple(self.by_episode)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """A row per task, with ``columns``."""
        # Loading it takes longer than all that most commands do.
        import pandas as pd

        return pd.DataFrame(self.columns)

    def frame(self, name: str) -> pd.DataFrame:
        """See ``Summary``."""
        return self._messages_frame if name == MESSAGES_FRAME else self.tasks

    @cached_property
    def windows(self) -> tuple[MessageWindow, ...]:
        """Questions and answers between nodes, by node and slot."""
        return self.read_windows()

    @cached_property
    def _unlogged(self) -> set[int]:
        """Episodes without a logged decision though some were made: their messages are unknown."""
        made, logged = set(), set()
        columns = self.columns
        for episode, destination, deciding in zip(
            columns["episode"], columns["destination"], columns["deciding"], strict=True
        ):
            if not math.isnan(deciding):
                logged.add(episode)
            elif destination is not None:
                made.add(episode)
        return made - logged

    @property
    def messages(self) -> Messages | None:
        """The same of all nodes and slots; None where not all episodes have their decisions."""
        return None if self._unlogged else total(self.windows)

    @property
    def _messages_frame(self) -> pd.DataFrame:
        """``windows`` as a frame with a row at least for each episode: NaN if nothing is known."""
        import pandas as pd

        told = {window.episode for window in self.windows}
        others = [
            (episode, 0, 0, *[math.nan if episode in self._unlogged else 0] * 6)
            for episode in self.episodes
            if episode not in told
        ]
        return pd.DataFrame([*self.windows, *others], columns=list(MessageWindow._fields))

    def only(self, episodes: Sequence[int]) -> RunSummary:
        """Return the same of these episodes alone."""
        wanted = set(episodes)
        kept = [number in wanted for number in self.columns["episode"]]
        columns = {name: list(compress(values, kept)) for name, values in self.columns.items()}
        return RunSummary(self.run, columns, lambda: self._windows_of(wanted))

    def _windows_of(self, episodes: set[int]) -> tuple[MessageWindow, ...]:
        return tuple(each for each in self.windows if each.episode in episodes)

    @cached_property
    def by_episode(self) -> dict[int, float]:
        """Success rate of each episode, in order."""
        episodes, outcomes = self.columns["episode"], self.columns["outcome"]
        tasks = Counter(episodes)
        good = Counter(
            episode
            for episode, outcome in zip(episodes, outcomes, strict=True)
            if outcome == Outcome.SUCCEEDED.value
        )
        return {episode: good[episode] / tasks[episode] for episode in sorted(tasks)}

    @cached_property
    def success_rate(self) -> Interval:
        """Mean success rate over episodes (paper eq. 9 per episode)."""
        return SUCCESS_RATE.interval(list(self.by_episode.values()))

    def _values(self, metric: Metric) -> Mapping[int, float]:
        return self.by_episode if metric is SUCCESS_RATE else super()._values(metric)

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Tasks by outcome, all outcomes in it."""
        counts = Counter(self.columns["outcome"])
        return {outcome.value: counts[outcome.value] for outcome in Outcome}

    @cached_property
    def outcome_shares(self) -> dict[str, float]:
        """Shares of the tasks of an episode by outcome, mean over episodes; they add up to 1.

        That of the successes is the mean of ``success_rate``.
        """
        counts = Counter(zip(self.columns["episode"], self.columns["outcome"], strict=True))
        tasks = Counter(self.columns["episode"])
        return {
            outcome.value: sum(counts[each, outcome.value] / tasks[each] for each in tasks)
            / len(tasks)
            for outcome in Outcome
        }

    @property
    def decided(self) -> zip[tuple[int, int | None]]:
        """The node at which each task arrived, and the one chosen for it; None if none was."""
        return zip(self.columns["source"], self.columns["destination"], strict=True)

    @cached_property
    def offloaded(self) -> float:
        """Share of the decided tasks of an episode that were sent to a peer, mean over episodes.

        0 if nothing was decided.
        """
        decided: Counter[int] = Counter()
        away: Counter[int] = Counter()
        for episode, (source, chosen) in zip(self.columns["episode"], self.decided, strict=True):
            if chosen is not None:
                decided[episode] += 1
                away[episode] += source != chosen
        return sum(away[each] / decided[each] for each in decided) / max(1, len(decided))

    @cached_property
    def times(self) -> pd.DataFrame:
        """Mean, p50, p95 of the times of succeeded tasks, in milliseconds.

        Rows: ``deciding`` (probing included), the four of ``STAGES``, ``total``. A time that does
        not apply (transmission of a local task) counts as 0. No time is a difference of two clocks:
        the stages are measured by the node where they pass; deciding and the total, which the
        deadline is compared with, are by the instants of the model. So on a network, where a stage
        takes a little longer than it should, the means add up to a little more than the total.
        """
        import pandas as pd

        succeeded = self.tasks[self.tasks["outcome"] == Outcome.SUCCEEDED.value]
        times = succeeded[list(STAGES)].fillna(0).astype(float) / 1000
        times.insert(0, "deciding", succeeded["deciding"].astype(float) / 1000)
        times["total"] = succeeded["elapsed"].astype(float) / 1000
        return pd.DataFrame(
            {
                "mean_ms": times.mean(),
                "p50_ms": times.quantile(0.5),
                "p95_ms": times.quantile(0.95),
            }
        ).fillna(0.0)

    @property
    def rates(self) -> dict[str, float]:
        """See ``Summary``."""
        return {"success_rate": self.success_rate.mean}

    @staticmethod
    def columns_of(runs: Sequence[RunSummary], shown: Shown) -> list[Column]:
        """See ``Summary``."""
        outcomes = {
            "DROPPED": ("dropped",),
            **({"REFUSED": ("refused",)} if any(run.outcomes["refused"] for run in runs) else {}),
            "FAILED": ("transmission_failed", "execution_failed"),
            **({"LOST": ("lost",)} if any(run.outcomes["lost"] for run in runs) else {}),
        }
        # Shares of one whole: means over episodes, as the success rate is.
        cells = [
            in_per_cent(
                [
                    sum(run.outcome_shares[each] for each in alike)
                    for alike in (("succeeded",), *outcomes.values())
                ]
            )
            for run in runs
        ]
        shares = (
            Column(head, [f"{cell[place]:.1f} %" for cell in cells])
            for place, head in enumerate(outcomes, start=1)
        )
        rates = [shown(SUCCESS_RATE, run.success_rate) for run in runs]
        return [
            Column("TASKS", [str(run.count) for run in runs]),
            Column("SUCCESS", rates, bold=True),
            *shares,
        ]

    def facts(self, shown: Shown) -> list[tuple[str, str]]:
        """See ``Summary``."""
        rate = shown(SUCCESS_RATE, self.success_rate)
        return [
            ("success rate", f"{rate} (95 % interval over episodes)"),
            ("objective", str(self.scored["objective"])),
            ("tasks", f"{self.count}  (shares are means over episodes)"),
            *(
                (f"  {outcome.replace('_', ' ')}", f"{count}  ({share:.1f} %)")
                for (outcome, count), share in zip(
                    self.outcomes.items(), in_per_cent([*self.outcome_shares.values()]), strict=True
                )
                if count
            ),
            ("sent to peers", f"{100 * self.offloaded:.1f} %"),
            ("messages", self._said),
        ]

    @property
    def _said(self) -> str:
        """The messages between nodes in one line."""
        messages = self.messages
        if messages is None:
            return "unknown: the decisions are not logged"
        return (
            f"{messages.count / self.count:.1f} per task, {messages.size / self.count:.0f} bytes "
            f"per task; {messages.questions} questions, {messages.answers} answers"
        )

    def tables(self) -> list[Table]:
        """See ``Summary``."""
        rows = [
            [
                str(stage).replace("_", " "),
                *(f"{row[column]:.1f} ms" for column in ("mean_ms", "p50_ms", "p95_ms")),
            ]
            for stage, row in self.times.iterrows()
        ]
        return [Table(["TIMES OF SUCCEEDED TASKS", ">MEAN", ">P50", ">P95"], rows)]

    @property
    def document(self) -> dict[str, Any]:
        """See ``Summary``."""
        rate, messages = self.success_rate, self.messages
        return {
            **self.head,
            "tasks": self.task_count,
            "episodes": rate.count,
            "success_rate": interval_document(rate, self.by_episode),
            **self.scored,
            "outcomes": self.outcomes,
            "offloaded": self.offloaded,
            "messages": None
            if messages is None
            else {
                **asdict(messages),
                "per_task": messages.count / self.count,
                "bytes_per_task": messages.size / self.count,
            },
            "times_ms": {
                str(name): {str(k): float(v) for k, v in row.items()}
                for name, row in self.times.to_dict("index").items()
            },
            **self.trust,
        }


def read(log: TaskLog, run: Run, heard: Heard) -> RunSummary:
    """Read what a run of tasks did. Raises: UsageError: it has no task that ended."""
    names = log.columns("tasks")
    rows: list[Sequence[Any]] = []
    for chunk in log.rows("tasks", run.id):
        rows += chunk
        # The decisions, about as many, come after them.
        heard(len(rows) // 2)
    if not rows:
        raise NothingToReport(
            f"run {run.id} ({run.state.value}) has no finished task, so there is nothing to report"
        )
    columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    decided: dict[int, int] = {}
    for chunk in log.rows("decisions", run.id, only=("task", "at")):
        decided |= {row[-2]: row[-1] for row in chunk if row[-2] is not None}
        heard((len(rows) + min(len(rows), len(decided))) // 2)
    # Tasks arrive with the slots, by the clock that the decision was entered by.
    plan = run.plan
    slot = plan.workload.slot
    columns["deciding"] = [
        decided[task] - number * slot if task in decided else math.nan
        for task, number in zip(columns["task"], columns["slot"], strict=True)
    ]
    return RunSummary(run, columns, partial(read_messages, log, run.id, plan))
