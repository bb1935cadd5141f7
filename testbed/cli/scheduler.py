"""``scheduler``: which there are, and which one decides on a running testbed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from testbed.api.places import runtime
from testbed.api.running import set_scheduler
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import Json, Name, SchedulerOptions, key_values, node_numbers, scheduler_of
from testbed.schedulers import registry
from testbed.schedulers.catalogue import SIMULATOR_ONLY
from testbed.sim import simulator

group = typer.Typer(no_args_is_help=True, help="List schedulers, or change the one that decides.")


@group.command("list")
def list_(as_json: Json = False) -> None:
    """List all schedulers known by name, those of other installed packages included."""

    entries: list[dict[str, Any]] = []
    for name in simulator.names():
        simulator_only = name in SIMULATOR_ONLY
        # Of another package: its problem does not keep the others from being listed.
        problem = "" if simulator_only else registry.problem_of(name)
        declared = None
        if not simulator_only and not problem:
            declared = registry.declared_options(registry.find(name))
        entries.append(
            {
                "name": name,
                "runs": "simulator" if simulator_only else "nodes and simulator",
                "description": "" if problem else simulator.describe(name),
                "options": {str(key): str(about) for key, about in (declared or {}).items()},
                "problem": problem,
            }
        )
    if as_json:
        console.emit(entries)
        return
    table = console.Rows(["NAME", "RUNS ON", "~DESCRIPTION"])
    for entry in entries:
        options = ", ".join(f"{key} ({about})" for key, about in entry["options"].items())
        table.add(
            console.mark(entry["name"], "cyan"),
            "cannot be loaded" if entry["problem"] else entry["runs"],
            console.plain(
                entry["problem"]
                or entry["description"] + (f" Options: {options}" if options else "")
            ),
        )
    console.show(table)
    console.next_command("testbed run --scheduler NAME", "testbed sim quickstart --scheduler NAME")


@group.command("set")
def set_(
    scheduler: Annotated[
        str,
        typer.Argument(
            metavar="SCHEDULER",
            help="Name, or module:Class of your own; with options of its own: NAME,KEY=VALUE.",
        ),
    ],
    nodes: Annotated[
        str | None,
        typer.Option("--nodes", metavar="0,2,5-7", help="Only these nodes. Default: all."),
    ] = None,
    options: SchedulerOptions = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Change the scheduler of the current run on all or some nodes; all of them change or none."""
    spec, _ = scheduler_of(scheduler, key_values(options, "--option"), "SCHEDULER")
    answers = set_scheduler(
        runtime(name).find(name), spec.name, node_numbers(nodes), dict(spec.options)
    )
    if as_json:
        console.emit([asdict(answer) for answer in answers])
        return
    who = ", ".join(str(answer.node) for answer in answers)
    console.out(f"{scheduler} now decides on nodes {who}")
    console.next_command(with_name("testbed status", name))
