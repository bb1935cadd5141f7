"""Testbeds and their processes: up, ps, status, nodes, logs, kill, teardown."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.cli import console, home
from testbed.cli.options import Json, Name, ScenarioName, Settings, Storage
from testbed.errors import PrerequisiteMissing, Problem, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.rpc.operator import NodeStatus, OperatorClient, Status
    from testbed.runtime.base import Runtime, Teardown, Testbed

CLIENT_TOKEN_VARIABLE = "TESTBED_TOKEN"
"""Not that of processes: what a shell is given for commands is not what it starts nodes with."""

CONDITION_STYLES = {"healthy": "green", "starting": "yellow", "dead": "bold red"}


def runtime() -> Runtime:
    """The runtime of this command: processes on this machine, or the controller it is told."""
    if address := home.controller():
        from testbed.rpc.token import find_token
        from testbed.runtime.remote import RemoteRuntime

        token = find_token(variable=CLIENT_TOKEN_VARIABLE)
        if not token:
            raise UsageError(
                f"the controller at {address} asks for a token: set {CLIENT_TOKEN_VARIABLE}, or "
                f"{CLIENT_TOKEN_VARIABLE}_FILE"
            )
        store = os.environ.get("TESTBED_STORAGE", "")
        return RemoteRuntime(address, token, store=store, home=home.home())
    from testbed.runtime.local import LocalRuntime

    return LocalRuntime(home.home())


def client_of(testbed: Testbed, *, timeout: float = 10.0) -> OperatorClient:
    """A client for the controller of ``testbed``; each call is given ``timeout`` seconds."""
    from testbed.rpc.operator import OperatorClient

    return OperatorClient(testbed.address, testbed.token, timeout=timeout)


def with_name(command: str, name: str) -> str:
    """``command`` for the testbed ``name``, as one would type it."""
    return command if name == "default" else f"{command} --name {name}"


def up(
    scenario: ScenarioName,
    name: Name = "default",
    settings: Settings = None,
    storage: Storage = None,
) -> None:
    """Bring a network up: a controller and one process per node, until all are healthy."""
    from edgenode.applications import registry as applications
    from testbed.runtime.base import valid_name
    from testbed.scenario.load import dumps, load
    from testbed.scenario.resolve import plan as plan_of
    from testbed.schedulers import registry

    valid_name(name)
    loaded = load(scenario, settings or ())
    plan = plan_of(
        loaded,
        storage_url=home.task_log_url(storage, loaded.storage),
        artifacts_url=home.artifacts_url(None, loaded.artifacts),
    )
    registry.check(plan.scheduler.name, plan.scheduler.options)
    applications.check(plan.application.name)
    place = runtime()
    if lacks := place.check():
        raise PrerequisiteMissing(
            "; ".join(lack.what for lack in lacks), "; ".join(lack.fix for lack in lacks)
        )
    began = time.monotonic()
    console.note(f"bringing up {plan.name} as '{name}'")
    testbed = place.up(plan, name, scenario=dumps(loaded), report=console.note)
    seconds = time.monotonic() - began
    console.show(
        f"{console.mark('up', 'green')}: testbed '{name}', {testbed.nodes} nodes healthy "
        f"after {seconds:.1f} s"
    )
    console.next_command(
        with_name(f"testbed run --scheduler {plan.scheduler.name}", name),
        with_name("testbed status", name),
        with_name("testbed teardown", name),
    )


def ps(as_json: Json = False) -> None:
    """List all testbeds of this home, and how they are."""
    place = runtime()
    documents = [_in_list(place, name) for name in place.names()]
    if as_json:
        console.emit(documents)
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
            None if each["nodes"] is None else f"{each['healthy']}/{each['nodes']}",
            each["run"],
            (each["started"] or "")[:19].replace("T", " ") or None,
        )
    console.show(table)
    for each in documents:
        if each["reason"]:
            console.warn(each["reason"])
    console.next_command(with_name("testbed status", documents[0]["name"]))


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


def status(name: Name = "default", as_json: Json = False) -> None:
    """Show a testbed: its controller, its run, and the nodes that are not healthy."""
    found = _status(name)
    if as_json:
        console.emit(json.loads(found.to_json()))
        return
    healthy = sum(node.condition == "healthy" for node in found.nodes)
    style = "green" if found.healthy else "bold red"
    facts = console.Rows(["TESTBED", "~" + console.mark(found.testbed, "cyan")])
    facts.add("scenario", console.plain(f"{found.scenario} [{found.scenario_hash[:12]}]"))
    facts.add("controller", f"{found.address}, process {found.pid}, since {found.started[:19]}")
    facts.add("task log", console.plain(found.store))
    if found.policy:
        facts.add("policy", console.plain(found.policy))
    facts.add("nodes", console.mark(f"{healthy} of {len(found.nodes)} healthy", style))
    for node in found.nodes:
        if node.condition != "healthy":
            told = f"{node.condition}: {node.reason}" if node.reason else node.condition
            facts.add(f"  node {node.node}", console.mark(told, CONDITION_STYLES[node.condition]))
    _add_run(facts, found)
    console.show(facts)
    running = found.run is not None and found.run.progress.state == "running"
    ill = [node.node for node in found.nodes if node.condition != "healthy"]
    if ill and not running:
        useful = (f"testbed logs {ill[0]}", "testbed teardown")
    else:
        useful = ("testbed scheduler set rda" if running else "testbed run", "testbed nodes")
    console.next_command(*(with_name(each, name) for each in useful))


def _add_run(facts: console.Rows, found: Status) -> None:
    from testbed.cli.progress import outcome_line, percent
    from testbed.cli.results import STATE_STYLES

    if found.run is None:
        facts.add("run", "none yet")
        return
    progress = found.run.progress
    state = console.mark(progress.state, STATE_STYLES.get(progress.state, "default"))
    facts.add("run", f"{progress.run} {state}, scheduler {console.plain(progress.scheduler)}")
    facts.add("  episodes", f"{progress.completed} of {progress.episodes} over")
    if progress.success_rate is not None:
        facts.add("  success", f"{percent(progress.success_rate)} of {progress.ended} tasks")
        facts.add("  outcomes", outcome_line(progress.outcomes))
    for reason in (progress.reason, *progress.invalid_because):
        if reason:
            facts.add("", console.mark(reason, "yellow"))
    for change in found.run.changes:
        at = f"episode {change.episode}, slot {change.slot}"
        reason = change.reason.partition("\n")[0].partition("; ")[0]
        told = "" if change.accepted else console.mark(f" refused: {reason}", "red")
        who = "all nodes" if not change.nodes else f"nodes {', '.join(map(str, change.nodes))}"
        facts.add("  changed", f"{at}: {console.plain(change.scheduler)} on {who}{told}")


def nodes(name: Name = "default", as_json: Json = False) -> None:
    """Show every node: health, scheduler, queue, memory, processor time, timer lateness."""
    found = _status(name)
    if as_json:
        console.emit([asdict(node) for node in found.nodes])
        return
    table = console.Rows(
        [
            *(">NODE", "STATE", "SCHEDULER", ">QUEUE", ">BACKLOG", ">MEMORY", ">CPU", ">LATE"),
            ">PID",
        ]
    )
    for node in found.nodes:
        table.add(*_node_row(node))
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


def _numbered(nodes: list[int]) -> str:
    return f"node{'' if len(nodes) == 1 else 's'} {', '.join(map(str, nodes))}"


def _status(name: str) -> Status:
    with client_of(runtime().find(name)) as client:
        return client.status()


def logs(
    process: Annotated[
        str, typer.Argument(metavar="[NODE|controller]", help="Number of a node, or `controller`.")
    ] = "controller",
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last so many lines.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
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
        lines = list(runtime().logs(name, wanted, lines=tail))
        console.emit({"testbed": name, "process": wanted, "lines": lines})
        return
    for line in runtime().logs(name, wanted, lines=tail, follow=follow):
        console.out(line)
        if follow:
            console.flush()


def kill(
    node: Annotated[int, typer.Argument(metavar="NODE", min=0, help="Number of the node.")],
    name: Name = "default",
) -> None:
    """End a node's process at once, as a crash would; its tasks are lost, the run goes on."""
    stopped = runtime().kill(name, node)
    console.out(f"killed {stopped.name}, process {stopped.pid}")
    console.next_command(with_name("testbed status", name))


def teardown(
    name: Name = "default",
    everything: Annotated[
        bool, typer.Option("--all", help="All testbeds of this home instead of one.")
    ] = False,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Remove the logs of its processes too, and events not yet stored."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a testbed down and prove that nothing of it runs; fine if there is none.

    The task log stays, so that runs can be reported and compared later.
    """
    place = runtime()
    names = place.names() if everything else (name,)
    done = [place.down(each) for each in names]
    for each in done:
        _settle(each)
    if purge:
        done = [_purged(each) for each in done]
    if as_json:
        console.emit([asdict(each) for each in done])
        return
    if not done:
        console.out(f"no testbed is up in {home.home()}")
    for each in done:
        console.out(_in_words(each))
        for process in each.stopped:
            if process.forced:
                console.warn(f"{process.name} (process {process.pid}) had to be killed")
        if each.kept is not None:
            console.note(f"logs are kept in {each.kept}")
    console.next_command("testbed runs list", "testbed compare")


def _in_words(done: Teardown) -> str:
    if not done.stopped:
        return f"testbed '{done.name}': nothing was running"
    return (
        f"testbed '{done.name}' is down: {len(done.stopped)} processes ended "
        f"in {done.seconds:.1f} s, none left"
    )


def _settle(done: Teardown) -> None:
    """Enter the end of a run that its controller, killed, could not enter."""
    from controller.marker import RunMarker
    from testbed.storage.tasklog import open_task_log

    if done.kept is None or done.store is None:
        return
    marker = RunMarker(done.kept)
    if not marker.exists:
        return
    try:
        with open_task_log(done.store, create=False) as log:
            settled = marker.settle(log)
    except TestbedError as error:
        console.warn(f"the task log still calls a run of '{done.name}' running: {error}")
        return
    if settled is not None:
        run, state = settled
        console.warn(f"run {run} was cut short; the task log calls it {state.value}")


def _purged(done: Teardown) -> Teardown:
    import dataclasses
    import shutil

    from testbed.cli.files import cannot_write

    if done.kept is None:
        return done
    try:
        shutil.rmtree(done.kept)
    except OSError as error:
        raise cannot_write(done.kept, error) from error
    return dataclasses.replace(done, kept=None)


def set_scheduler(
    name: str, scheduler: str, nodes: tuple[int, ...], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Change who decides on a running testbed, and say what every node answered.

    Raises: UsageError: a node refused; then nothing has changed.
    """
    with client_of(runtime().find(name)) as client:
        answers = client.change_scheduler(scheduler, nodes=nodes, options=options)
    refusals: dict[str, list[int]] = {}
    for answer in answers:
        if not answer.accepted:
            refusals.setdefault(answer.reason or "refused", []).append(answer.node)
    if refusals:
        raise UsageError(
            "nothing was changed; every node keeps its scheduler",
            [Problem(_numbered(nodes), reason, "") for reason, nodes in refusals.items()],
        )
    return [asdict(answer) for answer in answers]
