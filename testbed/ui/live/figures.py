"""Figures of the live page as texts: the tiles above the charts, and the fidelity so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from testbed.experiment.statistics import rate_interval, with_spread
from testbed.model.certificate import TermSoFar
from testbed.model.fidelity import failure_interval
from testbed.rpc.operator import LiveState, Progress
from testbed.ui.live.charts import GONE, milliseconds
from testbed.ui.live.snapshot import Snapshot

Tone: TypeAlias = Literal["", "good", "warning", "bad", "muted"]

ALLOWED: Final = 0.05
"""Share of times that may be beyond their limits: limits hold for the 95th percentile."""

_TERMS: Final = {
    "transmission": "transmission times",
    "execution": "execution times",
    "generator": "arrivals in time",
    "transmission_failures": "failures of links",
    "execution_failures": "failures of nodes",
    "service": "service times",
    "forwarding": "forwarding times",
    "ticks": "routers called in time",
}


class Tile(NamedTuple):
    """A figure with its name; ``detail`` says more in a line below it."""

    name: str
    value: str
    detail: str = ""
    tone: Tone = ""


class Judged(NamedTuple):
    """A term of the fidelity so far, in words."""

    name: str
    measured: str
    allowed: str
    tone: Tone

    @property
    def verdict(self) -> str:
        """The verdict as a word with a mark."""
        return {"good": "✓ holds", "bad": "✕ broken"}.get(self.tone, "- too few")


def tiles(snapshot: Snapshot) -> tuple[Tile, ...]:
    """Return the tiles, always the same ones in the same order."""
    state = snapshot.state
    progress = None if state is None or state.run is None else state.run.progress
    return (
        _success(snapshot, progress),
        _done(snapshot, progress),
        _latency(state),
        _fidelity(snapshot),
        _nodes(snapshot),
        _processors(snapshot),
    )


def _success(snapshot: Snapshot, progress: Progress | None) -> Tile:
    name = "success"
    if progress is None or not progress.ended:
        return Tile(name, "-", "no work has ended yet")
    rates = [each.good / each.ended for each in snapshot.episodes if each.ended]
    name = "served" if progress.work == "requests" else name
    so_far = progress.success_rate or 0.0
    told = f"{progress.ended} {progress.work}"
    if len(rates) < 2:
        return Tile(name, f"{100 * so_far:.1f} %", f"of {told}; an interval needs two episodes")
    found = rate_interval(rates)
    mean = with_spread(found.mean, found.low, found.high)
    return Tile(name, f"{mean} %", f"over {len(rates)} episodes, 95 % interval; {told}")


def _done(snapshot: Snapshot, progress: Progress | None) -> Tile:
    if progress is None:
        return Tile("run", "none yet")
    known = snapshot.network
    slot = "slot" if known is None else known.slot_name
    detail = f"{progress.completed} of {progress.episodes} episodes over"
    if progress.state != "running":
        tones: dict[str, Tone] = {"completed": "good", "failed": "bad"}
        return Tile("run", progress.state, detail, tones.get(progress.state, "warning"))
    place = f"{slot} {min(progress.slot + 1, progress.slots)} of {progress.slots}"
    return Tile("run", f"episode {progress.completed + 1}", f"{place}; {detail}")


def _latency(state: LiveState | None) -> Tile:
    if state is None or state.latencies is None:
        return Tile("latency", "-", "of work that ended well")
    p50, p95, p99 = state.latencies
    return Tile(
        "latency", milliseconds(p50), f"median; p95 {milliseconds(p95)}, p99 {milliseconds(p99)}"
    )


def _fidelity(snapshot: Snapshot) -> Tile:
    judged = fidelity(snapshot)
    if not judged or all(each.tone == "muted" for each in judged):
        return Tile("fidelity", "-", "nothing measured yet")
    broken = [each.name for each in judged if each.tone == "bad"]
    if broken:
        return Tile("fidelity", "not faithful", ", ".join(broken), "bad")
    return Tile("fidelity", "faithful so far", "all limits hold", "good")


def _nodes(snapshot: Snapshot) -> Tile:
    state, known = snapshot.state, snapshot.network
    if state is None or known is None:
        return Tile("nodes", "-")
    healthy = sum(node.condition == "healthy" for node in state.nodes)
    over = sum(
        known.overloaded(number, node.load, node.backlog)
        for number, node in enumerate(snapshot.nodes)
        if node.condition not in GONE
    )
    tone: Tone = "good" if healthy == len(state.nodes) else "bad"
    told = f"{over} overloaded" if snapshot.active else "no run is under way"
    return Tile("healthy nodes", f"{healthy} of {len(state.nodes)}", told, tone)


def _processors(snapshot: Snapshot) -> Tile:
    state = snapshot.state
    if state is None or not snapshot.samples:
        return Tile("processors", "-")
    recent = [each for each in snapshot.samples[-6:] if each.processors is not None]
    busy = (
        f"{100 * sum(each.processors or 0.0 for each in recent) / len(recent):.0f} %"
        if recent
        else "-"
    )
    late = milliseconds(max(each.lag for each in snapshot.samples[-6:]))
    machine = f"of {state.machine.cpus}; timers up to {late} late"
    return Tile("processors", busy, machine)


def fidelity(snapshot: Snapshot) -> tuple[Judged, ...]:
    """Return the terms of the fidelity certificate as they stand now."""
    return () if snapshot.state is None else tuple(map(_judged, snapshot.state.fidelity))


def _judged(term: TermSoFar) -> Judged:
    name = _TERMS.get(term.name, term.name.replace("_", " "))
    if not term.trials:
        return Judged(name, "none yet", "", "muted")
    if term.expected is not None:
        low, high = failure_interval(term.trials, term.expected)
        holds = low <= term.beyond <= high
        measured = f"{term.beyond} of {term.trials}"
        return Judged(name, measured, f"{low} to {high}", "good" if holds else "bad")
    # The 95th percentile, by its rank, is within the limit.
    holds = term.beyond <= term.trials - math.ceil((1 - ALLOWED) * term.trials)
    share = f"{100 * term.beyond / term.trials:.1f} % of {term.trials} beyond"
    return Judged(name, share, f"{100 * ALLOWED:.0f} %", "good" if holds else "bad")


def headline(snapshot: Snapshot, name: str) -> Iterator[str]:
    """Yield what the page is about, in a few words each."""
    yield name
    if snapshot.network is not None:
        yield f"scenario {snapshot.network.scenario}"
    state = snapshot.state
    if state is None or state.run is None:
        return
    progress = state.run.progress
    yield f"run {progress.run}"
    if state.run.label:
        yield state.run.label
    yield progress.scheduler
