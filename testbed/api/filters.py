"""Which runs are meant, where they are named by what they are and not by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from testbed.errors import Problem, UsageError
from testbed.model.run_state import RunState

if TYPE_CHECKING:
    from testbed.storage.tasklog import Run

SEPARATOR: Final = ":"
"""Stands between ``latest`` and what the run has to be."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on runs; those that are None hold for every run.

    ``label`` is a part of the run's label, ``tag`` one of its tags. ``since`` and ``until`` are
    when it began at the earliest and at the latest: a day (``2026-01-31``, all of it) or an
    instant (``2026-01-31T14:00``), UTC unless it says otherwise. ``search`` is a part, of whatever
    case, of its id, scenario, scheduler, testbed, label, tags or note. All others are equal to
    what the run has.

    Raises: UsageError: there is no such state, or something is no day.
    """

    scheduler: str | None = None
    scenario: str | None = None
    testbed: str | None = None
    state: str | None = None
    label: str | None = None
    tag: str | None = None
    since: str | None = None
    until: str | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        problems = []
        states = [state.value for state in RunState]
        if self.state is not None and self.state not in states:
            problems.append(Problem("state", repr(self.state), f"one of {', '.join(states)}"))
        for name in ("since", "until"):
            given = getattr(self, name)
            if given is not None and _instant(given) is None:
                problems.append(
                    Problem(name, repr(given), "a day or an instant: 2026-01-31, 2026-01-31T14:00")
                )
        if problems:
            raise UsageError("no run can be found like this", problems)

    @classmethod
    def of(cls, text: str) -> Filter:
        """Return the filter that is written as ``KEY=VALUE,KEY=VALUE``; ``NAME`` is a scheduler.

        Raises: UsageError: it is not of this form.
        """
        known = [field.name for field in fields(cls)]
        found: dict[str, str] = {}
        problems = []
        for part in text.split(","):
            key, equals, value = part.partition("=")
            if not equals:
                key, value = "scheduler", part
            if key not in known or not value or key in found:
                problems.append(
                    Problem("latest", repr(part), f"KEY=VALUE with one of {', '.join(known)}, once")
                )
            found[key] = value
        if problems:
            raise UsageError(
                f"'latest{SEPARATOR}{text}' cannot be read; it is written as in "
                f"latest{SEPARATOR}ratc or latest{SEPARATOR}scheduler=ratc,state=completed",
                problems,
            )
        return cls(**found)

    @property
    def given(self) -> dict[str, str]:
        """Return the conditions that are set, by the names of the fields."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if value is not None}

    def __bool__(self) -> bool:
        return bool(self.given)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.given.items())

    def of_runs(self, runs: Iterable[Run]) -> list[Run]:
        """Return those of ``runs`` that are so, in their order."""
        tests = [(_TESTS[name], value) for name, value in self.given.items()]
        return [run for run in runs if all(test(run, value) for test, value in tests)]


_LAST_DAY: Final = date.max - timedelta(days=1)


def _instant(text: str, *, end: bool = False) -> datetime | None:
    """Return the instant that is meant: of a day its beginning, or the next one's with ``end``."""
    with suppress(ValueError):
        day = date.fromisoformat(text)
        return datetime.combine(min(day, _LAST_DAY) + timedelta(days=end), time(), UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _began(run: Run) -> datetime | None:
    """Return when a run began; None where the log has no time."""
    return _instant(run.info.started)


def _since(run: Run, text: str) -> bool:
    began, limit = _began(run), _instant(text)
    return began is not None and limit is not None and began >= limit


def _until(run: Run, text: str) -> bool:
    began, limit = _began(run), _instant(text, end=True)
    return began is not None and limit is not None and began < limit


def _has(run: Run, text: str) -> bool:
    info = run.info
    said = (info.id, info.name, info.scheduler, info.testbed or "", info.label, *run.tags, run.note)
    wanted = text.casefold()
    return any(wanted in each.casefold() for each in said)


_TESTS: Final[Mapping[str, Callable[[Run, str], bool]]] = {
    "scheduler": lambda run, name: run.info.scheduler == name,
    "scenario": lambda run, name: run.info.name == name,
    "testbed": lambda run, name: run.info.testbed == name,
    "state": lambda run, name: run.state.value == name,
    "label": lambda run, text: text in run.info.label,
    "tag": lambda run, tag: tag in run.tags,
    "since": _since,
    "until": _until,
    "search": _has,
}
