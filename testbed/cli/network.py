"""Testbeds and their processes: ps, status, nodes, logs, kill."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from testbed.api import home, places
from testbed.api.places import runtime
from testbed.api.running import client_of
from testbed.cli import console
from testbed.cli.options import Json, Name
from testbed.errors import Problem, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.rpc.operator import NodeStatus, Status
    from testbed.runtime.base import Runtime

LIST_PATIENCE_S = 3.0
REMOVE_IDLE = "to remove it: testbed teardown --all"
CONDITION_STYLES = {
    "healthy": "green",
    "starting": "yellow",
    "suspect": "yellow",
    "unreachable": "bold red",
    "dead": "bold red",
}


def with_name(command: str, name: str) -> str:
    """Return ``command`` for the testbed ``name``, as one would type it."""
    return command if name == "default" else f"{command} --name {name}"


Watch: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--watch",
        "-w",
        help="Show it again every second, until Ctrl-C; with --json one document per line.",
    ),
]


def _shown(draw: Callable[[], None], watch: bool) -> None:
    if not watch:
        draw()
        return
    # What to do next is said to those who have seen a result, not with each frame.
    console.voice.quiet = True
    console.watch(draw)


def ps(watch: Watch = False, as_json: Json = False) -> None:
    """List all testbeds of this home with their states."""
    _shown(lambda: _ps(as_json, line=watch), watch)


def _ps(as_json: bool, *, line: bool) -> None:
    documents = []
    for place in _all_runtimes():
        documents += [_in_list(place, name) for name in _names_of(place)]
        for idle in _idle_of(place):
            console.warn(f"{idle} is there, and no testbed is on it; {REMOVE_IDLE}")
    if as_json:
        console.emit(documents, line=line)
        return
    if not documents:
        console.note(f"no testbed is up in {home.home()}")
        console.next_command("testbed up quickstart")
        return
    table = console.Rows(["NAME", "STATE", "SCENARIO", ">HEALTHY", "RUN", "SINCE"])
    styles = {"up": "green", "degraded": "yellow"}
    for each in documents:
        table.add(
            console.mark(each["name"], "cyan"),
            console.mark(each["state"], styles.get(each["state"], "red")),
            console.plain(each["scenario"]) if each["scenario"] else None,
            _healthy(each["healthy"], each["nodes"]),
            each["run"],
            (each["started"] or "")[:19].replace("T", " ") or None,
        )
    console.show(table)
    for each in documents:
        if each["reason"]:
            console.warn(each["reason"])
    console.next_command(with_name("testbed status", documents[0]["name"]))


def _healthy(healthy: int | None, nodes: int | None) -> str | None:
    """Return how many nodes are healthy, as far as it is known."""
    if nodes is None:
        return None
    return f"{'?' if healthy is None else healthy}/{nodes}"


def _all_runtimes() -> Iterator[Runtime]:
    """Yield the runtimes to ask; one that is away, or cannot be loaded, keeps no other waiting."""
    if home.controller():
        yield runtime()
        return
    for each in places.all_places():
        try:
            yield places.open_place(each, patience_s=LIST_PATIENCE_S)
        except TestbedError as error:
            console.warn(str(error))


def _names_of(place: Runtime) -> tuple[str, ...]:
    """Return its testbeds; none, with a warning, if it cannot be asked."""
    try:
        return place.names()
    except TestbedError as error:
        console.warn(str(error))
        return ()


def _idle_of(place: Runtime) -> tuple[str, ...]:
    with contextlib.suppress(TestbedError):
        # One that cannot be asked has said so where its testbeds were asked for.
        return place.idle()
    return ()


def _in_list(place: Runtime, name: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "state": "broken",
        "scenario": None,
        "nodes": None,
        "healthy": None,
        "run": None,
        "started": None,
        "reason": "",
    }
    try:
        testbed = place.find(name)
        document.update(scenario=testbed.scenario, nodes=testbed.nodes)
        with client_of(testbed, timeout=3.0) as client:
            status = client.status()
    except TestbedError as error:
        return {**document, "reason": str(error)}
    healthy = sum(node.condition == "healthy" for node in status.nodes)
    run = status.run.progress if status.run is not None else None
    document.update(
        state="up" if status.healthy else "degraded",
        healthy=healthy,
        run=f"{run.run} ({run.state})" if run is not None else None,
        started=status.started,
    )
    return document


def status(name: Name = "default", watch: Watch = False, as_json: Json = False) -> None:
    """Show a testbed: its controller, its run, and the nodes that are not healthy."""
    _shown(lambda: _show_status(name, as_json, line=watch), watch)


def _show_status(name: str, as_json: bool, *, line: bool) -> None:
    place = runtime(name)
    found = _status(name, place)
    cluster = place.on_cluster
    where = None if cluster is None else cluster.where(name)
    if as_json:
        document = json.loads(found.to_json())
        console.emit({**document, **({"cluster": where} if where else {})}, line=line)
        return
    healthy = sum(node.condition == "healthy" for node in found.nodes)
    style = "green" if found.healthy else "bold red"
    facts = console.Rows(["TESTBED", "~" + console.mark(found.testbed, "cyan")])
    facts.add("scenario", console.plain(f"{found.scenario} [{found.scenario_hash[:12]}]"))
    if where is not None:
        facts.add("cluster", console.plain(where))
    facts.add("controller", f"{found.address}, process {found.pid}, since {found.started[:19]}")
    facts.add("task log", console.plain(found.store))
    if found.policy:
        facts.add("policy", console.plain(found.policy))
    count = console.mark(f"{healthy} of {len(found.nodes)} healthy", style)
    if absent := _absent(found):
        which = ", ".join(map(str, absent))
        count += console.mark(f"; out of the run until its end: node {which}", "yellow")
    facts.add("nodes", count)
    for node in found.nodes:
        if node.condition != "healthy":
            told = f"{node.condition}: {node.reason}" if node.reason else node.condition
            facts.add(f"  node {node.node}", console.mark(told, CONDITION_STYLES[node.condition]))
    if fronts := [node for node in found.nodes if node.http is not None]:
        _add_fronts(facts, fronts)
        if cluster is not None:
            # Addresses of pods are known inside the cluster only.
            way = cluster.way_to_front(name, fronts[0].node)
            facts.add("  from here", console.plain(f"{way} (then http://127.0.0.1:8000/)"))
    _add_run(facts, found)
    console.show(facts)
    progress = found.run.progress if found.run is not None else None
    running = progress is not None and progress.state == "running"
    ill = [node.node for node in found.nodes if node.condition != "healthy"]
    if ill and not running:
        useful = (f"testbed logs {ill[0]}", "testbed teardown")
    else:
        first = "testbed run"
        if progress is not None and running:
            from testbed.cli.progress import other_scheduler

            first = f"testbed scheduler set {other_scheduler(progress)}"
        useful = (first, "testbed nodes")
    console.next_command(*(with_name(each, name) for each in useful))


FRONTS_SHOWN: Final = 20
"""Nodes whose HTTP addresses ``status`` shows; ``nodes`` shows all."""


def _add_fronts(facts: console.Rows, fronts: Sequence[NodeStatus]) -> None:
    """Show where these nodes take requests of users."""
    for node in fronts[:FRONTS_SHOWN]:
        facts.add(f"  front {node.node}", f"http://{node.http}/")
    if len(fronts) > FRONTS_SHOWN:
        facts.add("", f"{len(fronts) - FRONTS_SHOWN} more: testbed nodes")


def _absent(found: Status) -> list[int]:
    """Return the nodes that are healthy again and take no part in the run in progress."""
    if found.run is None or found.run.progress.state != "running":
        return []
    healthy = {node.node for node in found.nodes if node.condition == "healthy"}
    return sorted(healthy & set(found.run.progress.dead_nodes))


def _add_run(facts: console.Rows, found: Status) -> None:
    from testbed.cli.progress import (
        latencies_of,
        latency_line,
        outcome_line,
        percent,
        share_of,
        title_of,
    )
    from testbed.cli.results import STATE_STYLES

    if found.run is None:
        facts.add("run", "none yet")
        return
    progress = found.run.progress
    state = console.mark(progress.state, STATE_STYLES.get(progress.state, "default"))
    facts.add("run", f"{progress.run} {state}, scheduler {console.plain(progress.scheduler)}")
    facts.add("  episodes", f"{progress.completed} of {progress.episodes} over")
    if progress.ended:
        good = progress.outcomes.get(progress.success, 0)
        share = percent(share_of(progress.objective, good, progress.ended))
        facts.add(
            f"  {title_of(progress.objective)}", f"{share} of {progress.ended} {progress.work}"
        )
        facts.add("  outcomes", outcome_line(progress.outcomes))
    if (latencies := latencies_of(progress)) is not None:
        facts.add("  latency", latency_line(latencies))
    reasons = (
        *(progress.reason, *progress.code_failures, *progress.invalid_because),
        *progress.absences,
    )
    for reason in dict.fromkeys(reasons):
        if reason:
            facts.add("", console.mark(reason, "yellow"))
    for line in found.run.faults:
        facts.add("  fault", console.plain(line))
    if found.run.faults:
        facts.add("", "faults are part of the experiment: by themselves they degrade no run")
    for change in found.run.changes:
        at = f"episode {change.episode}, slot {change.slot}"
        reason = change.reason.partition("\n")[0].partition("; ")[0]
        told = "" if change.accepted else console.mark(f" refused: {reason}", "red")
        who = "all nodes" if not change.nodes else f"nodes {', '.join(map(str, change.nodes))}"
        facts.add("  changed", f"{at}: {console.plain(change.scheduler)} on {who}{told}")


def nodes(name: Name = "default", watch: Watch = False, as_json: Json = False) -> None:
    """Show every node: health, scheduler, queue, memory, processor time, timer lateness."""
    _shown(lambda: _show_nodes(name, as_json, line=watch), watch)


def _show_nodes(name: str, as_json: bool, *, line: bool) -> None:
    found = _status(name)
    if as_json:
        console.emit([asdict(node) for node in found.nodes], line=line)
        return
    fronts = any(node.http is not None for node in found.nodes)
    table = console.Rows(
        [
            *(">NODE", "STATE", "SCHEDULER", ">QUEUE", ">BACKLOG", ">MEMORY", ">CPU", ">LATE"),
            ">PID",
            *(["HTTP"] if fronts else []),
        ]
    )
    for node in found.nodes:
        table.add(*_node_row(node), *([node.http] if fronts else []))
    console.show(table)
    ill = [node for node in found.nodes if node.condition != "healthy"]
    for node in ill:
        if node.reason:
            console.warn(f"node {node.node}: {node.reason}")
    console.next_command(with_name(f"testbed logs {ill[0].node if ill else 0}", name))


def _node_row(node: NodeStatus) -> list[str | int | None]:
    def unit(value: int | None, divisor: float, text: str) -> str | None:
        return None if value is None else f"{value / divisor:.{0 if divisor > 1e3 else 1}f} {text}"

    return [
        node.node,
        console.mark(node.condition, CONDITION_STYLES[node.condition]),
        None if node.scheduler is None else console.plain(node.scheduler),
        node.queue_length,
        unit(node.backlog, 1e3, "ms"),
        unit(node.resident_bytes, 1e6, "MB"),
        None if node.cpu is None else f"{node.cpu / 1e6:.1f} s",
        unit(node.lag, 1e3, "ms"),
        node.pid,
    ]


def _status(name: str, place: Runtime | None = None) -> Status:
    with client_of((place or runtime(name)).find(name)) as client:
        return client.status()


def logs(
    process: Annotated[
        str, typer.Argument(metavar="[NODE|controller]", help="Number of a node, or `controller`.")
    ] = "controller",
    tail: Annotated[
        int | None,
        typer.Option("--tail", metavar="N", min=0, help="Number of lines to show, the last ones."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Also print new lines, until Ctrl-C.")
    ] = False,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Print what a process of a testbed has logged; also after the testbed is down."""
    from testbed.runtime.base import node_process

    number = process.removeprefix("node-")
    wanted = node_process(int(number)) if number.isdecimal() else process
    if as_json:
        if follow:
            raise UsageError("--json prints one document, and --follow has no end; choose one")
        lines = list(runtime(name).logs(name, wanted, lines=tail))
        console.emit({"testbed": name, "process": wanted, "lines": lines})
        return
    for line in runtime(name).logs(name, wanted, lines=tail, follow=follow):
        console.out(line)
        if follow:
            console.flush()


def kill(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Number of the node.")],
    name: Name = "default",
) -> None:
    """End a node's process at once, as a crash would; its tasks are lost, the run goes on.

    On a cluster its pod is deleted, and another one takes its place for the next run.
    """
    number = node.removeprefix("node-")
    if not number.isdecimal():
        raise UsageError(
            "unknown node", [Problem("NODE", repr(node), "a number, as in 3 or node-3")]
        )
    stopped = runtime(name).kill(name, int(number))
    process = "" if stopped.pid is None else f", process {stopped.pid}"
    console.out(f"killed {stopped.name}{process}")
    console.next_command(with_name("testbed status", name))
