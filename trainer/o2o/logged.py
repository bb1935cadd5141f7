"""Logged decisions with everything a learner may be rewarded by, from the engine or a data set.

Both ways give the same arrays for the same episodes; the tests hold them to it. The next stage is
``trainer.learning``, which learns from the `Transitions` and `Trajectory` made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import DEFAULT
from testbed.schedulers.catalogue import METHODS, TARGETS
from testbed.sim.engine.episodes import Played
from testbed.storage.dataset import DataSet
from trainer.learning.transitions import (
    BoolArray,
    FloatArray,
    IntArray,
    Trajectory,
    Transitions,
    check_decisions,
)

RewardKind: TypeAlias = Literal["team", "own", "credit"]
"""Kind of reward of a decision.

``team``: the sum of the feedback of all tasks that ended in the slot (paper section IV-B3).
``own``: the feedback of the task that was decided, +1 or -1 (the paper's r_i before it is summed),
in the slot of the decision; needs the outcomes of single tasks. ``credit``: the difference the
decision made to its own task and to those behind it in the queue; needs complete logs of queues.
"""

REWARD_KINDS: tuple[RewardKind, ...] = get_args(RewardKind)

ASK_NO_BITS = frozenset(name for name in TARGETS if not METHODS[name].asks_bits)
"""Schedulers that do not ask all peers whether they are overloaded, so that their logs do not tell
the mask a policy would have had. All destinations then count as allowed."""


@dataclass(frozen=True, slots=True, eq=False)
class LoggedSequences:
    """S sequences of decisions, M in total; sequence s has ``lengths[s]`` of them.

    A sequence has one state more than decisions: the state after the last. ``own`` and ``credit``
    are NaN where there was no task, or where the log does not tell.
    """

    states: FloatArray  # [M + S, D]
    masks: BoolArray  # [M + S, A]
    action: IntArray  # [M]
    log_prob: FloatArray  # [M], NaN where not known
    team: FloatArray  # [M]
    own: FloatArray  # [M]
    credit: FloatArray  # [M]
    lengths: IntArray  # [S]
    run: tuple[str, ...]  # [S]
    episode: IntArray  # [S]
    node: IntArray  # [S]
    success_rate: NDArray[np.float64]  # [episodes]
    incomplete: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """By (run, episode) whose log is not complete, what is missing."""
    encoder: str = DEFAULT

    def __len__(self) -> int:
        return len(self.action)

    @property
    def sequences(self) -> int:
        """S."""
        return len(self.lengths)

    @property
    def with_task(self) -> BoolArray:
        """Which of the M decisions placed a task [M]."""
        found: BoolArray = self.action < self.masks.shape[1] - 1
        return found

    def reward(self, kind: RewardKind) -> FloatArray:
        """Return the rewards of a kind [M]; NaN where there is none.

        Raises:
            UsageError: the log has no reward of this kind at all.
        """
        found = {"team": self.team, "own": self.own, "credit": self.credit}[kind]
        if not np.isfinite(found).any():
            raise UsageError(
                "these logs have no reward of the requested kind",
                [Problem("reward", f"no decision has a reward of kind {kind}", "kind team")],
            )
        return found

    def transitions(self, kind: RewardKind) -> Transitions:
        """Rows for the offline learner.

        With the team's reward, all M; with a reward of single decisions, those that have one, each
        an episode of its own: what follows is in the reward already.
        """
        reward = self.reward(kind)
        at = np.arange(len(self)) + np.repeat(np.arange(self.sequences), self.lengths)
        if kind != "team":
            rows = np.flatnonzero(self.with_task & np.isfinite(reward))
            at = at[rows]
            obs, mask = self.states[at], self.masks[at]
            return Transitions(
                obs=obs,
                mask=mask,
                action=self.action[rows],
                log_prob=self.log_prob[rows],
                reward=reward[rows],
                next_obs=obs,
                next_mask=mask,
                terminated=np.ones(len(rows), np.bool_),
                truncated=np.zeros(len(rows), np.bool_),
                encoder=self.encoder,
            )
        last = np.zeros(len(self), np.bool_)
        last[np.cumsum(self.lengths) - 1] = True
        return Transitions(
            obs=self.states[at],
            mask=self.masks[at],
            action=self.action,
            log_prob=self.log_prob,
            reward=reward,
            next_obs=self.states[at + 1],
            next_mask=self.masks[at + 1],
            terminated=np.zeros(len(self), np.bool_),
            truncated=last,
            encoder=self.encoder,
        )

    def trajectories(self, kind: RewardKind) -> list[Trajectory]:
        """Return episodes for the online learner, one per sequence.

        With a reward of single decisions only the decisions that have one are in them, and
        sequences without any are left out.

        Raises:
            UsageError: a log-probability is not known: no learned policy decided.
        """
        reward = self.reward(kind)
        kept = np.isfinite(reward) & (self.with_task | (kind == "team"))
        self._check(reward, np.ones_like(kept) if kind == "team" else kept)
        found: list[Trajectory] = []
        row = state = 0
        for s, length in enumerate(self.lengths.tolist()):
            rows = slice(row, row + length)
            states = slice(state, state + length + 1)
            row, state = row + length, state + length + 1
            obs, mask = self.states[states], self.masks[states]
            action, log_prob, rewards = self.action[rows], self.log_prob[rows], reward[rows]
            if kind != "team":
                chosen = np.flatnonzero(kept[rows])
                if not len(chosen):
                    continue
                after = np.append(chosen, length)
                obs, mask = obs[after], mask[after]
                action, log_prob, rewards = action[chosen], log_prob[chosen], rewards[chosen]
            found.append(
                Trajectory(
                    obs,
                    mask,
                    action,
                    log_prob,
                    rewards,
                    run=self.run[s],
                    episode=int(self.episode[s]),
                    node=int(self.node[s]),
                    checked=True,
                )
            )
        return found

    def _check(self, reward: FloatArray, kept: BoolArray) -> None:
        """Check the decisions that are kept [M], all at once."""
        at = np.arange(len(self)) + np.repeat(np.arange(self.sequences), self.lengths)
        check_decisions(
            f"runs {', '.join(sorted(set(self.run)))}",
            self.states,
            self.masks[at][kept],
            self.action[kept],
            self.log_prob[kept],
            reward[kept],
            self.masks[np.cumsum(self.lengths + 1) - 1],
        )


def of_engine(
    played: Played,
    own: FloatArray,
    credit: FloatArray,
    numbers: Sequence[int],
    method: str,
) -> LoggedSequences:
    """Episodes ``numbers`` [E] as ``method`` played them in the compiled engine; shares its arrays.

    ``own`` and ``credit`` are [E, N, T]. The engine knows every mask; a log of ``method`` may not
    (``ASK_NO_BITS``), and so does what comes from here.
    """
    episodes, size, states, width = played.features.shape
    slots, sequences = states - 1, episodes * size
    masks = played.mask.reshape(-1, size + 1)
    if method in ASK_NO_BITS:
        masks = _all_allowed(masks)
    return LoggedSequences(
        states=played.features.reshape(-1, width),
        masks=masks,
        action=played.actions.reshape(-1),
        log_prob=played.log_probability.reshape(-1),
        team=np.repeat(played.rewards, size, axis=0).reshape(-1),
        own=own.reshape(-1),
        credit=credit.reshape(-1),
        lengths=np.full(sequences, slots, np.int64),
        run=(f"sim-{method}",) * sequences,
        episode=np.repeat(np.asarray(numbers, np.int64), size),
        node=np.tile(np.arange(size, dtype=np.int64), episodes),
        success_rate=played.success_rates,
        encoder=played.encoder,
    )


def of_data_set(
    data: DataSet,
    own: FloatArray,
    credit: FloatArray,
    success_rate: NDArray[np.float64],
    incomplete: Mapping[tuple[str, int], str] | None = None,
) -> LoggedSequences:
    """A data set made of logs; ``own`` and ``credit`` [M] come from the outcomes of its tasks."""
    lengths = np.diff(data.offsets)
    ends = data.offsets[1:] - 1
    rows = len(data)
    at = np.arange(rows) + np.repeat(np.arange(len(lengths)), lengths)
    after = ends + np.arange(len(lengths)) + 1
    states = np.empty((rows + len(lengths), data.obs.shape[1]), np.float32)
    masks = np.empty((rows + len(lengths), data.mask.shape[1]), np.bool_)
    states[at], states[after] = data.obs, data.next_obs[ends]
    masks[at], masks[after] = data.mask, data.next_mask[ends]
    silent = np.array([name in ASK_NO_BITS for name in data.policy])[data.policy_index]
    masks[at[silent]] = _all_allowed(masks[at[silent]])
    return LoggedSequences(
        states=states,
        masks=masks,
        action=data.action,
        log_prob=data.log_prob,
        team=data.reward,
        own=own,
        credit=credit,
        lengths=lengths.astype(np.int64),
        run=data.run,
        episode=data.episode,
        node=data.node,
        success_rate=success_rate,
        incomplete=incomplete or {},
        encoder=data.encoder,
    )


def _all_allowed(masks: BoolArray) -> BoolArray:
    """Every destination where there is a task, "no task" where there is none."""
    allowed = np.repeat(~masks[:, -1:], masks.shape[1], axis=1)
    allowed[:, -1] = masks[:, -1]
    return allowed


def joined(parts: Sequence[LoggedSequences]) -> LoggedSequences:
    """Several logs of one network as one, in order.

    Raises:
        UsageError: none given, or of different widths.
    """
    widths = {(part.encoder, part.states.shape[1], part.masks.shape[1]) for part in parts}
    if len(widths) != 1:
        seen = ", ".join(f"{e}, {d} features x {a} actions" for e, d, a in sorted(widths)) or "none"
        raise UsageError(
            "these logs belong to different networks or encoders",
            [Problem("logs", f"found {seen}", "one or more, all of one encoder and N")],
        )
    if len(parts) == 1:
        return parts[0]
    return LoggedSequences(
        states=np.concatenate([part.states for part in parts]),
        masks=np.concatenate([part.masks for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        log_prob=np.concatenate([part.log_prob for part in parts]),
        team=np.concatenate([part.team for part in parts]),
        own=np.concatenate([part.own for part in parts]),
        credit=np.concatenate([part.credit for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        run=tuple(name for part in parts for name in part.run),
        episode=np.concatenate([part.episode for part in parts]),
        node=np.concatenate([part.node for part in parts]),
        success_rate=np.concatenate([part.success_rate for part in parts]),
        incomplete={key: why for part in parts for key, why in part.incomplete.items()},
        encoder=parts[0].encoder,
    )
