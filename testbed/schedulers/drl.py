"""``drl``: a learned policy decides (paper section IV), sampled from its masked distribution.

Which policy: the option ``policy``, else the one deployed on the testbed, which its controller
fills in as that option, else the one that ships with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, NamedTuple, Self, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.model.decision import Ask, Decision, Observation, Refuse, SchedulerContext
from testbed.model.encoders import encoder
from testbed.model.information import (
    BITS,
    FIRST_PROBED,
    PROBE,
    STATE,
    kind_of,
    longest_silence,
    period_of,
    probes_of,
)
from testbed.model.per_destination import PerDestinationEncoder
from testbed.model.refusal import OWN_PRICE, allow_refusal, fill, gain
from testbed.model.scarcity import mean_cycles
from testbed.model.task import Task
from testbed.policies import Policy, check_fits, resolve, shipped
from testbed.policies.inference import open_actor
from testbed.schedulers.probing import (
    mask_from_answers,
    mask_from_bits,
    mask_from_heard,
    mask_from_states,
    peers_of,
    task_of,
)

_MASKS: Final[Mapping[str, Callable[[Observation, int], tuple[bool, ...]]]] = {
    BITS: mask_from_bits,
    STATE: mask_from_states,
    PROBE: mask_from_answers,
}
"""How the mask [N] is made, by kind of information that is asked for."""

Features: TypeAlias = Callable[[Observation, Task, tuple[bool, ...]], Sequence[float]]
"""The input of a policy for a task under a mask [N], row by row; called once per decision, in
order."""

Note: TypeAlias = Callable[[int, Task, Observation], None]
"""Takes note of the destination of a task."""


class Drl:
    """A learned policy over the nodes that are not overloaded; samples its distribution."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "policy": "key or id of a policy, shipped/NAME, or a folder",
        "deterministic": "true takes the most probable destination",
        "refuse": "true refuses tasks that are not worth their work (docs/per-destination.md)",
    }

    def __init__(self, context: SchedulerContext) -> None:
        options = _options(context)
        reference = options.policy
        policy = shipped() if reference is None else resolve(reference, context.artifacts)
        self._prepare(context, policy, options)

    @classmethod
    def of(cls, context: SchedulerContext, policy: Policy) -> Self:
        """The scheduler of a policy at hand, wherever it came from; options as for ``drl``."""
        scheduler = cls.__new__(cls)
        scheduler._prepare(context, policy, _options(context))
        return scheduler

    def _prepare(self, context: SchedulerContext, policy: Policy, options: _Options) -> None:
        size = context.topology.size
        check_fits(policy.card, size)
        if options.refuse:
            allow_refusal(context.rules, "drl", policy.card.encoder)
        actor = open_actor(policy)
        flat = policy.card.kind == "flat"
        self.name = f"drl:{policy.card.id}"
        self.policy = policy
        self.features: Features
        self._note: Note = _nothing
        if flat:
            self.features = _flat(context, policy)
        else:
            rows = _per_destination(context, policy)
            self.features, self._note = rows.flat, rows.decided
        asks = policy.card.asks
        self._probes = probes_of(asks)
        self._bits_only = kind_of(asks) != STATE
        # The nodes tell each other their states as often as this says.
        self.gossip_period = period_of(asks, context.workload.slot)
        self._mask: Callable[[Observation, int], tuple[bool, ...]] = _MASKS.get(
            kind_of(asks), mask_from_bits
        )
        if self.gossip_period:
            silence = longest_silence(self.gossip_period, context.rules.control_delay)
            self._mask = partial(mask_from_heard, longest_silence=silence)
        self._deterministic = options.deterministic
        self._may_refuse = options.refuse
        self._price = OWN_PRICE / mean_cycles(context.workload)
        self._context = context
        self._size = size
        self._peers = peers_of(context.node, size)
        # The last action of a flat policy is "no task", never allowed where there is one.
        self._no_task = (False,) if flat else ()
        self._probabilities = actor.probabilities

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        """Ask all peers what the policy's card says: for their overload bit, or for their state, or
        some at random for their state and the others for their bit.

        Then sample among those that are free, and itself. A peer that did not answer is masked like
        one that is overloaded. A policy whose peers tell their states unasked asks nobody.
        With the option ``refuse``, refuse first what is not worth its work.
        """
        task = task_of(observation)
        if observation.round == 0 and self._peers and not self.gossip_period:
            states_of: tuple[int, ...] = ()
            if self._probes:
                sample = self._context.sample
                states_of = sample(task, self._peers, self._probes, FIRST_PROBED)
            return Ask(self._peers, bits_only=self._bits_only, states_of=states_of)
        mask = self._mask(observation, self._size)
        features = self.features(observation, task, mask)
        if self._may_refuse and self._refuses(task, features, mask):
            return Refuse()
        given = self._probabilities(features, mask + self._no_task)[: self._size]
        if self._deterministic:
            destination = given.index(max(given))
        else:
            destination = pick(given, self._context.uniform(task, 0))
        self._note(destination, task, observation)
        return Decision(destination, tuple(given), mask)

    def _refuses(self, task: Task, features: Sequence[float], mask: tuple[bool, ...]) -> bool:
        """Return whether a task is not worth its work (``testbed.model.refusal``)."""
        width = len(features) // self._size
        rows = [features[j * width : (j + 1) * width] for j in range(self._size)]
        full = fill(rows)
        return gain(rows, mask) <= self._price * full * full * task.cycles


def pick(probabilities: Sequence[float], u: float) -> int:
    """Return the index at which the running sum of ``probabilities`` passes ``u`` in [0, 1).

    Never one of probability 0; the last of the others where rounding leaves ``u`` over.
    """
    last = 0
    for index, probability in enumerate(probabilities):
        if probability > 0.0:
            last = index
            if u < probability:
                break
            u -= probability
    return last


class _Options(NamedTuple):
    """The options of ``drl``."""

    policy: str | None
    deterministic: bool
    refuse: bool


def _options(context: SchedulerContext) -> _Options:
    reference = context.options.get("policy")
    problems = []
    switches = {}
    for name in ("deterministic", "refuse"):
        given = context.options.get(name, False)
        if not isinstance(given, bool):
            problems.append(Problem(name, repr(given), "true or false"))
        switches[name] = given is True
    if reference is not None and (not isinstance(reference, str) or not reference):
        problems.append(Problem("policy", repr(reference), "key, id or folder of a policy"))
    if problems:
        raise UsageError("scheduler 'drl' has invalid options", problems)
    return _Options(None if reference is None else str(reference), **switches)


def _flat(context: SchedulerContext, policy: Policy) -> Features:
    encode = encoder(policy.card.encoder).bind(context)
    return lambda observation, task, mask: encode(observation)


def _per_destination(context: SchedulerContext, policy: Policy) -> PerDestinationEncoder:
    return PerDestinationEncoder(
        context.node, context.topology, context.rules, context.workload, policy.card.encoder
    )


def _nothing(_destination: int, _task: Task, _observation: Observation) -> None:
    """Take no note of a decision: a flat policy keeps nothing."""
