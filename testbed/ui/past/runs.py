"""Runs of a task log as rows of a table, with what they can be filtered by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from testbed.api.filters import Filter
from testbed.errors import UsageError
from testbed.experiment.summary import SUMMARIES, counted
from testbed.storage.tasklog import Run, TaskLog

PAGE: Final = 50
"""Runs that are shown at first; more are asked for."""


class RunRow(NamedTuple):
    """A run in a list: ``pieces`` of its ``work``, tasks or requests, and the good share of it."""

    run: str
    scenario: str
    scheduler: str
    driver: str
    testbed: str
    state: str
    episodes: int
    pieces: int
    work: str
    share: float | None
    started: str
    label: str
    tags: tuple[str, ...]
    note: str

    @property
    def success(self) -> str:
        """The share as text."""
        return "-" if self.share is None else f"{100 * self.share:.1f} %"

    @property
    def began(self) -> str:
        """When it began, to the minute, UTC."""
        return self.started[:16].replace("T", " ")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the runs of a log can be filtered by: the values that there are, in order."""

    scheduler: tuple[str, ...] = ()
    scenario: tuple[str, ...] = ()
    testbed: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """The runs that a filter finds, the latest first: some as rows, how many there are, choices.

    ``total`` counts all runs of the log, ``found`` those that the filter lets through.
    """

    rows: tuple[RunRow, ...]
    found: int
    total: int
    choices: Choices


def row_of(run: Run, outcomes: Mapping[str, int]) -> RunRow:
    """Return the row of a run, from its tasks or requests by outcome."""
    family = SUMMARIES.of(run)
    count, share = family.rate(outcomes)
    info = run.info
    return RunRow(
        run=info.id,
        scenario=info.name,
        scheduler=info.scheduler,
        driver=info.driver,
        testbed=info.testbed or "",
        state=run.state.value,
        episodes=info.episodes,
        pieces=count,
        work=family.work,
        share=share,
        started=info.started,
        label=info.label,
        tags=run.tags,
        note=run.note,
    )


def choices_of(runs: Iterable[Run]) -> Choices:
    """Return what these runs can be filtered by."""
    found: dict[str, set[str]] = {field.name: set() for field in fields(Choices)}
    for run in runs:
        found["scheduler"].add(run.info.scheduler)
        found["scenario"].add(run.info.name)
        found["state"].add(run.state.value)
        found["tag"].update(run.tags)
        if run.info.testbed is not None:
            found["testbed"].add(run.info.testbed)
    return Choices(**{name: tuple(sorted(values)) for name, values in found.items()})


def listed(log: TaskLog, only: Filter, limit: int = PAGE) -> Listed:
    """Return the latest ``limit`` runs that ``only`` finds."""
    runs = log.runs()
    fitting = only.of_runs(runs)
    shown = fitting[::-1][:limit]
    outcomes = counted(log, shown)
    rows = tuple(row_of(run, outcomes[run.id]) for run in shown)
    return Listed(rows, len(fitting), len(runs), choices_of(runs))


def filter_of(parameters: Mapping[str, str]) -> Filter:
    """Return the filter in the parameters of an address; what cannot be one is left out."""
    names = [field.name for field in fields(Filter)]
    given = {name: parameters[name] for name in names if parameters.get(name)}
    try:
        return Filter(**given)
    except UsageError as error:
        wrong = {problem.path for problem in error.problems}
        return Filter(**{name: value for name, value in given.items() if name not in wrong})


def runs_of(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Return the runs that an address names: ``?runs=a,b``, each once."""
    named: Sequence[str] = parameters.get("runs", "").split(",")
    return tuple(dict.fromkeys(each.strip() for each in named if each.strip()))
