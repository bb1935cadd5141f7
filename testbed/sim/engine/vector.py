"""Many episodes at once, for training and evaluating policies (model section 6).

``VectorEnv`` plays E episodes side by side in the compiled engine: all nodes of all episodes
observe, a policy chooses, all decisions are carried out. The episodes may be of different networks.
Equal to the simulator task by task: same seeds, same actions, same endings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from testbed.model.encoders import DEFAULT, ENCODERS
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import check, pack
from testbed.sim.engine.compiled import DECIDING, Batch, compiled, task_at
from testbed.sim.engine.events import advance, place
from testbed.sim.engine.events import finish as finish_episode
from testbed.sim.engine.features import await_answers, kernel_of, observe
from testbed.sim.engine.threads import Threads, success_rates


class Seen(NamedTuple):
    """Observations of all nodes of all episodes in one slot.

    ``features`` [E, N, D] float32 by the encoder; ``mask`` [E, N, N + 1] of the allowed actions,
    where action N is "no task"; ``draws`` [E, N] from U(0, 1), with which a node's scheduler would
    sample: the same whenever the episode is played again.
    """

    features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    draws: NDArray[np.float64]


class Stepped(NamedTuple):
    """Team reward [E] of the slot that was decided, and whether the episodes are over."""

    rewards: NDArray[np.float32]
    done: bool


class FeaturePolicy(Protocol):
    """Anything that gives a distribution over actions.

    One whose features are not those of the default encoder names its own in ``encoder``.
    """

    def probabilities(
        self, features: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.floating[Any]]:
        """[B, A] for features [B, D] and masks [B, A]; 0 where the mask is False."""
        ...


def encoder_of(policy: FeaturePolicy) -> str:
    """Return the name of the encoder that ``policy`` is to be given features by."""
    return str(getattr(policy, "encoder", DEFAULT))


class UniformPolicy:
    """Every allowed action alike: what an untrained policy does."""

    def probabilities(
        self, features: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """1 / (number of allowed actions)."""
        uniform: NDArray[np.float64] = mask / mask.sum(axis=1, keepdims=True)
        return uniform


class VectorEnv:
    """E episodes, one per plan in ``plans``; all with N nodes and T slots.

    Give a plan E times to play E episodes of it. Use: ``reset``, then T times ``observe`` and
    ``step``. ``threads`` None takes one per processor; ``encoder`` makes the features. Not for use
    by several threads at once. With a control delay, nodes decide when the answers are there.

    Raises:
        UsageError: a plan or an encoder the compiled engine does not cover, plans that do not fit
            together, or one in which answers come after the tasks of the next slot.
    """

    def __init__(
        self, plans: Sequence[Plan], threads: int | None = None, encoder: str = DEFAULT
    ) -> None:
        self._kernel = kernel_of(encoder)
        self.encoder = encoder
        self.plans = tuple(plans)
        for plan in {id(plan): plan for plan in self.plans}.values():
            check(plan, by_slot=True)
        self.batch: Batch = pack(self.plans, encoder)
        self.episodes = len(self.plans)
        self.size: int = self.plans[0].topology.size
        self.slots: int = self.plans[0].workload.slots
        self.features = ENCODERS[encoder].size(self.size)
        self.slot = self.slots
        self._last: Seen | None = None
        self.threads = threads
        self._rows = Threads(self.episodes, threads, by_slot=True)

    def reset(self, numbers: Sequence[int]) -> None:
        """Begin episodes ``numbers`` [E], each as its plan's seeds draw it.

        Raises:
            ValueError: not one number per episode.
        """
        self._rows.open(self.batch, numbers)
        self.slot = 0
        self._last = None

    def observe(self) -> Seen:
        """Return the observations of the slot to be decided; the same until the next ``step``.

        Of a node with a task they are those of its decision; one whose task was dropped before that
        has none. After the last slot: the state at its end, in which no node has a task.
        """
        if self._last is None:
            self._last = self._look()
        return self._last

    def _look(self) -> Seen:
        shape = (self.episodes, self.size)
        seen = Seen(
            np.empty((*shape, self.features), np.float32),
            np.empty((*shape, self.size + 1), np.bool_),
            np.empty(shape, np.float64),
        )
        self._rows.each(_observe, self.batch, self._kernel, seen.features, seen.mask, seen.draws)
        return seen

    def step(self, actions: NDArray[np.integer[Any]]) -> Stepped:
        """Carry out ``actions`` [E, N] and go on to the next slot; after the last, to the end.

        Overloaded peers are not refused here: the mask is the policy's business, as on a real node.

        Raises:
            ValueError: an action outside 0..N, N for a node with a task, or a destination for one
                without; nothing has happened then.
        """
        actions = np.ascontiguousarray(actions, np.int64)
        if actions.shape != (self.episodes, self.size):
            expected = (self.episodes, self.size)
            raise ValueError(f"actions have shape {actions.shape}, expected {expected}")
        if self.slot >= self.slots:
            raise ValueError("these episodes are over; call reset first")
        if self._last is None:
            self._rows.each(_wait, self.batch)
        slot = slice(self.slot * self.size, (self.slot + 1) * self.size)
        arrived = self.batch.tasks["stage"][:, slot] == DECIDING
        legal = (actions >= 0) & (actions <= self.size) & ((actions < self.size) == arrived)
        if not legal.all():
            row, node = np.argwhere(~legal)[0]
            task = "a task" if arrived[row, node] else "no task"
            raise ValueError(
                f"action {actions[row, node]} of node {node} in episode {row}, slot {self.slot}: "
                f"it has {task}; 0 to {self.size - 1} place a task, {self.size} means no task"
            )
        self._rows.each(_step, self.batch, actions)
        self._last = None
        if self.slot + 1 == self.slots:
            self.slot += 1
            self._last = self._look()
            self._rows.each(finish, self.batch)
            self.slot -= 1
        rewards: NDArray[np.float32] = self.batch.rewards[:, self.slot].copy()
        self.slot += 1
        return Stepped(rewards, self.slot == self.slots)

    def end(self, last: Seen) -> None:
        """Take note that something else has played the episodes of ``batch`` to their end.

        ``last`` is the state after the last slot.
        """
        self.slot, self._last = self.slots, last

    def success_rates(self) -> NDArray[np.float64]:
        """Share of the tasks that succeeded [E], of episodes that are over; NaN without a task."""
        return success_rates(self.batch)


def sample(
    probabilities: NDArray[np.floating[Any]], draws: NDArray[np.float64]
) -> NDArray[np.int64]:
    """One action per row of ``probabilities`` [B, A], by inversion of ``draws`` [B] in (0, 1).

    The first action whose cumulative probability exceeds the draw; never one of probability 0.
    """
    return _sample(np.ascontiguousarray(probabilities, np.float64), draws)


def choose(seen: Seen, policy: FeaturePolicy) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Actions [E, N] sampled from ``policy``, and the probability [E, N] each had.

    The policy is asked about nodes with a task only; the others do nothing, with probability 1.
    """
    nothing = seen.mask.shape[-1] - 1
    actions = np.full(seen.draws.shape, nothing, np.int64)
    probability = np.ones(seen.draws.shape)
    arrived = ~seen.mask[..., nothing]
    if arrived.any():
        found = policy.probabilities(seen.features[arrived], seen.mask[arrived])
        chosen = sample(found, seen.draws[arrived])
        actions[arrived] = chosen
        probability[arrived] = found[np.arange(len(chosen)), chosen]
    return actions, probability


# --- kernels --------------------------------------------------------------------------------


@compiled
def _observe(
    batch: Batch,
    first: int,
    last: int,
    encoder: int,
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    draws: NDArray[np.float64],
) -> None:
    for e in range(first, last):
        observe(batch.episodes[e], encoder, features[e], mask[e], draws[e])


@compiled
def _wait(batch: Batch, first: int, last: int) -> None:
    for e in range(first, last):
        await_answers(batch.episodes[e])


@compiled
def _step(batch: Batch, first: int, last: int, actions: NDArray[np.int64]) -> None:
    for e in range(first, last):
        episode = batch.episodes[e]
        size = episode.nodes
        for i in range(size):
            m = episode.slot * size + i
            if task_at(episode, m).stage == DECIDING:
                place(episode, m, actions[e, i])
        episode.slot += 1
        advance(episode, episode.slot * episode.slot_length)


@compiled
def finish(batch: Batch, first: int, last: int) -> None:
    """Process all events until the tasks of the last slot have ended."""
    for e in range(first, last):
        finish_episode(batch.episodes[e])


@compiled
def _sample(probabilities: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    rows, count = probabilities.shape
    chosen = np.empty(rows, np.int64)
    for row in range(rows):
        total = 0.0
        for action in range(count):
            total += probabilities[row, action]
        left = draws[row] * total
        last = 0
        for action in range(count):
            p = probabilities[row, action]
            if p > 0.0:
                last = action
                if left < p:
                    break
                left -= p
        chosen[row] = last
    return chosen
