"""Was the emulation faithful: configured against measured times, and failures against their odds.

``Fidelity`` takes the records of a run as they come and keeps only what the certificate needs. All
times are emulated microseconds; multiplied by the time scale they are real ones. Intervals are
always between two clock readings of the same node. The certificate is stored with the run; data
sets leave out runs whose certificate is not valid.

The verdict is about the emulation while it worked. Nodes that died and tasks that were lost with
them are counted here and judged elsewhere: they make a run ``degraded``.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from testbed.model.certificate import (
    FALSE_ALARM,
    Beyond,
    Certificate,
    ControllerPause,
    FailureCount,
    Machine,
    Spread,
    TermSoFar,
    TimingError,
    failure_term,
    lateness_term,
    timing_term,
)
from testbed.model.events import Record, RecordKind
from testbed.model.fault_effects import Expected, expect
from testbed.model.faults.timeline import Timeline
from testbed.model.task import Outcome
from testbed.model.topology import Topology
from testbed.model.units import NEVER, Micros, seconds

_Number = TypeVar("_Number", int, float)


class Limits(Protocol):
    """Largest accepted deviations of a run: ``testbed.scenario.plan.FidelityLimits``."""

    @property
    def generator_lateness(self) -> Micros:
        """Largest p95 of the lateness of arrivals."""

    def transmission_limit(self, nominal: Micros) -> float:
        """Return the largest error that is still faithful for a transmission of ``nominal``."""

    def execution_limit(self, nominal: Micros) -> float:
        """Return the largest error that is still faithful for an execution of ``nominal``."""


def spread(sample: array[int]) -> Spread:
    """Percentiles (nearest rank) of a sample of absolute values."""
    ordered = sorted(sample)
    return Spread(
        count=len(ordered),
        p50=_rank(ordered, 0.50),
        p95=_rank(ordered, 0.95),
        p99=_rank(ordered, 0.99),
        max=ordered[-1] if ordered else 0,
    )


def _rank(ordered: Sequence[_Number], share: float) -> _Number:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0


def failure_interval(trials: int, mean: float, alarm: float = FALSE_ALARM) -> tuple[int, int]:
    """Counts that a sum of ``trials`` failures with mean ``mean`` stays within.

    The tails of a Poisson-binomial sum are no heavier than those of the binomial with the mean
    probability, beyond one from the mean (Hoeffding, Annals of Mathematical Statistics 27, 1956,
    theorem 5), so ``alarm`` bounds the probability of a count outside whatever the trials are.
    """
    p = mean / trials if trials else 0.0
    if p <= 0.0:
        return 0, 0
    if p >= 1.0:
        return trials, trials
    reach = 12.0 * math.sqrt(trials * p * (1.0 - p)) + 30.0
    first, last = max(0, math.floor(mean - reach)), min(trials, math.ceil(mean + reach))
    of_all = math.lgamma(trials + 1)
    pmf = [
        math.exp(
            of_all
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(p)
            + (trials - k) * math.log1p(-p)
        )
        for k in range(first, last + 1)
    ]
    low, tail = first, 0.0
    while low < last and (tail := tail + pmf[low - first]) <= alarm / 2:
        low += 1
    high, tail = last, 0.0
    while high > first and (tail := tail + pmf[high - first]) <= alarm / 2:
        high -= 1
    return max(0, min(low, math.floor(mean - 1))), min(trials, max(high, math.ceil(mean + 1)))


class _Times:
    """Errors of one kind of interval."""

    __slots__ = ("absolute", "of_limit", "signed_sum")

    def __init__(self) -> None:
        self.absolute: array[int] = array("q")
        self.of_limit: array[float] = array("d")
        self.signed_sum = 0

    def add(self, measured: Micros, nominal: Micros, limit: float) -> None:
        error = measured - nominal
        self.absolute.append(abs(error))
        self.of_limit.append(abs(error) / limit if limit > 0 else math.inf)
        self.signed_sum += error

    def result(self, time_scale: float) -> TimingError:
        errors = spread(self.absolute)
        return TimingError(
            error=errors,
            mean=self.signed_sum / errors.count if errors.count else 0.0,
            p95_of_limit=_rank(sorted(self.of_limit), 0.95),
            real_p95=round(errors.p95 * time_scale),
        )


class _Failures:
    """Failures of one kind of unit."""

    __slots__ = ("expected", "failed", "trials")

    def __init__(self) -> None:
        self.trials = 0
        self.failed = 0
        self.expected = 0.0

    def add(self, hazard: float, failed: bool) -> None:
        self.trials += 1
        self.failed += failed
        self.expected += -math.expm1(-hazard)

    def so_far(self, name: str) -> TermSoFar:
        return TermSoFar(name, self.trials, self.failed, self.expected)

    def result(self) -> FailureCount:
        low, high = failure_interval(self.trials, self.expected)
        return FailureCount(self.trials, self.failed, self.expected, low, high)


class Fidelity:
    """Measures one run; give it the records of each node in the order they happened.

    ``execution_modelled`` False (an application that takes the time it takes) leaves execution
    times out of the verdict. ``timeline`` gives the faults of an episode: times and failures are
    judged by what they should be under them, so a fault that did not take is seen.
    """

    def __init__(
        self,
        topology: Topology,
        limits: Limits,
        *,
        time_scale: float = 1.0,
        execution_modelled: bool = True,
        timeline: Callable[[int], Timeline] | None = None,
    ) -> None:
        self._timeline = timeline
        self._topology = topology
        self._limits = limits
        self._time_scale = time_scale
        self._execution_modelled = execution_modelled
        self._generated: dict[int, Micros] = {}
        # Per task and node: the record that started the interval.
        self._transmitting: dict[tuple[int, int], Record] = {}
        self._executing: dict[tuple[int, int], Record] = {}
        self._transmission = _Times()
        self._execution = _Times()
        self._lateness: array[int] = array("q")
        self._transmission_failures = _Failures()
        self._execution_failures = _Failures()
        self._outcomes = {outcome.value: 0 for outcome in Outcome}
        self._unfaithful: list[str] = []
        times = [("transmission", self._transmission)]
        if execution_modelled:
            times.append(("execution", self._execution))
        self._beyond = {
            **{name: Beyond(each.of_limit, 1.0) for name, each in times},
            "generator": Beyond(self._lateness, limits.generator_lateness),
        }

    def unfaithful(self, reason: str) -> None:
        """Enter why the run is not faithful where no record shows it."""
        self._unfaithful.append(reason)

    def late(self, lateness: Micros) -> None:
        """An arrival was handed out ``lateness`` after its time."""
        self._lateness.append(max(0, lateness))

    def add(self, record: Record) -> None:
        """Take the next record of its node."""
        kind, task_id = record.kind, record.task.id
        if kind is RecordKind.GENERATED:
            self._generated[task_id] = record.at
        elif kind is RecordKind.TRANSMISSION_STARTED:
            self._transmitting[task_id, record.node] = record
        elif kind is RecordKind.SENT:
            start = self._transmitting.pop((task_id, record.node), None)
            if start is not None:
                nominal = self._expected(start).duration
                if nominal is not None:
                    self._transmission.add(
                        record.clock - start.clock,
                        nominal,
                        self._limits.transmission_limit(nominal),
                    )
                self._count_transmission(start, failed=False)
            self._generated.pop(task_id, None)
        elif kind is RecordKind.EXECUTION_STARTED:
            self._executing[task_id, record.node] = record
        elif kind is RecordKind.ENDED:
            self._end(record)

    def so_far(self) -> tuple[TermSoFar, ...]:
        """Return the terms of the certificate up to now; cheap enough to be asked often."""
        return (
            *(each.so_far(name) for name, each in self._beyond.items()),
            self._transmission_failures.so_far("transmission_failures"),
            self._execution_failures.so_far("execution_failures"),
        )

    def certify(self, machine: Machine | None = None) -> Certificate:
        """Return the certificate over everything added so far."""
        transmission = self._transmission.result(self._time_scale)
        execution = self._execution.result(self._time_scale)
        generator = spread(self._lateness)
        transmission_failures = self._transmission_failures.result()
        execution_failures = self._execution_failures.result()
        terms = {
            "transmission": timing_term(transmission),
            "execution": timing_term(execution, judged=self._execution_modelled),
            "generator": lateness_term(generator, self._limits.generator_lateness),
            "transmission_failures": failure_term(transmission_failures),
            "execution_failures": failure_term(execution_failures),
        }
        told = {
            "transmission": _told_times("transmission", transmission),
            "execution": _told_times("execution", execution),
            "generator": self._told_lateness(generator, machine),
            "transmission_failures": _told_failures("transmission", transmission_failures),
            "execution_failures": _told_failures("execution", execution_failures),
        }
        broken = (told[name] for name, term in terms.items() if not term.holds)
        reasons = (*self._unfaithful, *broken)
        return Certificate(
            valid=not reasons,
            reasons=reasons,
            time_scale=self._time_scale,
            terms=terms,
            outcomes=dict(self._outcomes),
            machine=machine,
        )

    def _told_lateness(self, generator: Spread, machine: Machine | None) -> str:
        paused = (
            ""
            if machine is None or not machine.pauses
            else (f"; the controller itself did not run for {seconds(machine.paused):.1f} s")
        )
        return (
            f"arrivals came {generator.p95 / 1000:.1f} ms late at p95; "
            f"the limit is {self._limits.generator_lateness / 1000:.1f} ms{paused}"
        )

    def _end(self, record: Record) -> None:
        task_id = record.task.id
        outcome = Outcome(str(record.data["outcome"]))
        self._outcomes[outcome.value] += 1
        transmission = self._transmitting.pop((task_id, record.node), None)
        execution = self._executing.pop((task_id, record.node), None)
        if outcome is not Outcome.LOST:
            if transmission is not None:
                self._count_transmission(
                    transmission, failed=outcome is Outcome.TRANSMISSION_FAILED
                )
            if execution is not None:
                self._count_execution(execution, record, outcome)
        if record.node == record.task.source:
            # From elsewhere the end may come before the origin has told that it sent the task.
            self._generated.pop(task_id, None)

    def _count_transmission(self, start: Record, *, failed: bool) -> None:
        generated = self._generated.get(start.task.id)
        if generated is None:
            return
        left = start.task.deadline - (start.at - generated)
        expected = self._expected(start, left)
        if expected.hazard is not None:
            self._transmission_failures.add(expected.hazard, failed)

    def _count_execution(self, start: Record, end: Record, outcome: Outcome) -> None:
        elapsed = int(end.data["elapsed"]) - (end.at - start.at)
        expected = self._expected(start, start.task.deadline - elapsed)
        if expected.hazard is not None:
            failed = outcome is Outcome.EXECUTION_FAILED
            self._execution_failures.add(expected.hazard, failed)
        nominal = expected.duration
        if outcome is Outcome.SUCCEEDED and nominal is not None:
            self._execution.add(
                end.clock - start.clock, nominal, self._limits.execution_limit(nominal)
            )

    def _expected(self, start: Record, left: Micros = NEVER) -> Expected:
        """Return what the work that ``start`` began should take, with ``left`` to its deadline."""
        work, node = int(start.data["nominal"]), start.node
        peer = int(start.data["peer"]) if start.kind is RecordKind.TRANSMISSION_STARTED else None
        if peer is None:
            rate = self._topology.execution_failure_rate[node]
        else:
            rate = self._topology.link_failure_rate[node][peer]
        timeline = None if self._timeline is None else self._timeline(start.task.episode)
        if not timeline:
            return Expected(work, rate * seconds(max(0, min(work, left))))
        return expect(timeline, (node, peer), start.at, work, rate, left)


def _told_times(name: str, timing: TimingError) -> str:
    return (
        f"{name} times are off by {timing.error.p95 / 1000:.1f} ms at p95, "
        f"{timing.p95_of_limit:.1f} times what the limits allow"
    )


def _told_failures(name: str, count: FailureCount) -> str:
    return (
        f"{count.failed} of {count.trials} {name}s failed; "
        f"{count.low} to {count.high} are plausible"
    )


__all__ = [
    "FALSE_ALARM",
    "Certificate",
    "ControllerPause",
    "FailureCount",
    "Fidelity",
    "Limits",
    "Machine",
    "Spread",
    "TimingError",
    "failure_interval",
    "spread",
]
