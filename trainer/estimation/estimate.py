"""Success rate of a policy from logs of others, by three estimators, with bootstrap intervals.

* ``fqe``: the mean value of the policy's choices, by fitted Q evaluation. Needs no probabilities.
* ``doubly-robust``: the same, corrected by the outcomes of logged choices weighted by how much
  likelier the policy makes them (N. Jiang and L. Li, "Doubly Robust Off-policy Value Evaluation for
  Reinforcement Learning", ICML 2016, eq. 10). It is unbiased where either values or probabilities
  are right, but for the states, which are those of the log.
* ``importance``: the weighted outcomes alone, self-normalised.

Every node's decisions are estimated in the states that the log has. Where a policy is used by all
nodes, other states come about, and no estimator here knows them: with other queues than in the log
outcomes are other ones. docs/policy-estimates.md has the errors that were measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError, check_settings
from trainer.estimation.fqe import FqeConfig, Rows, expected, fit, values
from trainer.learning.transitions import BoolArray, FloatArray, IntArray
from trainer.o2o.logged import LoggedSequences

Probabilities: TypeAlias = Callable[[FloatArray, BoolArray], FloatArray]
"""The policy: probabilities [B, A] for observations [B, D] under masks [B, A]."""

Estimator: TypeAlias = Literal["fqe", "doubly-robust", "importance"]

MIN_EPISODES: Final = 4
"""Fewer can neither be divided in halves nor drawn from with a meaning."""

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class EstimateConfig:
    """Settings of an estimate.

    Raises:
        UsageError: a value outside its range.
    """

    fqe: FqeConfig = field(default_factory=FqeConfig)
    resamples: int = 2_000
    """Drawings of the bootstrap."""
    largest_weight: float = 20.0
    """Weights of logged choices are cut here: a little bias for much less variance."""

    def __post_init__(self) -> None:
        checks = (
            ("resamples", self.resamples >= 100, "at least 100"),
            ("largest_weight", self.largest_weight >= 1, "at least 1"),
        )
        check_settings("invalid settings of the estimate", "estimate", self, checks)


@dataclass(frozen=True, slots=True)
class Estimated:
    """A success rate with its interval, 95 %, by bootstrap over episodes.

    The interval knows the chance in the logs alone: neither that of the fit, nor that the states
    are those of the logs.
    """

    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What logs say of a policy.

    ``logged`` is the success rate of what decided in them. Without known probabilities of all
    choices there is only ``fqe``. ``effective`` is the number of decisions that equally weighted
    ones would have to be (the Kish sample size); NaN without probabilities. ``cut`` is the share of
    weights that were cut.
    """

    estimates: dict[Estimator, Estimated]
    logged: Estimated
    episodes: int
    decisions: int
    effective: float
    cut: float


class _Sums(NamedTuple):
    """Sums by episode, from whose ratio a rate is computed."""

    above: NDArray[np.float64]
    below: NDArray[np.float64]


def estimate(
    policy: Probabilities, logged: LoggedSequences, config: EstimateConfig | None = None
) -> Estimate:
    """Return the success rate that ``policy`` would have had; the same input, the same result.

    ``logged`` has the outcomes of single decisions (``own``: 1 and -1).

    Raises:
        UsageError: too few episodes, or logs without outcomes.
    """
    config = config or EstimateConfig()
    data = _Logged.of(policy, logged, config.fqe.gamma)
    rng = np.random.default_rng([config.fqe.seed, 1])
    state, chosen, after = _valued(data, config.fqe)
    counted = data.counted(config.fqe.gamma)
    sums: dict[Estimator, _Sums] = {"fqe": data.by_episode(state, counted)}
    effective = cut = float("nan")
    if np.isfinite(data.log_prob[data.told]).all():
        weight = np.exp(data.policy_log_prob - np.where(data.told, data.log_prob, 0.0))
        weight = np.where(data.idle, 1.0, np.where(data.told, weight, 0.0))
        cut = float(np.mean(weight[data.told] > config.largest_weight))
        weight = np.minimum(weight, config.largest_weight)
        of_tasks = weight[data.told]
        effective = float(of_tasks.sum() ** 2 / max(np.square(of_tasks).sum(), 1e-12))
        corrected = _corrected(data, state, chosen, after, weight, config.fqe.gamma)
        sums["doubly-robust"] = data.by_episode(corrected, counted)
        weighted = np.where(data.told, weight, 0.0)
        sums["importance"] = data.by_episode(weighted * data.reward, weighted)
    own = data.told.astype(np.float64)
    return Estimate(
        estimates={name: _drawn(each, config.resamples, rng) for name, each in sums.items()},
        logged=_drawn(data.by_episode(own * data.reward, own), config.resamples, rng),
        episodes=data.episodes,
        decisions=int(data.told.sum()),
        effective=effective,
        cut=cut,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Logged:
    """M decisions, those of idle slots among them, in order, and what the policy does there."""

    obs: FloatArray  # [M, D]
    mask: BoolArray  # [M, A]
    action: IntArray  # [M]
    log_prob: FloatArray  # [M], NaN where not known
    reward: FloatArray  # [M], 1 for a success, 0 without a task
    told: BoolArray  # [M], a task was placed whose outcome is known
    idle: BoolArray  # [M], there was no task to place
    next_obs: FloatArray  # [M, D]
    next_mask: BoolArray  # [M, A]
    policy: FloatArray  # [M, A]
    next_policy: FloatArray  # [M, A]; empty if no later slot counts
    last: BoolArray  # [M], the last of its sequence
    episode: IntArray  # [M], from 0
    sequence: IntArray  # [M], from 0

    @property
    def episodes(self) -> int:
        return int(self.episode.max()) + 1

    @property
    def policy_log_prob(self) -> NDArray[np.float64]:
        """ln of the probability of what was chosen [M]; very low for what the policy never does."""
        chosen = self.policy[np.arange(len(self.action)), self.action].astype(np.float64)
        found: NDArray[np.float64] = np.log(np.maximum(chosen, 1e-300))
        return found

    @classmethod
    def of(cls, policy: Probabilities, logged: LoggedSequences, gamma: float) -> _Logged:
        rows = len(logged)
        numbers = np.repeat(np.arange(logged.sequences), logged.lengths)
        at = np.arange(rows) + numbers
        obs, mask = logged.states[at], logged.masks[at]
        told = logged.with_task & np.isfinite(logged.own)
        keys = [(run, int(e)) for run, e in zip(logged.run, logged.episode, strict=True)]
        places = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        problems = []
        if not told.any():
            problems.append(
                Problem("outcomes", "the logs have none", "a data set built with this release")
            )
        if len(places) < MIN_EPISODES:
            problems.append(Problem("episodes", str(len(places)), f"at least {MIN_EPISODES}"))
        if problems:
            raise UsageError("nothing can be estimated from these logs", problems)
        last = np.zeros(rows, np.bool_)
        last[np.cumsum(logged.lengths) - 1] = True
        following = logged.states[at + 1], logged.masks[at + 1]
        return cls(
            obs=obs,
            mask=mask,
            action=logged.action,
            log_prob=logged.log_prob,
            reward=np.where(told, (logged.own + 1.0) / 2.0, 0.0).astype(np.float32),
            told=told,
            idle=~logged.with_task,
            next_obs=following[0],
            next_mask=following[1],
            policy=policy(obs, mask),
            next_policy=policy(*following) if gamma else np.empty((0, mask.shape[1]), np.float32),
            last=last,
            episode=np.array([places[key] for key in keys], np.int64)[numbers],
            sequence=numbers.astype(np.int64),
        )

    def counted(self, gamma: float) -> NDArray[np.float64]:
        """Return how many tasks the value of each state is of [M], discounted as it is.

        After the end of a sequence tasks go on to come as often as before.
        """
        tasks = self.told.astype(np.float64)
        if not gamma:
            return tasks
        later = np.bincount(self.sequence, tasks) / np.bincount(self.sequence) / (1.0 - gamma)
        found = np.empty(len(tasks))
        following = 0.0
        for row in range(len(tasks) - 1, -1, -1):
            if self.last[row]:
                following = later[self.sequence[row]]
            following = found[row] = tasks[row] + gamma * following
        return found

    def by_episode(self, above: NDArray[Any], below: NDArray[Any]) -> _Sums:
        """Return the sums by episode; states that no task counts in are left out."""
        used = np.where(below > 0, above, 0.0)
        sums = [np.bincount(self.episode, each).astype(np.float64) for each in (used, below)]
        return _Sums(*sums)


def _valued(
    data: _Logged, config: FqeConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return values [M]: of states under the policy, of logged choices, and of the next states.

    Those of an episode are by a network that was fitted to other episodes.
    """
    rows = len(data.action)
    state, chosen, after = (np.zeros(rows) for _ in range(3))
    order = np.random.default_rng([config.seed, 2]).permutation(data.episodes)
    fold = np.empty(data.episodes, np.int64)
    fold[order] = np.arange(data.episodes) % config.folds
    fold_of = fold[data.episode]
    fitted = data.told | data.idle if config.gamma else data.told
    for number in range(config.folds):
        learned = np.flatnonzero(fitted & (fold_of != number))
        judged = np.flatnonzero(fold_of == number)
        network = fit(
            Rows(
                data.obs[learned],
                data.action[learned],
                data.reward[learned],
                data.next_obs[learned],
                data.next_policy[learned] if config.gamma else data.next_policy,
            ),
            data.mask.shape[1],
            config,
            number,
        )
        found = values(network, data.obs[judged])
        state[judged] = expected(data.policy[judged], found, data.mask[judged])
        chosen[judged] = found[np.arange(len(judged)), data.action[judged]]
        if config.gamma:
            ends = judged[data.last[judged]]
            found = values(network, data.next_obs[ends])
            after[ends] = expected(data.next_policy[ends], found, data.next_mask[ends])
    return state, chosen, after


def _corrected(
    data: _Logged,
    state: NDArray[np.float64],
    chosen: NDArray[np.float64],
    after: NDArray[np.float64],
    weight: NDArray[np.float64],
    gamma: float,
) -> NDArray[np.float64]:
    """Return the doubly robust values [M] of the logged states."""
    if not gamma:
        found: NDArray[np.float64] = state + weight * (data.reward - chosen)
        return found
    found = np.empty(len(state))
    following = 0.0
    for row in range(len(state) - 1, -1, -1):
        if data.last[row]:
            following = after[row]
        gain = data.reward[row] + gamma * following - chosen[row]
        following = found[row] = state[row] + weight[row] * gain
    return found


def _drawn(sums: _Sums, resamples: int, rng: np.random.Generator) -> Estimated:
    """Return the ratio of the sums and the ends of the percentile bootstrap over episodes."""
    episodes = len(sums.above)
    chosen = rng.integers(0, episodes, (resamples, episodes))
    below = sums.below[chosen].sum(axis=1)
    rates = sums.above[chosen].sum(axis=1) / np.where(below > 0, below, np.nan)
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.nanpercentile(rates, [tail, 100 - tail])
    return Estimated(float(sums.above.sum() / sums.below.sum()), float(low), float(high))
