"""What has happened between two states of a testbed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.rpc.operator import FaultStatus, LiveState, RunStatus, SchedulerChange
from testbed.ui.live.snapshot import Event


def events_between(before: LiveState | None, after: LiveState, at: float) -> tuple[Event, ...]:
    """Return the events between two states, in a sensible order; all happen at ``at``.

    Without a state ``before``, only what is wrong now is told.
    """
    return tuple(_events(before, after, at))


def _events(before: LiveState | None, after: LiveState, at: float) -> Iterator[Event]:
    yield from _of_nodes(before, after, at)
    then = None if before is None else before.run
    if after.run is not None:
        same = then is not None and then.progress.run == after.run.progress.run
        yield from _of_run(then if same else None, after.run, at, seen=before is not None)
    if before is None:
        return
    yield from _of_faults(before.faults.faults, after.faults.faults, at)
    if after.policy != before.policy:
        text = f"policy {after.policy} is deployed" if after.policy else "no policy is deployed"
        yield Event(at, "policy", text)


def _of_nodes(before: LiveState | None, after: LiveState, at: float) -> Iterator[Event]:
    for number, node in enumerate(after.nodes):
        known = None if before is None or number >= len(before.nodes) else before.nodes[number]
        was = "healthy" if known is None else known.condition
        if node.condition == was:
            continue
        bad = node.condition in {"dead", "unreachable"}
        why = f": {node.reason}" if node.reason and node.condition != "healthy" else ""
        yield Event(at, "node", f"node {number} is {node.condition}{why}", bad)


def _of_run(
    before: RunStatus | None, after: RunStatus, at: float, *, seen: bool
) -> Iterator[Event]:
    progress = after.progress
    running = progress.state == "running"
    if before is None and (seen or running):
        label = f" ({after.label})" if after.label else ""
        began = "begins" if seen else "is in progress"
        text = f"run {progress.run}{label} {began} under {progress.scheduler or 'no scheduler'}"
        yield Event(at, "run", text)
    known = 0 if before is None else len(before.changes)
    for change in after.changes[known:] if running or before is not None else ():
        yield _of_change(change, at)
    for told in progress.code_failures[
        len(() if before is None else before.progress.code_failures) :
    ]:
        yield Event(at, "problem", told, bad=True)
    if before is not None and before.progress.state == "running" and not running:
        yield _of_end(after, at)


def _of_change(change: SchedulerChange, at: float) -> Event:
    who = f"{len(change.nodes)} nodes" if len(change.nodes) > 6 else _named(change.nodes)
    where = f"episode {change.episode}, slot {change.slot}"
    if change.accepted:
        return Event(at, "scheduler", f"{change.scheduler} decides on {who} ({where})")
    reason = f"{change.scheduler} on {who} was refused ({where}): {change.reason}"
    return Event(at, "scheduler", reason, bad=True)


def _of_end(after: RunStatus, at: float) -> Event:
    progress = after.progress
    reasons = [progress.reason, *progress.invalid_because] if progress.state != "completed" else []
    why = "; ".join(reason for reason in reasons if reason)
    text = f"run {progress.run} is {progress.state}{f': {why}' if why else ''}"
    return Event(at, "run", text, bad=progress.state not in {"completed", "stopped"})


def _of_faults(
    before: Sequence[FaultStatus], after: Sequence[FaultStatus], at: float
) -> Iterator[Event]:
    states = {each.id: each.state for each in before}
    for fault in after:
        if fault.state == states.get(fault.id):
            continue
        if fault.state == "active":
            yield Event(at, "fault", f"fault {fault.id} begins: {fault.what}")
        elif fault.state == "over" and states.get(fault.id) == "active":
            yield Event(at, "fault", f"fault {fault.id} is over: {fault.what}")


def _named(nodes: Sequence[int]) -> str:
    return f"node{'' if len(nodes) == 1 else 's'} {', '.join(map(str, nodes))}"
