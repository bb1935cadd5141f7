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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypeVar

from testbed.model.events import Record, RecordKind
from testbed.model.fault_effects import Expected, expect
from testbed.model.faults.timeline import Timeline
from testbed.model.task import Outcome
from testbed.model.topology import Topology
from testbed.model.units import NEVER, Micros, seconds

_Number = TypeVar("_Number", int, float)

CERTIFICATE_VERSION: Final = 1
FALSE_ALARM: Final = 1e-4
"""Probability that a faithful run has a failure count outside its interval."""


class Limits(Protocol):
    """Largest accepted deviations of a run: ``testbed.scenario.plan.FidelityLimits``."""

    @property
    def generator_lateness(self) -> Micros:
        """Largest p95 of the lateness of arrivals."""

    def transmission_limit(self, nominal: Micros) -> float:
        """Return the largest error that is still faithful for a transmission of ``nominal``."""

    def execution_limit(self, nominal: Micros) -> float:
        """Return the largest error that is still faithful for an execution of ``nominal``."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a sample of absolute errors or latenesses; all 0 for an empty sample."""

    count: int
    p50: Micros
    p95: Micros
    p99: Micros
    max: Micros


@dataclass(frozen=True, slots=True)
class TimingError:
    """Deviations of measured times from the configured ones.

    ``error`` is absolute; ``mean`` is signed (above 0: slower than configured). ``p95_of_limit``
    is the p95 of each error divided by its own limit: above 1 the run is not faithful.
    ``real_p95`` is the p95 on the real clock, in real microseconds.
    """

    error: Spread
    mean: float
    p95_of_limit: float
    real_p95: Micros


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Simulated failures against their probabilities.

    Trial k fails with ``1 - exp(-rate x_k)``, where x_k ends at the deadline if that comes first.
    ``low`` to ``high`` is the interval that holds the count with probability 1 - ``FALSE_ALARM``.
    """

    trials: int
    failed: int
    expected: float
    low: int
    high: int

    @property
    def plausible(self) -> bool:
        """Whether the count is inside its interval."""
        return self.low <= self.failed <= self.high


@dataclass(frozen=True, slots=True)
class ControllerPause:
    """A time in which the controller did not run, because it was stopped, suspended or starved.

    ``at`` is since the run began, ``length`` how long, both in real microseconds.
    """

    at: Micros
    length: Micros


@dataclass(frozen=True, slots=True)
class Machine:
    """Load and other facts of the controller's machine during the run.

    ``cpu_pressure`` is the share of the time in which something waited for a processor (Linux
    pressure stall information), None where the system does not say. Lags are the worst lateness of
    a timer of the controller and of each node, in real microseconds. ``pauses`` are those of the
    controller itself; nodes are not blamed for what they seemed to miss in them.
    """

    cpus: int
    load_average: float
    cpu_pressure: float | None
    controller_lag: Micros
    node_lag: tuple[Micros, ...]
    pauses: tuple[ControllerPause, ...] = ()

    @property
    def paused(self) -> Micros:
        """Length of all pauses."""
        return sum(pause.length for pause in self.pauses)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The verdict about one run and the figures it rests on; ``reasons`` is empty if valid."""

    valid: bool
    reasons: tuple[str, ...]
    time_scale: float
    transmission: TimingError
    execution: TimingError
    generator: Spread
    transmission_failures: FailureCount
    execution_failures: FailureCount
    outcomes: Mapping[str, int]
    machine: Machine | None

    def to_document(self) -> dict[str, Any]:
        """Return the certificate as plain values for JSON, with its version."""
        return {"version": CERTIFICATE_VERSION, **asdict(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Certificate:
        """Return the certificate of plain values; keys this version does not know are left out.

        Raises: ValueError if it has another version or lacks something.
        """
        if document.get("version") != CERTIFICATE_VERSION:
            raise ValueError(
                f"certificate version {document.get('version')}; "
                f"this toolkit reads version {CERTIFICATE_VERSION}"
            )
        try:
            machine = document["machine"]
            return cls(
                valid=document["valid"],
                reasons=tuple(document["reasons"]),
                time_scale=document["time_scale"],
                transmission=_timing(document["transmission"]),
                execution=_timing(document["execution"]),
                generator=Spread(**document["generator"]),
                transmission_failures=FailureCount(**document["transmission_failures"]),
                execution_failures=FailureCount(**document["execution_failures"]),
                outcomes=dict(document["outcomes"]),
                machine=machine and _machine(machine),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a complete certificate: {error!r}") from None


def _machine(document: Mapping[str, Any]) -> Machine:
    # Certificates of earlier releases have no pauses.
    earlier = {"pauses": (), **document}
    return Machine(
        **{
            **earlier,
            "node_lag": tuple(document["node_lag"]),
            "pauses": tuple(ControllerPause(**pause) for pause in earlier["pauses"]),
        }
    )


def _timing(document: Mapping[str, Any]) -> TimingError:
    return TimingError(**{**document, "error": Spread(**document["error"])})


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

    def certify(self, machine: Machine | None = None) -> Certificate:
        """Return the certificate over everything added so far."""
        reasons: list[str] = list(self._unfaithful)
        transmission = self._transmission.result(self._time_scale)
        execution = self._execution.result(self._time_scale)
        generator = spread(self._lateness)
        checked = [("transmission", transmission)]
        if self._execution_modelled:
            checked.append(("execution", execution))
        for name, timing in checked:
            if timing.p95_of_limit > 1.0:
                reasons.append(
                    f"{name} times are off by {timing.error.p95 / 1000:.1f} ms at p95, "
                    f"{timing.p95_of_limit:.1f} times what the limits allow"
                )
        if generator.p95 > self._limits.generator_lateness:
            paused = (
                ""
                if machine is None or not machine.pauses
                else (f"; the controller itself did not run for {seconds(machine.paused):.1f} s")
            )
            reasons.append(
                f"arrivals came {generator.p95 / 1000:.1f} ms late at p95; "
                f"the limit is {self._limits.generator_lateness / 1000:.1f} ms{paused}"
            )
        transmission_failures = self._transmission_failures.result()
        execution_failures = self._execution_failures.result()
        counted = (("transmission", transmission_failures), ("execution", execution_failures))
        for name, count in counted:
            if not count.plausible:
                reasons.append(
                    f"{count.failed} of {count.trials} {name}s failed; "
                    f"{count.low} to {count.high} are plausible"
                )
        return Certificate(
            valid=not reasons,
            reasons=tuple(reasons),
            time_scale=self._time_scale,
            transmission=transmission,
            execution=execution,
            generator=generator,
            transmission_failures=transmission_failures,
            execution_failures=execution_failures,
            outcomes=dict(self._outcomes),
            machine=machine,
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
