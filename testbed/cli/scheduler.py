"""``scheduler``: which there are, and which one decides on a running testbed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from testbed.api.places import runtime
from testbed.api.running import set_scheduler
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import Json, Name, SchedulerOptions, key_values, node_numbers, scheduler_of
from testbed.model.hook import PLACE
from testbed.model.hooks import HOOKS
from testbed.schedulers import registry
from testbed.schedulers.catalogue import SIMULATOR_ONLY
from testbed.sim import simulator

group = typer.Typer(no_args_is_help=True, help="List schedulers, or change the one that decides.")


@group.command("list")
def list_(as_json: Json = False) -> None:
    """List all schedulers known by name, those of other installed packages included.

    Those of the hook place decide where a task is executed, those of the hook route (routers)
    where requests go.
    """
    entries = []
    for hook in HOOKS:
        entries += [_of_nodes(name, hook) for name in registry.names(hook)]
        if hook == PLACE:
            entries += [_of_simulator(name) for name in SIMULATOR_ONLY]
    if as_json:
        console.emit(entries)
        return
    table = console.Rows(["NAME", "HOOK", "RUNS ON", "~DESCRIPTION"])
    for entry in entries:
        options = ", ".join(f"{key} ({about})" for key, about in entry["options"].items())
        table.add(
            console.mark(entry["name"], "cyan"),
            entry["hook"],
            "cannot be loaded" if entry["problem"] else entry["runs"],
            console.plain(
                entry["problem"]
                or entry["description"] + (f" Options: {options}" if options else "")
            ),
        )
    console.show(table)
    console.next_command("testbed run --scheduler NAME", "testbed sim quickstart --scheduler NAME")


def _of_simulator(name: str) -> dict[str, Any]:
    return _entry(name, PLACE, "simulator", simulator.describe(name))


def _of_nodes(name: str, hook: str) -> dict[str, Any]:
    # Of another package: its problem does not keep the others from being listed.
    problem = registry.problem_of(name, hook)
    if problem:
        return _entry(name, hook, "nodes and simulator", "", problem=problem)
    declared = registry.declared_options(registry.find(name, hook))
    told = registry.describe(name, hook)
    return _entry(name, hook, "nodes and simulator", told, declared)


def _entry(
    name: str,
    hook: str,
    runs: str,
    description: str,
    options: Mapping[str, str] | None = None,
    problem: str = "",
) -> dict[str, Any]:
    return {
        "name": name,
        "hook": hook,
        "runs": runs,
        "description": description,
        "options": {str(key): str(about) for key, about in (options or {}).items()},
        "problem": problem,
    }


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
