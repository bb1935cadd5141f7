"""Was a real-time serving run faithful: its times, its turns, and the counts of its client.

``ServingFidelity`` takes what nodes and client tell of a run as it comes, and keeps only what the
certificate needs. All times are emulated microseconds; intervals are between two clock readings of
the node that a request came to. The verdict is about the emulation while it worked: nodes that
died, and requests that were lost with them, make a run ``degraded`` and not invalid.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from testbed.model.certificate import (
    Beyond,
    Certificate,
    CountCheck,
    Machine,
    TermSoFar,
    TurnCheck,
    count_term,
    lateness_term,
    turn_term,
)
from testbed.model.fidelity import spread
from testbed.model.serving.events import Status
from testbed.model.serving.network import ServingNetwork
from testbed.model.serving.record import RequestOutcome, RequestRecord
from testbed.model.serving.route import RoutingRecord
from testbed.model.units import Micros, seconds


class Limits(Protocol):
    """Largest accepted deviations of a run: ``testbed.scenario.plan.serving.ServingLimits``."""

    @property
    def service_error(self) -> Micros:
        """Largest p95 of the errors of service times."""

    @property
    def forwarding_error(self) -> Micros:
        """Largest p95 of what requests served elsewhere took longer than their service."""

    @property
    def tick_lateness(self) -> Micros:
        """Largest p95 of how late routers were called."""

    @property
    def generator_lateness(self) -> Micros:
        """Largest p95 of how late requests were sent."""


class _Stretch:
    """A time in which the weights of one function at one node stayed the same.

    ``counts`` are the requests forwarded in it by peer. ``unsure`` are those that came so near to
    its beginning or its end that they may have been routed by the weights before or after.
    """

    __slots__ = ("begin", "counts", "unsure", "weights")

    def __init__(self, begin: Micros, weights: tuple[int, ...]) -> None:
        self.begin = begin
        self.weights = weights
        self.counts: Counter[int] = Counter()
        self.unsure = 0

    @property
    def deviation(self) -> float:
        """Requests by which the worst peer's count is off its share, beyond the unsure ones."""
        total, made = sum(self.weights), sum(self.counts.values())
        if not total:
            # Nothing is forwarded without weights.
            return float(max(0, made - self.unsure))
        worst = max(
            abs(made * weight / total - self.counts[peer])
            for peer, weight in enumerate(self.weights)
        )
        return max(0.0, worst - self.unsure)


class ServingFidelity:
    """Measures one run on ``network``; give it the routings of each node in their order.

    ``trip`` is how long a request is under way to another node and back.
    A router may answer a moment after it was called: what comes within ``limits.tick_lateness``
    after that may have been routed by the weights before.
    """

    def __init__(
        self,
        network: ServingNetwork,
        limits: Limits,
        *,
        trip: Micros = 0,
        time_scale: float = 1.0,
    ) -> None:
        self._trip = trip
        self._network = network
        self._limits = limits
        self._time_scale = time_scale
        self._service: array[int] = array("q")
        self._forwarding: array[int] = array("q")
        self._ticks: array[int] = array("q")
        self._generator: array[int] = array("q")
        self._client: Counter[str] = Counter()
        self._log: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter({outcome.value: 0 for outcome in RequestOutcome})
        self._differing = 0
        self._forwarded: dict[tuple[int, int], tuple[array[int], array[int]]] = {}
        self._stretches: dict[tuple[int, int], list[_Stretch]] = {}
        self._left_out: set[int] = set()
        self._turns = TurnCheck(0, 0, 0.0)
        self._beyond = {
            "service": Beyond(self._service, limits.service_error),
            "forwarding": Beyond(self._forwarding, limits.forwarding_error),
            "ticks": Beyond(self._ticks, limits.tick_lateness),
            "generator": Beyond(self._generator, limits.generator_lateness),
        }

    def late(self, lateness: Micros) -> None:
        """Note that a request was sent ``lateness`` after its time."""
        self._generator.append(max(0, lateness))

    def ticked(self, latenesses: Iterable[Micros]) -> None:
        """Note how late a router was called, each time."""
        self._ticks.extend(max(0, lateness) for lateness in latenesses)

    def answered(self, record: RequestRecord) -> None:
        """Take a request that its node has answered."""
        nominal = self._network.functions[record.function].time
        if record.status == Status.OK:
            if record.server == record.source:
                self._service.append(abs(record.elapsed - nominal))
            else:
                # Its service is another node's, whose error is part of this one.
                self._forwarding.append(abs(record.elapsed - nominal - self._trip))
        if record.peer is not None:
            place = (record.source, record.function)
            instants, peers = self._forwarded.setdefault(place, (array("q"), array("q")))
            instants.append(record.at)
            peers.append(record.peer)

    def routed(self, routing: RoutingRecord) -> None:
        """Take a decision of a router."""
        if routing.routing.table is None:
            return
        for function, route in enumerate(routing.routing.table):
            known = self._stretches.setdefault((routing.node, function), [])
            if not known or known[-1].weights != route.weights:
                known.append(_Stretch(routing.at, route.weights))

    def ended(self, outcome: RequestOutcome, client: RequestOutcome | None) -> None:
        """Count a request of the run's own users that its node has reported, or that is lost.

        ``client`` is what its client saw: None if it got no answer.
        """
        self._outcomes[outcome.value] += 1
        self._log[outcome.value] += 1
        seen = RequestOutcome.LOST if client is None else client
        self._client[seen.value] += 1

    def differed(self) -> None:
        """Count a request of which client and node tell different things, and both lived."""
        self._differing += 1

    def leave_out(self, node: int) -> None:
        """Do not judge the turns of a node in this episode: not all it did has come."""
        self._left_out.add(node)

    def end_episode(self) -> None:
        """Judge the turns of an episode, all of which has come; those of the next begin anew."""
        slack = self._limits.tick_lateness
        checked = self._turns
        for place, (instants, peers) in self._forwarded.items():
            if place[0] in self._left_out:
                continue
            known = self._stretches.get(place) or []
            # Before the first routing nothing is forwarded.
            all_of = [_Stretch(0, (0,) * self._network.size), *known]
            begins = [each.begin for each in all_of[1:]]
            for at, peer in zip(instants, peers, strict=True):
                number = bisect_right(begins, at)
                stretch = all_of[number]
                if number and at - stretch.begin <= slack:
                    stretch.unsure += 1
                    all_of[number - 1].unsure += 1
                else:
                    stretch.counts[peer] += 1
            worst = max((each.deviation for each in all_of), default=0.0)
            checked = TurnCheck(
                checked.stretches + len(known),
                checked.requests + len(peers),
                max(checked.worst, worst),
            )
        self._turns = checked
        self._forwarded.clear()
        self._stretches.clear()
        self._left_out.clear()

    def so_far(self) -> tuple[TermSoFar, ...]:
        """Return the terms of times up to now; cheap enough to be asked often."""
        return tuple(each.so_far(name) for name, each in self._beyond.items())

    def certify(
        self, machine: Machine | None = None, unfaithful: Sequence[str] = ()
    ) -> Certificate:
        """Return the certificate over everything added so far.

        ``unfaithful`` are reasons that nothing of this shows.
        """
        limits = self._limits
        service, forwarding = spread(self._service), spread(self._forwarding)
        ticks, generator = spread(self._ticks), spread(self._generator)
        accounted = CountCheck(dict(self._client), dict(self._log), self._differing)
        terms = {
            "service": lateness_term(service, limits.service_error),
            "forwarding": lateness_term(forwarding, limits.forwarding_error),
            "ticks": lateness_term(ticks, limits.tick_lateness),
            "generator": lateness_term(generator, limits.generator_lateness),
            "accounted": count_term(accounted),
            "weights": turn_term(self._turns),
        }
        paused = (
            f"; the controller itself did not run for {seconds(machine.paused):.1f} s"
            if machine is not None and machine.pauses
            else ""
        )
        told = {
            "service": f"service times are off by {_ms(service.p95)} at p95",
            "forwarding": "times of requests served by another node are off by "
            f"{_ms(forwarding.p95)} at p95",
            "ticks": f"routers were called {_ms(ticks.p95)} late at p95",
            "generator": f"requests were sent {_ms(generator.p95)} late at p95",
        }
        limit = {name: f"; the limit is {_ms(terms[name].high or 0)}" for name in told}
        limit["generator"] += paused
        reasons = [
            *unfaithful,
            *(f"{text}{limit[name]}" for name, text in told.items() if not terms[name].holds),
        ]
        if not terms["accounted"].holds:
            reasons.append(
                f"client and nodes disagree about {accounted.differing} of "
                f"{sum(accounted.log.values())} requests"
            )
        if not terms["weights"].holds:
            reasons.append(
                f"a node's requests to a neighbour are {self._turns.worst:.1f} off what its "
                f"weights say; the limit is {terms['weights'].high:g}"
            )
        return Certificate(
            valid=not reasons,
            reasons=tuple(reasons),
            time_scale=self._time_scale,
            terms=terms,
            outcomes=dict(self._outcomes),
            machine=machine,
        )


def _ms(value: float) -> str:
    return f"{value / 1000:.1f} ms"
