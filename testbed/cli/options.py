"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from testbed import environment
from testbed.errors import Problem, UsageError
from testbed.scenario.secrets import without_password

if TYPE_CHECKING:
    from testbed.runtime.base import Runtime
    from testbed.scenario.plan import SchedulerSpec

DEFAULT_NAME: Final = "default"
"""Name of the testbed where none is given."""

Name: TypeAlias = Annotated[
    str,
    typer.Option(
        "--name", "-n", metavar="NAME", envvar=environment.NAME, help="Name of the testbed."
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Storage: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar=environment.STORAGE,
        metavar="URL",
        help="Task log: a file or a database URL. Default: the scenario's, else that of the home.",
    ),
]
Artifacts: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        envvar=environment.ARTIFACTS,
        metavar="URL",
        help="Artifact store. Default: that of the testbed if it is up, else that of the home.",
    ),
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the scenario, as in --set nodes.count=20. Repeatable.",
    ),
]
AUTO: Final = "auto"
"""The time scale that is found by what this machine carries."""

TimeScale: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--time-scale",
        metavar="X",
        help="Real seconds per emulated second, in place of the scenario's; `auto`: the smallest "
        "that this machine carries by its calibration.",
    ),
]
SchedulerOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        help="Option of the scheduler; the value is YAML. Repeatable.",
    ),
]
ScenarioName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO", help="Name of a shipped scenario, or the path of a scenario file."
    ),
]
Episodes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--episodes",
        "-e",
        metavar="N",
        min=1,
        help="Number of episodes. Default: the scenario's.",
    ),
]
FirstEpisode: TypeAlias = Annotated[
    int,
    typer.Option(
        "--first-episode",
        metavar="N",
        min=0,
        help="Number of the first episode; equal numbers have equal arrivals and faults.",
    ),
]
MOST: Final = 1_000_000_000
"""Episodes or steps of a learning experiment: more than anybody waits for."""

LARGEST_SEED: Final = 2**63 - 1

Label: TypeAlias = Annotated[
    str, typer.Option("--label", metavar="TEXT", help="Free text to identify the run later.")
]
By: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="NAME",
        help="Metric to compare the runs by; `testbed runs show` lists them. "
        "Default: the objective of the scenario.",
    ),
]
RunIds: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run ids or unique prefixes; `latest` is the last run, `latest:ratc` the last under "
        "ratc, `latest:state=completed,label=x` the last that is so.",
    ),
]


def quoted(path: Path | str) -> str:
    """Return a path as one would type it in a shell."""
    return shlex.quote(str(path))


def typed() -> str:
    """Return the command line of this process as one would type it, without passwords."""
    return shlex.join(["testbed", *map(_public, sys.argv[1:])])


def _public(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if equals and "://" not in name:
        return f"{name}={without_password(value)}"
    return without_password(argument)


def from_log(command: str, storage: str | None, name: str = DEFAULT_NAME) -> str:
    """Return ``command`` for the task log ``storage``, as one would type it.

    Without one, for that of the testbed ``name``. Not what the environment says anyway, and no
    password.
    """
    if not storage or storage == os.environ.get(environment.STORAGE):
        named = name != DEFAULT_NAME and name != os.environ.get(environment.NAME)
        return f"{command} --name {name}" if named else command
    return f"{command} --storage {quoted(without_password(storage))}"


def key_values(given: list[str] | None, option: str) -> dict[str, Any]:
    """Return repeated ``KEY=VALUE`` as a mapping; values are YAML (``3``, ``true``, ``text``).

    Raises: UsageError with all that are not of this form.
    """
    if not given:
        return {}
    from testbed.scenario import document

    found: dict[str, Any] = {}
    problems = []
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            problems.append(Problem(option, repr(text), f"allowed: KEY=VALUE, as in {option} k=2"))
            continue
        try:
            found[key] = document.value(value, f"{option} {key}")
        except document.DocumentError as error:
            problems.extend(error.problems)
    if problems:
        raise UsageError("these options cannot be read", problems)
    return found


def scheduler_of(
    given: str, options: Mapping[str, Any] | None = None, option: str = "--scheduler"
) -> tuple[SchedulerSpec, str]:
    """Return the scheduler that is written as ``NAME`` or ``NAME,KEY=VALUE,...``.

    ``options`` are those of all schedulers, which its own replace. The second value is how its own
    are written, to tell runs of one scheduler with different options apart; empty without any.

    Raises: UsageError: the options are not of this form.
    """
    from testbed.scenario.plan import SchedulerSpec

    name, *own = parts(given)
    found = {**(options or {}), **key_values(own, f"{option} {name},")}
    return SchedulerSpec(name, found), ", ".join(own)


def labelled(label: str, more: str) -> str:
    """Return the label of a run with ``more`` text that tells it from others."""
    return "; ".join(each for each in (label, more) if each)


def parts(text: str) -> list[str]:
    """Return the parts of ``text`` between commas outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for each in text:
        if quote:
            quote = "" if each == quote else quote
        elif each in "'\"":
            quote = each
        else:
            depth += (each in "[{(") - (each in "]})")
        if each == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += each
    return parts


_DIGITS: Final = 9
_RANGE: Final = 10_000


def node_numbers(text: str | None, option: str = "--nodes") -> tuple[int, ...]:
    """Return ``0,2,5-7`` as numbers in order, each once; nothing for None.

    Raises: UsageError if it is not of this form.
    """
    if text is None:
        return ()
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(
                "node numbers cannot be read",
                [Problem(option, repr(text), "allowed: numbers and ranges, as in 0,2,5-7")],
            )
        wrong = ""
        if max(len(first), len(last)) > _DIGITS:
            wrong = f"allowed: numbers of up to {_DIGITS} digits"
        else:
            low, high = int(first), int(last) if dash else int(first)
            if high < low:
                wrong = "allowed: the smaller number first"
            elif high - low > _RANGE:
                wrong = f"allowed: up to {_RANGE} numbers in a range"
        if wrong:
            shown = part if len(part) <= 40 else f"{part[:37]}..."
            raise UsageError("node numbers cannot be read", [Problem(option, repr(shown), wrong)])
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def refuse_auto_elsewhere(place: Runtime) -> None:
    """Raise if the time scale ``auto`` is asked for where it cannot be found.

    Raises: UsageError: ``place`` is not this machine.
    """
    if not place.on_this_machine:
        raise UsageError(
            "a time scale is found by itself on this machine only",
            [Problem("--time-scale", AUTO, "a number, as in --time-scale 2")],
        )
