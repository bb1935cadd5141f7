"""Whole episodes in the compiled engine: played by a policy or a baseline, kept or only scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import DEFAULT, ENCODERS
from testbed.model.per_destination import STATE_NAME
from testbed.model.work_price import LEARNED, WorkPrice
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import check, keeps, pack
from testbed.sim.engine.compiled import DECIDING, STAGES, Batch, compiled, task_at
from testbed.sim.engine.events import advance, finish, open_episode
from testbed.sim.engine.features import add_answers, kernel_of, observe
from testbed.sim.engine.heuristics import (
    LOOKS_AT_INBOUND,
    METHODS,
    decide,
    run_heuristic,
    stages_asked,
)
from testbed.sim.engine.perceptron import CompiledPolicy
from testbed.sim.engine.rollouts import Kept as RolloutKept
from testbed.sim.engine.rollouts import roll_out
from testbed.sim.engine.threads import Threads, success_rates
from testbed.sim.engine.vector import FeaturePolicy, VectorEnv, choose


class Played(NamedTuple):
    """All observations and decisions of E episodes, node by node, ready to be learned from.

    ``features`` and ``mask`` have one entry more than slots: the state after the last, in which
    only "no task" is allowed. ``mask`` allows what was done, also where a baseline chose a peer
    that is overloaded. ``log_probability`` is NaN where the behaviour is a baseline.
    """

    features: NDArray[np.float32]  # [E, N, T + 1, D]
    mask: NDArray[np.bool_]  # [E, N, T + 1, N + 1]
    actions: NDArray[np.int64]  # [E, N, T]
    log_probability: NDArray[np.float32]  # [E, N, T]
    rewards: NDArray[np.float32]  # [E, T] team reward
    success_rates: NDArray[np.float64]  # [E]
    encoder: str


def play(env: VectorEnv, policy: FeaturePolicy, numbers: Sequence[int]) -> NDArray[np.float64]:
    """Play episodes ``numbers`` with actions sampled from ``policy``; the success rates [E].

    Wholly in compiled code where ``policy`` is a ``perceptron.CompiledPolicy``.
    """
    if isinstance(policy, CompiledPolicy):
        roll_out(env, policy.network(), numbers)
        return env.success_rates()
    env.reset(numbers)
    done = False
    while not done:
        done = env.step(choose(env.observe(), policy)[0]).done
    return env.success_rates()


def record(env: VectorEnv, policy: FeaturePolicy, numbers: Sequence[int]) -> Played:
    """As ``play``, and keep what was observed, done and rewarded."""
    played = _room(env.episodes, env.plans[0], env.encoder)
    if isinstance(policy, CompiledPolicy):
        kept = (played.features, played.mask, played.actions, played.log_probability)
        roll_out(env, policy.network(), numbers, RolloutKept(*kept))
        return played._replace(rewards=env.batch.rewards.copy(), success_rates=env.success_rates())
    env.reset(numbers)
    for slot in range(env.slots):
        seen = env.observe()
        actions, probability = choose(seen, policy)
        played.features[:, :, slot] = seen.features
        played.mask[:, :, slot] = seen.mask
        played.actions[:, :, slot] = actions
        played.log_probability[:, :, slot] = np.log(probability)
        env.step(actions)
    seen = env.observe()
    played.features[:, :, -1] = seen.features
    played.mask[:, :, -1] = seen.mask
    return played._replace(rewards=env.batch.rewards.copy(), success_rates=env.success_rates())


def record_baseline(
    plan: Plan,
    method: str,
    numbers: Sequence[int],
    threads: int | None = None,
    *,
    batch: Batch | None = None,
    encoder: str = DEFAULT,
) -> Played:
    """Play episodes ``numbers`` with the baseline ``method`` and keep what a policy would see.

    ``batch``, of as many rows of this plan packed for ``encoder``, is played in where it is given:
    it then holds what became of every task.

    Control messages have to take no time: a baseline that asks nobody decides earlier than a
    policy, and what that would see is not what it saw.

    Raises:
        UsageError: a plan, a method or an encoder the engine does not cover.
        ValueError: a batch that was not packed for the encoder.
    """
    codes = (_code(method), kernel_of(encoder))
    check(plan, by_slot=True)
    if delay := plan.rules.control_delay:
        raise UsageError(
            "baselines are recorded for policies without control delay only",
            [Problem("rules.control_delay", f"{delay} us", "0")],
        )
    if batch is None:
        batch = pack([plan] * len(numbers), encoder)
    if not keeps(batch, encoder):
        raise ValueError(f"the batch was not packed for encoder {encoder}")
    played = _room(len(numbers), plan, encoder)
    kept = Kept(played.features, played.mask, played.actions)
    Threads(len(numbers), threads).each(_log, batch, *codes, np.asarray(numbers, np.int64), kept)
    played.log_probability[:] = np.nan
    return played._replace(rewards=batch.rewards.copy(), success_rates=success_rates(batch))


def score_baseline(
    plan: Plan, method: str, numbers: Sequence[int], threads: int | None = None
) -> NDArray[np.float64]:
    """Play episodes ``numbers`` with the baseline ``method``; the success rates [E].

    Raises:
        UsageError: a plan or a method the engine does not cover.
    """
    return _rates(plan, method, numbers, [LEARNED] * len(numbers), threads)


def score_prices(
    plan: Plan, prices: Sequence[WorkPrice], numbers: Sequence[int], threads: int | None = None
) -> NDArray[np.float64]:
    """Play episodes ``numbers`` with ``priced`` by each of ``prices``; the success rates [P, E].

    Raises:
        UsageError: a plan the engine does not cover.
    """
    shape = len(prices), len(numbers)
    by_episode = [price for price in prices for _ in numbers]
    return _rates(plan, "priced", [*numbers] * len(prices), by_episode, threads).reshape(shape)


def _rates(
    plan: Plan,
    method: str,
    numbers: Sequence[int],
    prices: Sequence[WorkPrice],
    threads: int | None,
) -> NDArray[np.float64]:
    """Play episodes ``numbers``, each by its own of ``prices``; the success rates [E]."""
    # Few rows, used again and again, stay in the cache.
    rows = Threads(len(numbers), threads)
    batch = pack_for_baseline([plan] * rows.parts, method)
    rates = np.empty(len(numbers))
    played = np.asarray(numbers, np.int64)
    by = np.asarray(prices, np.float64).reshape(len(numbers), len(LEARNED))
    rows.each_part(_score, batch, _code(method), played, by, rates)
    return rates


def pack_for_baseline(plans: Sequence[Plan], method: str) -> Batch:
    """Return a batch that keeps what a baseline looks at; see ``pack``."""
    return pack(plans, STATE_NAME if method in LOOKS_AT_INBOUND else None)


def _code(method: str) -> int:
    if method not in METHODS:
        raise UsageError(
            "the compiled engine has no such baseline",
            [Problem("method", method, f"one of {', '.join(METHODS)}")],
        )
    return METHODS[method]


class Kept(NamedTuple):
    """The arrays of a ``Played`` that a kernel fills."""

    features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    actions: NDArray[np.int64]


def _room(episodes: int, plan: Plan, encoder: str) -> Played:
    size, slots = plan.topology.size, plan.workload.slots
    width = ENCODERS[encoder].size(size)
    return Played(
        features=np.empty((episodes, size, slots + 1, width), np.float32),
        mask=np.empty((episodes, size, slots + 1, size + 1), np.bool_),
        actions=np.empty((episodes, size, slots), np.int64),
        log_probability=np.empty((episodes, size, slots), np.float32),
        rewards=np.empty((episodes, slots), np.float32),
        success_rates=np.empty(episodes),
        encoder=encoder,
    )


@compiled
def _score(
    batch: Batch,
    row: int,
    first: int,
    last: int,
    method: int,
    numbers: NDArray[np.int64],
    prices: NDArray[np.float64],
    rates: NDArray[np.float64],
) -> None:
    """Play ``numbers`` from ``first`` to ``last`` one after another in one row."""
    episode = batch.episodes[row]
    for k in range(first, last):
        episode.price[:] = prices[k]
        run_heuristic(episode, method, numbers[k])
        rates[k] = episode.succeeded / episode.tasks if episode.tasks > 0 else np.nan


@compiled
def _log(
    batch: Batch,
    first: int,
    last: int,
    method: int,
    encoder: int,
    numbers: NDArray[np.int64],
    kept: Kept,
) -> None:
    """As ``run_heuristic``, writing down every slot before and after its decisions."""
    size = batch.nodes.shape[1]
    features, mask, actions = kept.features, kept.mask, kept.actions
    draws = np.empty(size, np.float64)
    stages = stages_asked(method)
    for e in range(first, last):
        episode = batch.episodes[e]
        open_episode(episode, numbers[e])
        for slot in range(episode.slots + 1):
            episode.slot = slot
            advance(episode, slot * episode.slot_length)
            observe(episode, encoder, features[e, :, slot], mask[e, :, slot], draws)
            if slot == episode.slots:
                break
            for i in range(size):
                arrived = task_at(episode, slot * size + i).stage == DECIDING
                actions[e, i, slot] = 0 if arrived else size
            for stage in range(STAGES):
                if stages >> stage & 1:
                    decide(episode, method, stage, slot)
            add_answers(episode, encoder, features[e, :, slot])
            for i in range(size):
                if actions[e, i, slot] != size:
                    chosen = task_at(episode, slot * size + i).destination
                    # The action of a refused task is "no task", as in data sets.
                    chosen = chosen if chosen >= 0 else size
                    actions[e, i, slot] = chosen
                    mask[e, i, slot, chosen] = True
        finish(episode)
