"""What is known of a testbed at one instant, and how it came there; drawn by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from testbed.model.units import Micros
from testbed.rpc.operator import EpisodeCount, LinkNow, LiveState, NodeNow
from testbed.ui.live.network import Link, Network

SAMPLES: Final = 600
"""Samples that are kept: five minutes at two a second."""

EVENTS: Final = 200
"""Events that are kept."""

FLOW_S: Final = 3.0
"""Seconds over which the flow of a link is averaged."""

EventKind: TypeAlias = Literal["run", "scheduler", "policy", "node", "fault", "problem"]


class Event(NamedTuple):
    """Something that happened: when (seconds since the epoch), and in words.

    ``bad`` is for what somebody has to look at.
    """

    at: float
    kind: EventKind
    text: str
    bad: bool = False


class Sample(NamedTuple):
    """Figures of one instant that curves are drawn from.

    ``at`` are seconds on the controller's clock. ``processors`` is the share of them that worked
    since the sample before, ``pressure`` the share of that time in which something waited for one;
    None where that is not known. ``links`` are the totals of the run, and ``running`` says whether
    it was under way.
    """

    at: float
    run: str
    running: bool
    episode: int
    slot: int
    generated: int
    outcomes: Mapping[str, int]
    loads: tuple[int | None, ...]
    latencies: tuple[Micros, Micros, Micros] | None
    processors: float | None
    pressure: float | None
    lag: Micros
    links: Mapping[Link, LinkNow]


class Flow(NamedTuple):
    """What goes over a link: work and bytes per real second, and all of the run so far."""

    source: int
    destination: int
    work_rate: float
    byte_rate: float
    total: LinkNow


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the page shows. ``number`` grows with every new one.

    ``problem`` says why there is no state, or why it is an old one. ``episodes`` are all episodes
    of the run that are over.
    """

    number: int = 0
    problem: str = ""
    network: Network | None = None
    state: LiveState | None = None
    samples: tuple[Sample, ...] = ()
    episodes: tuple[EpisodeCount, ...] = ()
    events: tuple[Event, ...] = field(default=())

    @property
    def active(self) -> bool:
        """Whether a run is under way."""
        run = None if self.state is None else self.state.run
        return run is not None and run.progress.state == "running"

    @property
    def played(self) -> tuple[Sample, ...]:
        """The samples of the run under way, and the first after its end."""
        over = next((i for i, each in enumerate(self.samples) if not each.running), None)
        return self.samples if over is None else self.samples[: over + 1]

    @property
    def nodes(self) -> tuple[NodeNow, ...]:
        """The nodes now: what is known of them from a run that is over is left out."""
        if self.state is None:
            return ()
        if self.active:
            return self.state.nodes
        return tuple(node._replace(load=None, backlog=None) for node in self.state.nodes)


def sample_of(state: LiveState, before: LiveState | None) -> Sample:
    """Return the figures of a state; ``before`` is the one asked for last, if there was one."""
    progress = None if state.run is None else state.run.progress
    processors = pressure = None
    if before is not None and state.at > before.at:
        now, then, passed = state.machine, before.machine, state.at - before.at
        if now.busy is not None and then.busy is not None:
            processors = min(1.0, max(0.0, now.busy - then.busy) / (passed * now.cpus))
        if now.stalled is not None and then.stalled is not None:
            pressure = min(1.0, max(0.0, now.stalled - then.stalled) / passed)
    return Sample(
        at=state.at,
        run="" if progress is None else progress.run,
        running=progress is not None and progress.state == "running",
        episode=0 if progress is None else progress.episode,
        slot=0 if progress is None else progress.slot,
        generated=0 if progress is None else progress.generated,
        outcomes={} if progress is None else progress.outcomes,
        loads=tuple(node.load for node in state.nodes),
        latencies=state.latencies,
        processors=processors,
        pressure=pressure,
        lag=max((node.lag for node in state.nodes), default=0),
        links={(each.source, each.destination): each for each in state.links},
    )


def with_sample(samples: Sequence[Sample], new: Sample) -> tuple[Sample, ...]:
    """Return the samples with one more; those of another run, and the oldest, are left out.

    Between two episodes and after the run there is no slot: the last one stands for it.
    """
    kept = [each for each in samples if each.run == new.run and each.at < new.at]
    if kept and kept[-1].episode == new.episode:
        new = new._replace(slot=max(new.slot, kept[-1].slot))
    return (*kept[-(SAMPLES - 1) :], new)


def flows(samples: Sequence[Sample]) -> tuple[Flow, ...]:
    """Return the flow of every link that anything went over in the run, the largest first."""
    if not samples:
        return ()
    last = samples[-1]
    first = next((each for each in samples if each.at >= last.at - FLOW_S), last)
    passed = last.at - first.at
    found = []
    for link, total in last.links.items():
        earlier = first.links.get(link)
        work = total.work - (0 if earlier is None else earlier.work)
        size = total.bytes - (0 if earlier is None else earlier.bytes)
        rates = (work / passed, size / passed) if passed > 0 else (0.0, 0.0)
        found.append(Flow(*link, *rates, total))
    return tuple(sorted(found, key=lambda flow: (-flow.work_rate, -flow.total.work)))


def with_episodes(
    known: Sequence[EpisodeCount], run: str, state: LiveState
) -> tuple[EpisodeCount, ...]:
    """Return the episodes that are over; ``known`` are those of ``run`` that the state left out."""
    progress = None if state.run is None else state.run.progress
    if progress is None:
        return ()
    return (*(known if progress.run == run else ()), *state.episodes)
