"""The fidelity certificate of a run: the terms that were judged, by name, and the verdict.

What is judged depends on the work of the run; ``testbed.model.fidelity`` judges runs of tasks and
``testbed.model.serving.fidelity`` those of requests. A certificate is stored with its run as a
document, and stays readable for ever.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from testbed.model.units import Micros

CERTIFICATE_VERSION: Final = 1
FALSE_ALARM: Final = 1e-4
"""Probability that a faithful run has a failure count outside its interval."""

_Figures = TypeVar("_Figures")


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
    controller itself; nodes are not blamed for what they seemed to miss in them. ``sharing`` is how
    many nodes the process of each node was started with: where more than one, code that blocked at
    one held up the others. Empty where an earlier release did not tell.
    """

    cpus: int
    load_average: float
    cpu_pressure: float | None
    controller_lag: Micros
    node_lag: tuple[Micros, ...]
    pauses: tuple[ControllerPause, ...] = ()
    sharing: tuple[int, ...] = ()

    @property
    def paused(self) -> Micros:
        """Length of all pauses."""
        return sum(pause.length for pause in self.pauses)


@dataclass(frozen=True, slots=True)
class CountCheck:
    """Requests by outcome as their client saw them, and as they are in the log.

    ``differing`` is of how many the two disagree, not counting those of nodes that died.
    """

    client: Mapping[str, int]
    log: Mapping[str, int]
    differing: int


@dataclass(frozen=True, slots=True)
class TurnCheck:
    """Forwarded requests against the weights of the nodes that forwarded them.

    ``stretches`` is how many times weights were set, ``worst`` by how many requests a neighbour's
    count was off its share, at most.
    """

    stretches: int
    requests: int
    worst: float


Figures: TypeAlias = TimingError | Spread | FailureCount | CountCheck | TurnCheck
"""What the value of a term was worked out from."""


@dataclass(frozen=True, slots=True)
class Term:
    """One property of a run that is held against its bounds.

    ``value`` is in ``unit``: ``us`` (emulated microseconds), ``limits`` (errors as multiples of
    what the limits allow), ``failures``, ``requests`` (that client and log disagree about) or
    ``turns`` (requests that a neighbour's count is off its share). None stands for no bound: of
    what the run does not judge, and of certificates of earlier releases that did not tell it.
    """

    unit: str
    value: float
    figures: Figures
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value is within its bounds."""
        return (self.low is None or self.low <= self.value) and (
            self.high is None or self.value <= self.high
        )


class TermSoFar(NamedTuple):
    """A term of a certificate while its run goes on, for display.

    Of times, ``trials`` were measured and ``beyond`` of them are over their limits. Of failures,
    ``beyond`` of ``trials`` are there, and ``expected`` would be on average.
    """

    name: str
    trials: int
    beyond: int
    expected: float | None = None


class Beyond:
    """Counts the values of a growing sample that are over a limit; looks at each of them once."""

    def __init__(self, sample: array[int] | array[float], limit: float) -> None:
        self._sample = sample
        self._limit = limit
        self._seen = 0
        self._beyond = 0

    def so_far(self, name: str) -> TermSoFar:
        """Return the count up to now as the term of this name."""
        new = self._sample[self._seen :]
        self._seen += len(new)
        self._beyond += sum(value > self._limit for value in new)
        return TermSoFar(name, self._seen, self._beyond)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The verdict about one run and the terms it rests on, by name; no ``reasons`` if valid.

    ``outcomes`` counts the work of the run by outcome.
    """

    valid: bool
    reasons: tuple[str, ...]
    time_scale: float
    terms: Mapping[str, Term]
    outcomes: Mapping[str, int]
    machine: Machine | None

    @property
    def transmission(self) -> TimingError:
        """Errors of transmission times, of a run of tasks."""
        return self._figures("transmission", TimingError)

    @property
    def execution(self) -> TimingError:
        """Errors of execution times, of a run of tasks."""
        return self._figures("execution", TimingError)

    @property
    def generator(self) -> Spread:
        """Lateness of arrivals."""
        return self._figures("generator", Spread)

    @property
    def transmission_failures(self) -> FailureCount:
        """Failures of links, of a run of tasks."""
        return self._figures("transmission_failures", FailureCount)

    @property
    def execution_failures(self) -> FailureCount:
        """Failures of nodes, of a run of tasks."""
        return self._figures("execution_failures", FailureCount)

    def _figures(self, name: str, kind: type[_Figures]) -> _Figures:
        figures = self.terms[name].figures
        assert isinstance(figures, kind)
        return figures

    def to_document(self) -> dict[str, Any]:
        """Return the certificate as plain values for JSON, with its version.

        The figures of a term stand under its name; ``terms`` has value, unit and bounds.
        """
        return {
            "version": CERTIFICATE_VERSION,
            "valid": self.valid,
            "reasons": self.reasons,
            "time_scale": self.time_scale,
            **{name: asdict(term.figures) for name, term in self.terms.items()},
            "outcomes": dict(self.outcomes),
            "machine": None if self.machine is None else asdict(self.machine),
            "terms": {
                name: {
                    "unit": term.unit,
                    "value": term.value,
                    "low": term.low,
                    "high": term.high,
                }
                for name, term in self.terms.items()
            },
        }

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
                terms=_terms(document),
                outcomes=dict(document["outcomes"]),
                machine=machine and _machine(machine),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a complete certificate: {error!r}") from None


def timing_term(figures: TimingError, *, judged: bool = True) -> Term:
    """Return the term of times: the p95 of their errors, as a multiple of what is allowed."""
    return Term("limits", figures.p95_of_limit, figures, high=1.0 if judged else None)


def lateness_term(figures: Spread, limit: Micros | None) -> Term:
    """Return the term of a lateness: its p95."""
    return Term("us", figures.p95, figures, high=limit)


def failure_term(figures: FailureCount) -> Term:
    """Return the term of failures: their number, within the plausible ones."""
    return Term("failures", figures.failed, figures, figures.low, figures.high)


def count_term(figures: CountCheck) -> Term:
    """Return the term of counts: of how many requests client and log disagree, which is none."""
    return Term("requests", figures.differing, figures, high=0)


def turn_term(figures: TurnCheck) -> Term:
    """Return the term of turns: within one request of the weights."""
    return Term("turns", figures.worst, figures, high=1.0)


def _terms(document: Mapping[str, Any]) -> dict[str, Term]:
    told = document.get("terms")
    if told is None:
        # A certificate of an earlier release, which had no other terms.
        return {name: _EARLIER[name](document[name]) for name in _EARLIER}
    return {
        name: Term(
            term["unit"],
            term["value"],
            _READ[term["unit"]](document[name]),
            term["low"],
            term["high"],
        )
        for name, term in told.items()
    }


def _machine(document: Mapping[str, Any]) -> Machine:
    # Certificates of earlier releases have neither.
    earlier = {"pauses": (), "sharing": (), **document}
    return Machine(
        **{
            **earlier,
            "node_lag": tuple(document["node_lag"]),
            "sharing": tuple(earlier["sharing"]),
            "pauses": tuple(ControllerPause(**pause) for pause in earlier["pauses"]),
        }
    )


def _timing(document: Mapping[str, Any]) -> TimingError:
    return TimingError(**{**document, "error": Spread(**document["error"])})


def _spread(document: Mapping[str, Any]) -> Spread:
    return Spread(**document)


def _count(document: Mapping[str, Any]) -> FailureCount:
    return FailureCount(**document)


def _counts(document: Mapping[str, Any]) -> CountCheck:
    return CountCheck(**document)


def _turns(document: Mapping[str, Any]) -> TurnCheck:
    return TurnCheck(**document)


_READ: Final[Mapping[str, Callable[[Mapping[str, Any]], Figures]]] = {
    "limits": _timing,
    "us": _spread,
    "failures": _count,
    "requests": _counts,
    "turns": _turns,
}
"""Readers of figures, by the unit of their terms."""

_EARLIER: Final[Mapping[str, Callable[[Mapping[str, Any]], Term]]] = {
    "transmission": lambda document: timing_term(_timing(document)),
    "execution": lambda document: timing_term(_timing(document)),
    "generator": lambda document: lateness_term(_spread(document), None),
    "transmission_failures": lambda document: failure_term(_count(document)),
    "execution_failures": lambda document: failure_term(_count(document)),
}
