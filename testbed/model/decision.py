"""Observations and answers of a scheduler: the seam between a node and its scheduler.

A scheduler does no I/O. It is called with an ``Observation``; it answers with a ``Decision``, or
with an ``Ask`` for what it still needs from peers, and is then called again with the answers added.
This is the hook ``place``; other kinds of decision have modules of their own, and
``testbed.model.hooks`` lists all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from math import isfinite
from operator import index
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from testbed.model.draws import Purpose, extend, key, to_unit
from testbed.model.hook import PLACE, HookContext
from testbed.model.own_code import shown
from testbed.model.task import Task
from testbed.model.topology import Rules, Topology
from testbed.model.units import Micros
from testbed.model.workload import Workload

_Plain = TypeVar("_Plain", bool, float)


class PeerState(NamedTuple):
    """A node's answer to a probe about itself; true at ``at`` on its own episode clock.

    ``queue_length`` counts waiting and running tasks, ``backlog`` is the time until the execution
    queue is empty (the rest of the running task included), ``inbound`` counts the tasks announced
    to it and not yet admitted, and ``inbound_work`` is the time it needs to execute these.
    """

    overloaded: bool
    queue_length: int
    backlog: Micros
    inbound: int
    at: Micros
    inbound_work: Micros = 0


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

    ``bits_only`` asks for the overload bit alone (paper section IV-B2), but the peers ``states_of``
    for their full state all the same. ``enough`` is how many answers suffice; None waits for all
    that are asked. Peers are asked in the order given, and at equal delay answer in that order.
    """

    peers: tuple[int, ...]
    bits_only: bool = False
    enough: int | None = None
    states_of: tuple[int, ...] = ()

    def bit_only(self, peer: int) -> bool:
        """Return whether ``peer`` is asked for its overload bit alone."""
        return self.bits_only and peer not in self.states_of


class Decision(NamedTuple):
    """The destination of a task, a node index; the own node means execute here.

    ``probabilities`` [N] is the distribution the destination was sampled from, where there is one;
    ``mask`` [N] marks the destinations that were allowed, where a mask was used.
    """

    destination: int
    probabilities: tuple[float, ...] | None = None
    mask: tuple[bool, ...] | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The answer of a scheduler that refuses a task: it ends at once as ``refused``, a failure.

    Only where the scenario allows it (``Rules.reject``).
    """


class Observation(NamedTuple):
    """The knowledge of node ``node`` when it decides about ``task`` (model section 6).

    Lists have one entry per node; entries of the own node are 0. Lengths count tasks, backlogs are
    microseconds. ``answers`` holds what peers answered for this task, in order of arrival;
    ``known`` the last full state heard from each peer and when (own clock), from this or earlier
    tasks. ``task`` is None in a slot without an arrival, where nothing is decided.
    ``inbound_work`` is the time this node needs to execute what its receiving queues hold,
    ``sending_work`` the time each peer will need for what the sending queue to it holds; 0 or empty
    in logs of releases that did not keep them.
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
    """Number of earlier calls of the scheduler for this task."""
    inbound_work: Micros = 0
    sending_work: tuple[Micros, ...] = ()


@dataclass(frozen=True)
class SchedulerContext(HookContext["Scheduler"]):
    """The arguments of a scheduler: its node, the static network, and its own random stream.

    Static facts (capacities, rates, failure rates of all nodes and links) are known to every node;
    what changes while running is not, and has to be asked for. ``artifacts`` is the URL of the
    store that learned policies are fetched from.
    """

    hook: ClassVar[str] = PLACE

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

    def sample(
        self, task: Task, population: tuple[int, ...], count: int, first: int = 0
    ) -> tuple[int, ...]:
        """``count`` distinct members of ``population`` in random order; fewer if it is smaller.

        These are the draws from number ``first`` on of those that ``uniform`` gives.
        """
        pool = list(population)
        chosen = []
        stream = extend(self._stream, task.episode, task.id, self.node)
        for counter in range(first, first + min(count, len(pool))):
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

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        """Decide about ``observation.task``, ask peers first, or refuse it where that is allowed.

        Never called without a task. Asking the own node, asking the same question twice in vain
        (peers that did not answer are not in ``answers``) or more than four rounds is a defect.
        A task at which it raises, or whose answer is none of these, ends as ``lost``.
        """
        ...


def checked(answer: object, node: int, size: int) -> Decision | Ask | Refuse:
    """Return a scheduler's answer at ``node`` of ``size`` nodes, with plain numbers in it.

    Numbers of other libraries (NumPy) become Python's.

    Raises: ValueError: it is none; the message names what it is and what is required.
    """
    if isinstance(answer, Ask):
        return _checked_ask(answer, node, size)
    if isinstance(answer, Refuse):
        return answer
    if not isinstance(answer, Decision):
        raise ValueError(
            f"{shown(answer)}; it has to be Decision(destination), Ask(peers) or Refuse()"
        )
    # Values made by a user's code need not have the types of the fields.
    given: tuple[Any, Any, Any] = answer
    destination, probabilities, mask = given
    if type(destination) is not int:
        destination = _node_number(destination, "a destination")
    if not 0 <= destination < size:
        raise ValueError(f"Decision({destination}); there are nodes 0 to {size - 1}")
    if probabilities is not None:
        probabilities = _checked_probabilities(probabilities, size)
    if mask is not None and (type(mask) is not tuple or set(map(type, mask)) != {bool}):
        mask = _each(mask, bool, "mask", size)
    if mask is not None and len(mask) != size:
        count = _counted(mask, size)
        raise ValueError(f"a mask of {count} entries; it has to have one for each of {size}")
    return Decision(destination, probabilities, mask)


def _checked_ask(ask: Ask, node: int, size: int) -> Ask:
    peers = ask.peers
    if type(peers) is not tuple or any(type(peer) is not int for peer in peers):
        try:
            # One more than there can be: it need not end.
            peers = tuple(_node_number(peer, "a peer") for peer in islice(peers, size + 1))
        except TypeError:
            raise ValueError(f"an Ask for {shown(peers)}; it has to be a tuple of nodes") from None
    if not peers:
        raise ValueError("an Ask for no peers; it has to name at least one")
    if min(peers) < 0 or max(peers) >= size:
        raise ValueError(f"an Ask for peers {shown(peers)}; there are nodes 0 to {size - 1}")
    if node in peers:
        raise ValueError(f"an Ask for its own node {node}; it may ask its peers only")
    if len(set(peers)) < len(peers):
        raise ValueError(f"an Ask for {shown(peers)}; it may name each peer once")
    enough: Any = ask.enough
    if enough is not None and (not isinstance(enough, int) or enough < 0):
        raise ValueError(f"an Ask with enough={shown(enough)}; it has to be a count, or None")
    states_of = ask.states_of
    if type(states_of) is not tuple or not set(states_of) <= set(peers):
        raise ValueError(f"an Ask for the states of {shown(states_of)}; it may name who is asked")
    return Ask(peers, bool(ask.bits_only), enough, states_of)


def _checked_probabilities(given: object, size: int) -> tuple[float, ...]:
    if type(given) is tuple and set(map(type, given)) == {float}:
        probabilities: tuple[float, ...] = given
    else:
        probabilities = _each(given, float, "probabilities", size)
    if len(probabilities) != size:
        raise ValueError(
            f"{_counted(probabilities, size)} probabilities; there has to be one for each of "
            f"{size} nodes"
        )
    if not all(map(isfinite, probabilities)):
        raise ValueError(f"probabilities {shown(probabilities)}; they have to be finite numbers")
    return probabilities


def _each(values: Any, kind: Callable[[Any], _Plain], name: str, size: int) -> tuple[_Plain, ...]:
    try:
        # One more than there can be: it need not end.
        return tuple(kind(value) for value in islice(values, size + 1))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name} {shown(values)}; it has to be a tuple with one entry per node, or None"
        ) from None


def _counted(values: tuple[Any, ...], size: int) -> str:
    return f"more than {size}" if len(values) > size else str(len(values))


def _node_number(value: Any, what: str) -> int:
    try:
        return int(index(value))
    except TypeError:
        raise ValueError(f"{what} {shown(value)}; it has to be the number of a node") from None


SchedulerFactory: TypeAlias = Callable[[SchedulerContext], Scheduler]
"""Makes the scheduler of one node; what the registry holds under each name."""
