"""``trainer``: learning as a Job on the cluster of a testbed, instead of on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from testbed.api import places
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import Json, Name
from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    from testbed.runtime.base import OnCluster

group = typer.Typer(no_args_is_help=True, help="Learn on the cluster of a testbed, as a Job.")


@group.command()
def start(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTION...]",
            help="Options of `testbed o2o`, after --, as in: -- --online-episodes 100",
        ),
    ] = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Run `testbed o2o` as a Job on the testbed's cluster.

    It does not depend on this machine. Its policies are in the testbed's artifact store, its report
    in the Job's volume; its log ends with the result as JSON. Started again, it continues.
    """
    job = _on_cluster(name).start_trainer(name, options or (), report=console.note)
    if as_json:
        console.emit({"testbed": name, "job": job, "options": list(options or ())})
    else:
        console.out(f"the trainer of '{name}' has started")
    console.next_command(
        with_name("testbed logs trainer --follow", name), with_name("testbed trainer stop", name)
    )


@group.command()
def stop(name: Name = "default", as_json: Json = False) -> None:
    """Stop the trainer; its results are kept. No error if there is none."""
    stopped = _on_cluster(name).stop_trainer(name)
    if as_json:
        console.emit({"testbed": name, "stopped": stopped})
    else:
        console.out(f"the trainer of '{name}' " + ("has ended" if stopped else "was not running"))
    console.next_command(with_name("testbed trainer start", name))


def _on_cluster(name: str) -> OnCluster:
    found = places.runtime(name).on_cluster
    if found is None:
        raise UsageError(
            f"testbed '{name}' runs as processes of this machine",
            [
                Problem(
                    "trainer", "is for testbeds on a cluster", f"testbed o2o SCENARIO --name {name}"
                )
            ],
        )
    return found
