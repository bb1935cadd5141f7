"""Which runs are meant, where a command names them by what they are and not by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from testbed.errors import Problem, UsageError
from testbed.model.run_state import RunState

if TYPE_CHECKING:
    from testbed.storage.tasklog import Run

OfScheduler: TypeAlias = Annotated[
    str | None, typer.Option("--scheduler", "-s", metavar="NAME", help="Only runs under this one.")
]
OfScenario: TypeAlias = Annotated[
    str | None, typer.Option("--scenario", metavar="NAME", help="Only runs of this scenario.")
]
OfTestbed: TypeAlias = Annotated[
    str | None,
    typer.Option("--testbed", metavar="NAME", help="Only runs on the testbed of this name."),
]
OfState: TypeAlias = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="Only runs in this state.")
]
OfLabel: TypeAlias = Annotated[
    str | None,
    typer.Option("--label", metavar="TEXT", help="Only runs with this text in their label."),
]

SEPARATOR: Final = ":"
"""Stands between ``latest`` and what the run has to be."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a run has to be; what is None may be anything.

    ``label`` is a part of the run's label, all others are equal to what the run has.

    Raises: UsageError: there is no such state.
    """

    scheduler: str | None = None
    scenario: str | None = None
    testbed: str | None = None
    state: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        states = [state.value for state in RunState]
        if self.state is not None and self.state not in states:
            raise UsageError(
                "unknown state of a run",
                [Problem("state", repr(self.state), f"one of {', '.join(states)}")],
            )

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

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))

    def __str__(self) -> str:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)

    def of_runs(self, runs: Iterable[Run]) -> list[Run]:
        """Return those of ``runs`` that are so, in their order."""
        return [run for run in runs if self._fits(run)]

    def _fits(self, run: Run) -> bool:
        return all(
            getattr(self, name) is None or test(run, getattr(self, name))
            for name, test in _TESTS.items()
        )


_TESTS: Final[Mapping[str, Callable[[Run, str], bool]]] = {
    "scheduler": lambda run, name: run.info.scheduler == name,
    "scenario": lambda run, name: run.info.name == name,
    "testbed": lambda run, name: run.info.testbed == name,
    "state": lambda run, name: run.state.value == name,
    "label": lambda run, text: text in run.info.label,
}
