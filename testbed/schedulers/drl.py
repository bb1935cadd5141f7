"""``drl``: a learned policy decides (paper section IV), sampled from its masked distribution.

Which policy: the option ``policy``, else the one deployed on the testbed, which its controller
fills in as that option, else the one that ships with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.encoders import encoder
from testbed.model.information import BITS
from testbed.model.per_destination import PerDestinationEncoder
from testbed.model.task import Task
from testbed.policies import Policy, check_fits, resolve, shipped
from testbed.policies.inference import open_actor
from testbed.schedulers.probing import mask_from_bits, mask_from_states, peers_of, task_of

Features: TypeAlias = Callable[[Observation, Task, tuple[bool, ...]], Sequence[float]]
"""The input of a policy for a task under a mask [N], row by row; called once per decision, in
order."""


class Drl:
    """A learned policy over the nodes that are not overloaded; samples its distribution."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "policy": "key or id of a policy, shipped/NAME, or a folder",
        "deterministic": "true takes the most probable destination",
    }

    def __init__(self, context: SchedulerContext) -> None:
        reference, deterministic = _options(context)
        policy = shipped() if reference is None else resolve(reference, context.artifacts)
        self._prepare(context, policy, deterministic)

    @classmethod
    def of(cls, context: SchedulerContext, policy: Policy) -> Self:
        """The scheduler of a policy at hand, wherever it came from; options as for ``drl``."""
        scheduler = cls.__new__(cls)
        scheduler._prepare(context, policy, _options(context)[1])
        return scheduler

    def _prepare(self, context: SchedulerContext, policy: Policy, deterministic: bool) -> None:
        size = context.topology.size
        check_fits(policy.card, size)
        actor = open_actor(policy)
        flat = policy.card.kind == "flat"
        self.name = f"drl:{policy.card.id}"
        self.policy = policy
        self.features: Features = (_flat if flat else _per_destination)(context, policy)
        self._bits_only = policy.card.asks == BITS
        self._mask = mask_from_bits if self._bits_only else mask_from_states
        self._deterministic = deterministic
        self._context = context
        self._size = size
        self._peers = peers_of(context.node, size)
        # The last action of a flat policy is "no task", never allowed where there is one.
        self._no_task = (False,) if flat else ()
        self._probabilities = actor.probabilities

    def decide(self, observation: Observation) -> Decision | Ask:
        """Ask all peers what the policy's card says: for their overload bit, or for their state.

        Then sample among those that are free, and itself. A peer that did not answer is masked like
        one that is overloaded.
        """
        task = task_of(observation)
        if observation.round == 0 and self._peers:
            return Ask(self._peers, bits_only=self._bits_only)
        mask = self._mask(observation, self._size)
        features = self.features(observation, task, mask)
        given = self._probabilities(features, mask + self._no_task)[: self._size]
        if self._deterministic:
            destination = given.index(max(given))
        else:
            destination = pick(given, self._context.uniform(task, 0))
        return Decision(destination, tuple(given), mask)


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


def _options(context: SchedulerContext) -> tuple[str | None, bool]:
    reference = context.options.get("policy")
    deterministic = context.options.get("deterministic", False)
    problems = []
    if reference is not None and (not isinstance(reference, str) or not reference):
        problems.append(Problem("policy", repr(reference), "key, id or folder of a policy"))
    if not isinstance(deterministic, bool):
        problems.append(Problem("deterministic", repr(deterministic), "true or false"))
    if problems:
        raise UsageError("scheduler 'drl' has invalid options", problems)
    return (None if reference is None else str(reference)), deterministic is True


def _flat(context: SchedulerContext, policy: Policy) -> Features:
    encode = encoder(policy.card.encoder).bind(context)
    return lambda observation, task, mask: encode(observation)


def _per_destination(context: SchedulerContext, policy: Policy) -> Features:
    return PerDestinationEncoder(
        context.node, context.topology, context.rules, context.workload, policy.card.encoder
    ).flat
