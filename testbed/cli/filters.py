"""Options that name runs by what they are, and not by their ids."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

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
OfTag: TypeAlias = Annotated[
    str | None, typer.Option("--tag", metavar="TAG", help="Only runs with this tag.")
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="DAY",
        help="Only runs that began on this day (2026-01-31) or later; UTC, as the log has it.",
    ),
]
Until: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="DAY", help="Only runs that began on this day or earlier; UTC."
    ),
]
Search: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--search",
        metavar="TEXT",
        help="Only runs with this text in their id, scenario, scheduler, testbed, label, tags or "
        "note, in upper or lower case.",
    ),
]
