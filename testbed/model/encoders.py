"""From what a node observes to the numbers a policy is fed with (model section 6).

An encoder is known by its name, which a policy and a data set carry: a name's meaning never
changes, a change gets a new name. Every number is divided by its maximum in the scenario, so that
most lie in [0, 1]; ``Scales`` holds the maxima, for whoever computes the same on arrays. Pure
Python, because nodes encode one observation per decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    # The name of an encoder is all that a command needs to show its help.
    from testbed.model.decision import Observation
    from testbed.model.topology import Rules, Topology
    from testbed.model.units import Micros
    from testbed.model.workload import Workload

DEFAULT: Final = "paper-v1"
"""The encoder of data sets and policies for which none is named."""

QUEUE_SCALE: Final = 10.0
"""Queue lengths are divided by this: they have no maximum in a scenario, and the paper names none.

Of the paper's parameters ten tasks are about as many as can wait and still end in time.
"""


class NetworkFacts(Protocol):
    """The part of a scenario that every node knows; ``Plan`` and ``SchedulerContext`` have it."""

    @property
    def topology(self) -> Topology: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def workload(self) -> Workload: ...


Encode: TypeAlias = "Callable[[Observation], list[float]]"
"""The encoder of one network: observations of any of its nodes to [size] numbers."""


class Encoder(Protocol):
    """A named, fixed way to turn an observation into numbers; holds no state."""

    @property
    def name(self) -> str:
        """Name with version, by which policies and data sets refer to it."""
        ...

    def size(self, nodes: int) -> int:
        """D, how many numbers it gives in a network of ``nodes`` nodes."""
        ...

    def columns(self, nodes: int) -> tuple[str, ...]:
        """Return the name of each of the D numbers."""
        ...

    def bind(self, network: NetworkFacts) -> Encode:
        """Return the same as ``encode``, prepared for one network: for many observations."""
        ...

    def encode(self, observation: Observation, network: NetworkFacts) -> list[float]:
        """Return the D numbers of ``observation``."""
        ...


class Scales(NamedTuple):
    """Divisors of the features: the maxima of a scenario. None is 0.

    Queue lengths in tasks, backlogs and ages by the longest deadline in microseconds.
    """

    arrival_probability: float
    execution_failure_rate: float
    capacity_hz: float
    link_rate: float
    queue_length: float
    size_bytes: float
    cycles: float
    deadline: float

    @classmethod
    def of(cls, network: NetworkFacts) -> Scales:
        """The maxima of ``network``: of nodes and links as drawn, of tasks as they may be drawn."""
        topology, workload = network.topology, network.workload
        size_bytes = workload.size_bytes.maximum
        return cls(
            # A maximum of 0 means that the number is always 0, whatever divides it.
            arrival_probability=max(topology.arrival_probability) or 1.0,
            execution_failure_rate=max(topology.execution_failure_rate) or 1.0,
            capacity_hz=max(topology.capacity_hz),
            link_rate=max(map(max, topology.link_rate)) or 1.0,
            queue_length=QUEUE_SCALE,
            size_bytes=size_bytes,
            cycles=8 * size_bytes * workload.complexity.maximum,
            deadline=workload.deadline.maximum,
        )


class PaperEncoder:
    """``paper-v1``, the observation of the paper (section IV-B1), 3 N + 7 numbers.

    One-hot of the node [N]; its arrival probability, execution failure rate, capacity, length of
    the execution queue (waiting and running); lengths of its receiving queues by sender [N]; rates
    of its links [N], 1 for itself; size, cycles and deadline of the task, 0 without one.
    """

    name: Final = "paper-v1"

    def size(self, nodes: int) -> int:
        """See ``Encoder``."""
        return 3 * nodes + 7

    def columns(self, nodes: int) -> tuple[str, ...]:
        """See ``Encoder``."""
        return (
            *(f"is_node_{i}" for i in range(nodes)),
            "arrival_probability",
            "execution_failure_rate",
            "capacity",
            "queue_length",
            *(f"receiving_{i}" for i in range(nodes)),
            *(f"link_rate_{i}" for i in range(nodes)),
            "size",
            "cycles",
            "deadline",
        )

    def bind(self, network: NetworkFacts) -> Encode:
        """See ``Encoder``."""
        topology, scales = network.topology, Scales.of(network)
        nodes = topology.size
        fixed: list[list[float]] = []
        rates: list[list[float]] = []
        for i in range(nodes):
            fixed.append(
                [
                    *(1.0 if j == i else 0.0 for j in range(nodes)),
                    topology.arrival_probability[i] / scales.arrival_probability,
                    topology.execution_failure_rate[i] / scales.execution_failure_rate,
                    topology.capacity_hz[i] / scales.capacity_hz,
                ]
            )
            rates.append(
                [
                    1.0 if j == i else rate / scales.link_rate
                    for j, rate in enumerate(topology.link_rate[i])
                ]
            )

        def encode(observation: Observation) -> list[float]:
            i, task = observation.node, observation.task
            return [
                *fixed[i],
                observation.queue_length / QUEUE_SCALE,
                *[length / QUEUE_SCALE for length in observation.receiving],
                *rates[i],
                *(
                    (0.0, 0.0, 0.0)
                    if task is None
                    else (
                        task.size_bytes / scales.size_bytes,
                        task.cycles / scales.cycles,
                        task.deadline / scales.deadline,
                    )
                ),
            ]

        return encode

    def encode(self, observation: Observation, network: NetworkFacts) -> list[float]:
        """See ``Encoder``."""
        return self.bind(network)(observation)


class ExtendedEncoder:
    """``extended-v1``: ``paper-v1`` and what a node knows of backlogs, 6 N + 7 numbers.

    After the numbers of ``paper-v1``: backlog of the sending queue to each peer [N], 0 for itself;
    last known backlog of each node's execution queue [N], the own one from the node itself; age of
    that knowledge [N], 0 for the own. Backlogs and ages are divided by the longest deadline; a peer
    never heard of has backlog 0 and age 1, the greatest.
    """

    name: Final = "extended-v1"
    _paper: Final = PaperEncoder()

    def size(self, nodes: int) -> int:
        """See ``Encoder``."""
        return 6 * nodes + 7

    def columns(self, nodes: int) -> tuple[str, ...]:
        """See ``Encoder``."""
        return (
            *self._paper.columns(nodes),
            *(f"send_backlog_{i}" for i in range(nodes)),
            *(f"known_backlog_{i}" for i in range(nodes)),
            *(f"known_age_{i}" for i in range(nodes)),
        )

    def bind(self, network: NetworkFacts) -> Encode:
        """See ``Encoder``."""
        paper, longest = self._paper.bind(network), Scales.of(network).deadline

        def encode(observation: Observation) -> list[float]:
            backlogs: list[float] = []
            ages: list[float] = []
            own, now = observation.node, observation.now
            for node, heard in enumerate(observation.known):
                if node == own:
                    backlogs.append(observation.backlog / longest)
                    ages.append(0.0)
                elif heard is None:
                    backlogs.append(0.0)
                    ages.append(1.0)
                else:
                    state, at = heard
                    backlogs.append(state.backlog / longest)
                    ages.append(min((now - at) / longest, 1.0))
            return [
                *paper(observation),
                *[backlog / longest for backlog in observation.send_backlog],
                *backlogs,
                *ages,
            ]

        return encode

    def encode(self, observation: Observation, network: NetworkFacts) -> list[float]:
        """See ``Encoder``."""
        return self.bind(network)(observation)


ENCODERS: Final[Mapping[str, Encoder]] = MappingProxyType(
    {encoder.name: encoder for encoder in (PaperEncoder(), ExtendedEncoder())}
)
"""All encoders that give one row of numbers per node, by name."""


def encoder(name: str) -> Encoder:
    """Return the encoder called ``name``.

    Raises:
        UsageError: there is none; lists the known ones.
    """
    try:
        return ENCODERS[name]
    except KeyError:
        known = ", ".join(ENCODERS)
        raise UsageError(
            "unknown encoder", [Problem("encoder", repr(name), f"known are {known}")]
        ) from None


def action_mask(observation: Observation, nodes: int) -> list[bool]:
    """Return which of the N + 1 actions are allowed (paper section IV-B2); N is "no task".

    Without a task only N is, with a task never. The own node always is; a peer is unless the last
    it answered for this task is that it is overloaded.
    """
    if observation.task is None:
        return [False] * nodes + [True]
    mask = [True] * nodes + [False]
    for answer in observation.answers:
        mask[answer.peer] = not answer.overloaded
    mask[observation.node] = True
    return mask


def time_slot(at: Micros, network: NetworkFacts) -> int:
    """The slot, from 0, in which instant ``at`` of an episode lies; the last for all later ones."""
    workload = network.workload
    return min(at // workload.slot, workload.slots - 1)
