"""Whole episodes in the compiled engine: played by a policy or a baseline, kept or only scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed import policies
from testbed.errors import Problem, UsageError
from testbed.model.failures import Failures
from testbed.model.units import NEVER
from testbed.policies.inference import Actor, open_actor
from testbed.scenario.plan import Plan
from testbed.schedulers.drl import Drl, pick
from testbed.sim.arrays import check, pack, problems_of
from testbed.sim.compiled import DECIDING, Batch, Records, compiled
from testbed.sim.engine import advance, open_episode
from testbed.sim.features import observe
from testbed.sim.heuristics import METHODS, decide_slot, run_heuristic
from testbed.sim.policies import weights_of
from testbed.sim.rows import Rows, success_rates
from testbed.sim.scoring import ScoringWeights, play_scoring
from testbed.sim.simulator import SchedulerChoice, Simulation
from testbed.sim.vector import ENCODER, Policy, UniformPolicy, VectorEnv, choose

PER_DESTINATION: Final = "per-destination"
"""The name of the policy that ships with the package."""
UNTRAINED: Final = "untrained"
"""The name of the policy that takes every unmasked destination alike."""

_NEVER: Final = int(NEVER)
_AT_ONCE: Final = 64
"""Episodes side by side where only their scores are kept."""

AnyPolicy: TypeAlias = Policy | ScoringWeights | policies.Policy
"""A policy on ``paper-v1`` features, the weights of a per-destination policy, or an artifact."""


class Played(NamedTuple):
    """Everything ``paper-v1`` about E episodes, node by node, ready to be learned from.

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


def play(env: VectorEnv, policy: Policy, numbers: Sequence[int]) -> NDArray[np.float64]:
    """Play episodes ``numbers`` with actions sampled from ``policy``; the success rates [E]."""
    env.reset(numbers)
    done = False
    while not done:
        done = env.step(choose(env.observe(), policy)[0]).done
    return env.success_rates()


def record(env: VectorEnv, policy: Policy, numbers: Sequence[int]) -> Played:
    """As ``play``, and keep what was observed, done and rewarded."""
    played = _room(env.episodes, env.size, env.slots)
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
) -> Played:
    """Play episodes ``numbers`` with the baseline ``method`` and keep what a policy would see.

    ``batch``, of as many rows of this plan, is played in where it is given: it then holds what
    became of every task.

    Raises:
        UsageError: a plan or a method the engine does not cover.
    """
    code = _code(method)
    if batch is None:
        batch = pack([plan] * len(numbers))
    played = _room(len(numbers), plan.topology.size, plan.workload.slots)
    Rows(len(numbers), threads).each(_log, batch, code, np.asarray(numbers, np.int64), *played[:3])
    played.log_probability[:] = np.nan
    return played._replace(rewards=batch.rewards.copy(), success_rates=success_rates(batch))


@dataclass(frozen=True, slots=True)
class Player:
    """Plays episodes of one plan by one method.

    ``play`` returns the success rates [E] of numbered episodes, NaN without a task; give it
    ``at_once`` of them where progress matters. ``simulated`` says why the heap simulator plays; it
    is empty where the compiled engine does. ``failures`` counts the tasks at which a user's own
    scheduler failed.
    """

    play: Callable[[Sequence[int]], NDArray[np.float64]]
    at_once: int = _AT_ONCE
    simulated: str = ""
    failures: Failures = field(default_factory=Failures)


def player(
    plan: Plan,
    method: AnyPolicy | SchedulerChoice,
    *,
    deterministic: bool = False,
    threads: int | None = None,
) -> Player:
    """Return what plays ``plan`` by ``method``, in the compiled engine where that gives the same.

    ``method`` is the name of a scheduler (``central`` and ``oracle`` included), what makes one, or
    a policy. ``deterministic`` takes the most probable destination of policies that nodes can run.

    Raises:
        UsageError: an unknown scheduler, a policy that does not fit the plan, or weights without
            an artifact for a plan that the engine does not cover.
    """
    problems = problems_of(plan)
    if isinstance(method, policies.Policy):
        policies.check_fits(method.card, plan.topology.size)
        known = _weights_or_reason(method) if not problems else ""
        if isinstance(known, ScoringWeights):
            return Player(partial(_score_policy, plan, known, deterministic, threads))
        if not problems and not known:
            return Player(partial(_score_actor, plan, open_actor(method), deterministic, threads))
        options = {"deterministic": True} if deterministic else {}
        make = partial(Drl.of, policy=method)
        return _simulated(Simulation(plan, make, options, keep=False), problems, known)
    if isinstance(method, str) or callable(method):
        if isinstance(method, str) and method in METHODS and not problems:
            return Player(partial(_score_baseline, plan, method, threads))
        missing = "the compiled engine does not have this scheduler"
        return _simulated(Simulation(plan, method, keep=False), problems, missing)
    check(plan)
    return Player(partial(_score_policy, plan, method, deterministic, threads))


def evaluate(
    plan: Plan,
    methods: Sequence[str],
    episodes: int | Sequence[int],
    learned: Mapping[str, AnyPolicy | SchedulerChoice] | None = None,
    *,
    deterministic: bool = False,
    threads: int | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the success rate of every episode under every method, on the same tasks and fates.

    ``methods`` are names of schedulers (``central`` and ``oracle`` included), ``untrained``,
    ``per-destination`` (the policy that ships with the package), or keys of ``learned``.
    ``episodes`` is how many, from 0, or their numbers. See ``player``.

    Raises:
        UsageError: an unknown method, or a policy that does not fit the plan.
    """
    numbers = list(range(episodes)) if isinstance(episodes, int) else list(episodes)
    known = dict(learned or {})
    players = {
        method: player(
            plan,
            known[method] if method in known else _by_name(method),
            deterministic=deterministic,
            threads=threads,
        )
        for method in methods
    }
    return {method: each.play(numbers) for method, each in players.items()}


def _by_name(method: str) -> AnyPolicy | SchedulerChoice:
    if method == UNTRAINED:
        return UniformPolicy()
    return policies.shipped() if method == PER_DESTINATION else method


def _weights_or_reason(policy: policies.Policy) -> ScoringWeights | str:
    """The weights of a policy that scores destinations, else why the engine cannot run it."""
    if policy.card.kind == "flat":
        known = policy.card.encoder == ENCODER
        return "" if known else f"the compiled engine does not encode {policy.card.encoder}"
    try:
        return weights_of(policy)
    except UsageError as error:
        open_actor(policy)
        return " ".join(str(error).split())


def _simulated(simulation: Simulation, problems: Sequence[Problem], otherwise: str) -> Player:
    reason = "; ".join(
        f"{each.path} is {each.seen}, the compiled engine needs {each.allowed}" for each in problems
    )
    failures = Failures()

    def play(numbers: Sequence[int]) -> NDArray[np.float64]:
        rates = np.empty(len(numbers))
        for k, number in enumerate(numbers):
            result = simulation.episode(number)
            for record in result.failed:
                failures.add(record)
            rates[k] = result.success_rate
        return rates

    return Player(play, 1, reason or otherwise, failures)


def _code(method: str) -> int:
    if method not in METHODS:
        raise UsageError(
            "the compiled engine has no such baseline",
            [Problem("method", method, f"one of {', '.join(METHODS)}")],
        )
    return METHODS[method]


def _score_baseline(
    plan: Plan, method: str, threads: int | None, numbers: Sequence[int]
) -> NDArray[np.float64]:
    batch = pack([plan] * max(1, min(_AT_ONCE, len(numbers))))
    rates = []
    for part in _parts(numbers, len(batch.episodes)):
        Rows(len(part), threads).each(_score, batch, METHODS[method], np.asarray(part, np.int64))
        rates.append(success_rates(batch)[: len(part)])
    return _joined(rates)


def _score_policy(
    plan: Plan,
    policy: Policy | ScoringWeights,
    deterministic: bool,
    threads: int | None,
    numbers: Sequence[int],
) -> NDArray[np.float64]:
    rates = []
    for part in _parts(numbers, _AT_ONCE):
        if isinstance(policy, ScoringWeights):
            batch, rows = pack([plan] * len(part)), Rows(len(part), threads)
            rates.append(play_scoring(batch, rows, policy, part, deterministic=deterministic))
        else:
            rates.append(play(VectorEnv([plan] * len(part), threads), policy, part))
    return _joined(rates)


def _score_actor(
    plan: Plan, actor: Actor, deterministic: bool, threads: int | None, numbers: Sequence[int]
) -> NDArray[np.float64]:
    """Ask the actor as a node does, one observation at a time: sums in its graph depend on more."""
    size, rates = plan.topology.size, []
    for part in _parts(numbers, _AT_ONCE):
        env = VectorEnv([plan] * len(part), threads)
        env.reset(part)
        done = False
        while not done:
            seen = env.observe()
            actions = np.full((env.episodes, size), size, np.int64)
            for row, node in np.argwhere(~seen.mask[..., size]):
                mask = seen.mask[row, node].tolist()
                given = actor.probabilities(seen.features[row, node].tolist(), mask)[:size]
                draw = float(seen.draws[row, node])
                actions[row, node] = given.index(max(given)) if deterministic else pick(given, draw)
            done = env.step(actions).done
        rates.append(env.success_rates())
    return _joined(rates)


def _parts(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def _joined(rates: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(rates) if rates else np.empty(0)


def _room(episodes: int, size: int, slots: int) -> Played:
    return Played(
        features=np.empty((episodes, size, slots + 1, 3 * size + 7), np.float32),
        mask=np.empty((episodes, size, slots + 1, size + 1), np.bool_),
        actions=np.empty((episodes, size, slots), np.int64),
        log_probability=np.empty((episodes, size, slots), np.float32),
        rewards=np.empty((episodes, slots), np.float32),
        success_rates=np.empty(episodes),
    )


@compiled
def _score(
    episodes: Records,
    nodes: Records,
    links: Records,
    tasks: Records,
    events: Records,
    choices: NDArray[np.float64],
    rewards: NDArray[np.float32],
    first: int,
    last: int,
    method: int,
    numbers: NDArray[np.int64],
) -> None:
    for e in range(first, last):
        run_heuristic(
            episodes[e],
            nodes[e],
            links[e],
            tasks[e],
            events[e],
            choices[e],
            rewards[e],
            method,
            numbers[e],
        )


@compiled
def _log(
    episodes: Records,
    nodes: Records,
    links: Records,
    tasks: Records,
    events: Records,
    choices: NDArray[np.float64],
    rewards: NDArray[np.float32],
    first: int,
    last: int,
    method: int,
    numbers: NDArray[np.int64],
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    actions: NDArray[np.int64],
) -> None:
    """As ``run_heuristic``, writing down every slot before and after its decisions."""
    size = nodes.shape[1]
    pool = np.empty(size, np.int64)
    waits = np.empty(size, np.bool_)
    draws = np.empty(size, np.float64)
    for e in range(first, last):
        episode = episodes[e]
        rewards[e] = np.float32(0.0)
        open_episode(episode, nodes[e], links[e], tasks[e], choices[e], numbers[e])
        for slot in range(episode.slots + 1):
            until = slot * episode.slot_length
            episode.slot = slot
            advance(episode, nodes[e], links[e], tasks[e], events[e], rewards[e], until)
            observe(
                episode,
                nodes[e],
                links[e],
                tasks[e],
                features[e, :, slot],
                mask[e, :, slot],
                draws,
            )
            if slot == episode.slots:
                break
            for i in range(size):
                arrived = tasks[e, slot * size + i].stage == DECIDING
                actions[e, i, slot] = 0 if arrived else size
            decide_slot(
                episode,
                nodes[e],
                links[e],
                tasks[e],
                events[e],
                rewards[e],
                method,
                pool,
                waits,
            )
            for i in range(size):
                if actions[e, i, slot] != size:
                    chosen = tasks[e, slot * size + i].destination
                    actions[e, i, slot] = chosen
                    mask[e, i, slot, chosen] = True
        advance(episode, nodes[e], links[e], tasks[e], events[e], rewards[e], _NEVER)
