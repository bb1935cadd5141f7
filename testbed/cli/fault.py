"""``fault``: kinds of faults, the faults of the run in progress, and faults by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.api.faulting import fault_of, refuse_wrong
from testbed.api.places import runtime
from testbed.api.running import client_of
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import Json, Name, node_numbers
from testbed.errors import Problem
from testbed.model.faults import KINDS

if TYPE_CHECKING:
    from testbed.rpc.operator import FaultList, OperatorClient

group = typer.Typer(
    no_args_is_help=True,
    help="Inject faults into the run in progress, list them, and end them. Faults that are part of "
    "an experiment stand in its scenario (docs/faults.md).",
)

_KIND = typer.Argument(metavar="KIND", help="Kind of fault; `testbed fault kinds` lists them.")


@group.command()
def kinds(as_json: Json = False) -> None:
    """List the kinds of faults with what each acts on and needs."""

    entries = [
        {
            "kind": kind.name,
            "acts_on": kind.target,
            "takes": list(kind.parameters),
            "modes": list(kind.modes),
            "description": kind.summary,
        }
        for kind in KINDS.values()
    ]
    if as_json:
        console.emit(entries)
        return
    table = console.Rows(["KIND", "ACTS ON", "NEEDS", "~DESCRIPTION"])
    options = {"factor": "--factor", "failureRate": "--failure-rate", "mode": "--mode"}
    for kind in KINDS.values():
        table.add(
            console.mark(kind.name, "cyan"),
            "--nodes" if kind.target == "nodes" else "--from, --to",
            ", ".join(options[each] for each in kind.parameters) or None,
            kind.summary,
        )
    console.show(table)
    console.next_command("testbed fault inject slow-node --nodes 0 --factor 0.2 --for 5s")


@group.command()
def inject(
    kind: Annotated[str, _KIND],
    lasts: Annotated[
        str,
        typer.Option("--for", metavar="TIME", help="Duration in emulated time, such as 5s."),
    ],
    nodes: Annotated[
        str | None, typer.Option("--nodes", metavar="0,2,5-7", help="Nodes it acts on, or `all`.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="0,1", help="Links it acts on: from these nodes, or `all`."),
    ] = None,
    destination: Annotated[
        str | None, typer.Option("--to", metavar="2,3", help="To these nodes, or `all`.")
    ] = None,
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="Also the links in the opposite direction.")
    ] = False,
    factor: Annotated[
        str | None,
        typer.Option(
            "--factor", metavar="X", help="Factor by which the rate or the arrivals are multiplied."
        ),
    ] = None,
    failure_rate: Annotated[
        str | None,
        typer.Option("--failure-rate", metavar="X", help="Additional failures per second."),
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="`killed` or `hung`, of node-down.")
    ] = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Inject a fault into the run in progress, from now on for a given time.

    It ends when its time is over, with `testbed fault clear`, and with the run in any case.
    """

    entry = {
        "kind": kind,
        "for": lasts,
        "nodes": _places(nodes, "--nodes"),
        "from": _places(source, "--from"),
        "to": _places(destination, "--to"),
        "bothWays": both_ways,
        "factor": factor,
        "failureRate": failure_rate,
        "mode": mode,
    }
    given = {key: value for key, value in entry.items() if value is not None}
    # Before any request, so that mistakes are reported even where no testbed is up.
    refuse_wrong(given, None, _as_option)
    found = _done(
        name,
        lambda client: client.inject_fault(fault_of(given, len(client.status().nodes), _as_option)),
        as_json,
    )
    if found is None:
        return
    for each in found.faults:
        if each.id in found.changed:
            console.out(
                f"{each.id}: {each.what}, for {(each.end - each.begin) / 1e6:g} s from "
                f"{each.begin / 1e6:.2f} s of episode {found.episode} on"
            )
    console.next_command(
        with_name("testbed fault list", name), with_name("testbed fault clear", name)
    )


@group.command()
def clear(name: Name = "default", as_json: Json = False) -> None:
    """Release all faults that were injected by hand; those of the scenario stay."""
    found = _done(name, lambda client: client.clear_faults(), as_json)
    if found is None:
        return
    count = len(found.changed)
    console.out(
        f"released {count} fault{'' if count == 1 else 's'}" if count else "no fault was active"
    )


@group.command("list")
def list_(name: Name = "default", as_json: Json = False) -> None:
    """Show the faults of the current episode: those of the scenario and those by hand."""
    found = _done(name, lambda client: client.list_faults(), as_json)
    if found is not None:
        _show(found)


def _done(
    name: str, call: Callable[[OperatorClient], FaultList], as_json: bool
) -> FaultList | None:
    """Return what ``call`` answers on the testbed ``name``; None if that was printed as JSON."""

    with client_of(runtime(name).find(name)) as client:
        found = call(client)
    if not as_json:
        return found
    console.emit(asdict(found))
    return None


def _show(found: FaultList) -> None:
    if not found.faults:
        where = f"episode {found.episode} of run {found.run} has" if found.run else "no run, so"
        console.out(f"{where} no faults")
        console.next_command("testbed fault kinds")
        return
    console.note(f"run {found.run}, episode {found.episode}, at {found.now / 1e6:.2f} s")
    table = console.Rows(["ID", "STATE", ">FROM", ">TO", "~WHAT"])
    styles = {"active": "yellow", "over": "default", "to come": "default"}
    for fault in found.faults:
        table.add(
            fault.id,
            console.mark(fault.state, styles[fault.state]),
            f"{fault.begin / 1e6:.2f} s",
            f"{fault.end / 1e6:.2f} s",
            console.plain(fault.what),
        )
    console.show(table)


def _places(text: str | None, option: str) -> list[int] | str | None:

    if text is None or text == "all":
        return text
    return list(node_numbers(text, option))


def _as_option(problem: Problem) -> Problem:
    option = {
        "bothWays": "--both-ways",
        "failureRate": "--failure-rate",
        "kind": "KIND",
    }.get(problem.path, f"--{problem.path}")
    return Problem(option, problem.seen, problem.allowed)
