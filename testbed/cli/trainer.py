"""``trainer``: learning as a Job on the cluster of a testbed, instead of on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from testbed.api import home, places
from testbed.cli import console
from testbed.cli.commands import COMMANDS
from testbed.cli.network import with_name
from testbed.cli.options import Json, Name
from testbed.errors import Problem, UsageError
from testbed.runtime.base import RESULTS_FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.runtime.base import OnCluster, TrainerCommand

group = typer.Typer(no_args_is_help=True, help="Learn on the cluster of a testbed, as a Job.")


@group.command()
def start(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTION...]",
            help="Options of `testbed o2o`, after --, as in: -- --online-episodes 100; with "
            "--learn those of `testbed learn`, as in: -- --episodes 640",
        ),
    ] = None,
    learn: Annotated[
        bool, typer.Option("--learn", help="Run `testbed learn` instead of `testbed o2o`.")
    ] = False,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Run `testbed o2o` or `testbed learn` as a Job on the testbed's cluster.

    It does not depend on this machine. Its policies are in the testbed's artifact store, its report
    in the Job's volume; its log ends with the result as JSON. Started again, it continues; with
    `-- --anew` it starts over and discards what is in its volume.
    """
    command: TrainerCommand = "learn" if learn else "o2o"
    _check(command, options or ())
    job = _on_cluster(name).start_trainer(name, options or (), report=console.note, command=command)
    if as_json:
        told = {"testbed": name, "job": job, "command": command, "options": list(options or ())}
        console.emit(told)
    else:
        console.out(f"the trainer of '{name}' is at work")
    console.next_command(
        with_name("testbed logs trainer --follow", name),
        with_name("testbed trainer fetch", name),
        with_name("testbed trainer stop", name),
    )


@group.command()
def stop(name: Name = "default", as_json: Json = False) -> None:
    """Stop the trainer; its results are kept. No error if there is none."""
    stopped = _on_cluster(name).stop_trainer(name)
    if as_json:
        console.emit({"testbed": name, "stopped": stopped})
    else:
        console.out(f"the trainer of '{name}' " + ("has ended" if stopped else "was not running"))
    console.next_command(
        with_name("testbed trainer start", name), with_name("testbed trainer fetch", name)
    )


@group.command()
def fetch(
    name: Name = "default",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for report, figures and policies. Default: `trainer` in the testbed's "
            "folder of the home, where `teardown` keeps them too.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the report, its figures and the policies from the trainer's volume."""
    folder = out or home.home() / name / RESULTS_FOLDER
    found = _on_cluster(name).fetch_results(name, folder, report=console.note)
    if as_json:
        console.emit({"testbed": name, "files": [str(each) for each in found]})
        return
    for each in found:
        console.out(str(each))


_OWN: Final = {
    "scenario_option": ("--scenario", "the scenario is that of the testbed"),
    "simulate": ("--simulate", "the trainer uses the nodes; to simulate: testbed {} --simulate"),
    "out": ("--out", "results go into the trainer's volume; copy them: testbed trainer fetch"),
}
"""Options that a Job has already, by parameter; {} is the command."""

_OWN_OF_LEARN: Final = {
    "scenario": ("SCENARIO", "the scenario is that of the testbed"),
    "settings": ("--set", "the scenario is that of the testbed"),
}
"""Further ones of `testbed learn`, which are for the simulator only."""


def _check(command: TrainerCommand, options: Sequence[str]) -> None:
    """Return if ``command`` takes these options; else the command ends as that one would.

    Raises: UsageError: options that a Job has already.
    """
    (entry,) = (each for each in COMMANDS if each.name == command)
    first = ["SCENARIO"] if command == "o2o" else []
    context = entry.load().make_context(f"testbed {command}", [*first, *options])
    refused = _OWN if command == "o2o" else {**_OWN, **_OWN_OF_LEARN}
    problems = [
        Problem(option, "is given", why.format(command))
        for parameter, (option, why) in refused.items()
        if context.params.get(parameter)
    ]
    if problems:
        raise UsageError("the trainer cannot be given these options", problems)


def _on_cluster(name: str) -> OnCluster:
    found = places.runtime(name).on_cluster
    if found is None:
        raise UsageError(
            f"testbed '{name}' runs as processes of this machine",
            [
                Problem(
                    "trainer",
                    "is for testbeds on a cluster",
                    f"testbed o2o SCENARIO --name {name}, or testbed learn --name {name}",
                )
            ],
        )
    return found
