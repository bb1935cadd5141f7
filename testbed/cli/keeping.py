"""``runs tag``, ``runs note``, ``runs delete``: what is kept of past runs, and said of them.

They are commands of the group ``runs``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from testbed.cli import console
from testbed.cli.options import Json, Name, Storage, from_log
from testbed.errors import Problem, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.storage.tasklog import Run

RunId: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id, a unique prefix, or `latest`.")
]


def tag(
    run: RunId,
    tags: Annotated[
        list[str],
        typer.Argument(metavar="TAG...", help="Tags: up to 64 characters, no spaces or commas."),
    ],
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove these tags instead of adding them.")
    ] = False,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Add tags to a run, or remove some, and print those it has then."""
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_run

    with open_log(storage, name) as log:
        found = find_run(log, run, name).id
        now = log.tag_run(found, (), tags) if remove else log.tag_run(found, tags)
    if as_json:
        console.emit({"run": found, "tags": list(now)})
        return
    console.out(", ".join(now) or "no tags")
    if now:
        console.next_command(from_log(f"testbed runs list --tag {now[0]}", storage, name))


def note(
    run: RunId,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEXT]",
            help="The note, in place of an earlier one; an empty text removes it. Without it the "
            "note is printed.",
        ),
    ] = None,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write a note about a run, or print the one it has."""
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_run

    with open_log(storage, name) as log:
        found = find_run(log, run, name)
        if text is not None:
            log.note_run(found.id, text)
            found = log.run(found.id)
    if as_json:
        console.emit({"run": found.id, "note": found.note})
        return
    console.out(found.note or "no note")


def delete(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run ids, unique prefixes, or `latest`."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Delete runs from the task log, with their tasks or requests and all else logged of them.

    Asks first. A run that goes on is not deleted. Data sets and policies that were made of a run
    stay; a replay of it stays too, and can then no longer be compared with it.
    """
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_run

    with open_log(storage, name) as log:
        found = list({each.id: each for each in (find_run(log, id, name) for id in runs)}.values())
        if not yes and not _confirmed(found):
            console.note("nothing was deleted")
            raise typer.Exit(1)
        for each in found:
            log.delete_run(each.id)
            console.note(f"deleted run {each.id}")
    if as_json:
        console.emit({"deleted": [each.id for each in found]})


def _confirmed(runs: Sequence[Run]) -> bool:
    """Ask whether runs are to be deleted. Raises: UsageError: nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was deleted",
            [Problem("--yes", "not given", "add it where no terminal can be asked")],
        )
    for run in runs:
        info = run.info
        label = f", {info.label}" if info.label else ""
        console.warn(f"{run.id}: {info.scheduler}, {info.name}, {run.state.value}{label}")
    question = f"Delete {counted(len(runs), 'run')} and all that the log has of {_them(runs)}?"
    return typer.confirm(question, err=True)


def _them(runs: Sequence[Run]) -> str:
    return "it" if len(runs) == 1 else "them"
