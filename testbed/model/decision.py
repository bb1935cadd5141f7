"""What a scheduler sees and what it answers: the seam between the node and its scheduler.

A scheduler does no I/O. It is called with an ``Observation``; it answers with a ``Decision``, or
with an ``Ask`` for what it still needs from peers, and is then called again with the answers added.
Later kinds of decision (routing weights, replica counts) get protocols of their own beside this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from testbed.model.draws import Purpose, extend, key, to_unit
from testbed.model.task import Task
from testbed.model.topology import Rules, Topology
from testbed.model.units import Micros
from testbed.model.workload import Workload


class PeerState(NamedTuple):
    """What a node says of itself when it is probed; true at ``at`` on its own episode clock.

    ``queue_length`` counts waiting and running tasks, ``backlog`` is the time until the execution
    queue is empty (the rest of the running task included), ``inbound`` counts the tasks announced
    to it and not yet admitted.
    """

    overloaded: bool
    queue_length: int
    backlog: Micros
    inbound: int
    at: Micros


class Answer(NamedTuple):
    """One peer's answer to an ``Ask``; ``state`` is None when only the overload bit was asked.

    ``asked`` and ``answered`` are instants on the clock of the node that asked.
    """

    peer: int
    overloaded: bool
    state: PeerState | None
    asked: Micros
    answered: Micros


class Ask(NamedTuple):
    """A request for the state of peers.

    ``bits_only`` asks for the overload bit alone (paper section IV-B2). ``enough`` is how many
    answers suffice; None waits for all that are asked. Peers are asked in the order given, and at
    equal delay answer in that order.
    """

    peers: tuple[int, ...]
    bits_only: bool = False
    enough: int | None = None


class Decision(NamedTuple):
    """Where the task goes. ``destination`` is a node index; the own node means execute here.

    ``probabilities`` [N] is the distribution the destination was sampled from, where there is one;
    ``mask`` [N] says which destinations were allowed, where a mask was used.
    """

    destination: int
    probabilities: tuple[float, ...] | None = None
    mask: tuple[bool, ...] | None = None


class Observation(NamedTuple):
    """What node ``node`` knows when it decides about ``task`` (model section 6).

    Lists have one entry per node; entries of the own node are 0. Lengths count tasks, backlogs are
    microseconds. ``answers`` holds what peers answered for this task, in order of arrival;
    ``known`` the last full state heard from each peer and when (own clock), from this or earlier
    tasks. ``task`` is None in a slot without an arrival, where nothing is decided.
    """

    node: int
    now: Micros
    episode: int
    slot: int
    task: Task | None
    queue_length: int
    backlog: Micros
    receiving: tuple[int, ...]
    sending: tuple[int, ...]
    send_backlog: tuple[Micros, ...]
    answers: tuple[Answer, ...]
    known: tuple[tuple[PeerState, Micros] | None, ...]
    round: int
    """How often the scheduler has been called for this task before."""


@dataclass(frozen=True)
class SchedulerContext:
    """What a scheduler is made from: its node, the static network, and its own random stream.

    Static facts (capacities, rates, failure rates of all nodes and links) are known to every node;
    what changes while running is not, and has to be asked for. ``artifacts`` is the URL of the
    store that learned policies are fetched from.
    """

    node: int
    topology: Topology
    rules: Rules
    workload: Workload
    seed: int
    options: dict[str, object] = field(default_factory=dict)
    artifacts: str | None = None

    @cached_property
    def _stream(self) -> int:
        return key(self.seed, Purpose.SCHEDULER)

    def uniform(self, task: Task, counter: int) -> float:
        """Draw number ``counter`` of this node's scheduler for ``task``, from U(0, 1)."""
        return to_unit(extend(self._stream, task.episode, task.id, self.node, counter))

    def sample(self, task: Task, population: tuple[int, ...], count: int) -> tuple[int, ...]:
        """``count`` distinct members of ``population`` in random order; fewer if it is smaller."""
        pool = list(population)
        chosen = []
        stream = extend(self._stream, task.episode, task.id, self.node)
        for counter in range(min(count, len(pool))):
            index = int(to_unit(extend(stream, counter)) * len(pool))
            chosen.append(pool[index])
            pool[index] = pool[-1]
            pool.pop()
        return tuple(chosen)


@runtime_checkable
class Scheduler(Protocol):
    """Decides where the tasks that arrive at one node are executed.

    One instance serves one node for one episode after another; it may keep what it has learned
    from its own observations, but must give the same answers for the same observations in the same
    order. ``name`` is what the task log calls it (for a learned policy: with the policy's id).
    """

    name: str

    def decide(self, observation: Observation) -> Decision | Ask:
        """Decide about ``observation.task``, or ask peers first.

        Never called without a task. Asking the own node, asking the same question twice in vain
        (peers that did not answer are not in ``answers``) or more than four rounds is a defect.
        """
        ...


SchedulerFactory: TypeAlias = Callable[[SchedulerContext], Scheduler]
"""Makes the scheduler of one node; what the registry holds under each name."""
