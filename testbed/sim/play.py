"""Scores of methods on the same episodes: in the compiled engine where it can, else simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed import policies
from testbed.errors import Problem, UsageError
from testbed.model.failures import Failures
from testbed.model.information import Asks
from testbed.model.refusal import allow_refusal
from testbed.policies.inference import OnnxActor, open_actor
from testbed.scenario.plan import Plan
from testbed.schedulers.drl import Drl, pick
from testbed.sim.engine.arrays import check, problems_by_slot, problems_of, problems_of_asking
from testbed.sim.engine.episodes import play, score_baseline
from testbed.sim.engine.features import KERNELS
from testbed.sim.engine.heuristics import METHODS
from testbed.sim.engine.placement import PLACEMENTS, score_placement
from testbed.sim.engine.policies import weights_of
from testbed.sim.engine.scoring import ScoringWeights, pack_for, play_scoring
from testbed.sim.engine.threads import Threads
from testbed.sim.engine.vector import FeaturePolicy, UniformPolicy, VectorEnv, encoder_of
from testbed.sim.simulator import SchedulerChoice, Simulation

PER_DESTINATION: Final = "per-destination"
"""The name of the policy that ships with the package."""
UNTRAINED: Final = "untrained"
"""The name of the policy that takes every unmasked destination alike."""

_AT_ONCE: Final = 64
"""Episodes side by side where only their scores are kept."""

AnyPolicy: TypeAlias = FeaturePolicy | ScoringWeights | policies.Policy
"""A policy on features, the weights of a per-destination policy, or an artifact."""


@dataclass(frozen=True, slots=True)
class Player:
    """Plays episodes of one plan by one method.

    ``simulated`` is why the heap simulator plays; it is empty where the compiled engine does.
    ``failures`` counts the tasks at which a user's own scheduler failed. ``at_once`` is how many
    episodes run side by side.
    """

    run: Callable[[Sequence[int]], NDArray[np.float64]]
    at_once: int = _AT_ONCE
    simulated: str = ""
    failures: Failures = field(default_factory=Failures)

    def play(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return the success rates [E] of episodes ``numbers``; NaN without a task."""
        starts = range(0, len(numbers), self.at_once)
        rates = [self.run(numbers[start : start + self.at_once]) for start in starts]
        return np.concatenate(rates) if rates else np.empty(0)


def player(
    plan: Plan,
    method: AnyPolicy | SchedulerChoice,
    *,
    deterministic: bool = False,
    refusing: bool = False,
    threads: int | None = None,
) -> Player:
    """Return what plays ``plan`` by ``method``, in the compiled engine where that gives the same.

    ``method`` is the name of a scheduler (``central`` and ``oracle`` included), what makes one, or
    a policy. ``deterministic`` takes the most probable destination of policies that nodes can run,
    ``refusing`` lets policies that ask for states refuse tasks that are not worth their work.

    Raises:
        UsageError: an unknown scheduler, a policy that does not fit the plan, or weights without
            an artifact for a plan that the engine does not cover; refusal that the plan does not
            allow, or of a policy that does not ask for states.
        ValueError: weights without an artifact whose encoder does not tell what they ask.
    """
    if refusing and isinstance(method, policies.Policy | ScoringWeights):
        rows = method.encoder if isinstance(method, ScoringWeights) else method.card.encoder
        allow_refusal(plan.rules, "drl", rows)
    problems = problems_of(plan)
    if isinstance(method, policies.Policy):
        policies.check_fits(method.card, plan.topology.size)
        if method.card.kind == "flat":
            problems = problems_by_slot(plan)
        problems = problems + problems_of_asking(plan, method.card.asks)
        known = _weights_or_reason(method) if not problems else ""
        if isinstance(known, ScoringWeights):
            asks = method.card.asks
            score = partial(_score_policy, plan, known, deterministic, refusing, threads, asks)
            return Player(score)
        if not problems and not known and not refusing:
            actor = open_actor(method)
            return Player(partial(_score_actor, plan, actor, deterministic, threads))
        options = {"deterministic": deterministic, "refuse": refusing}
        make = partial(Drl.of, policy=method)
        return _simulated(Simulation(plan, make, options, keep=False), problems, known)
    if isinstance(method, str) or callable(method):
        if isinstance(method, str) and method in METHODS and not problems:
            return Player(partial(score_baseline, plan, method, threads=threads))
        if isinstance(method, str) and method in PLACEMENTS and not problems:
            return Player(partial(score_placement, plan, method, threads=threads))
        missing = "the compiled engine does not have this scheduler"
        return _simulated(Simulation(plan, method, keep=False), problems, missing)
    check(plan, by_slot=not isinstance(method, ScoringWeights))
    return Player(partial(_score_policy, plan, method, deterministic, refusing, threads, None))


def evaluate(
    plan: Plan,
    methods: Sequence[str],
    episodes: int | Sequence[int],
    learned: Mapping[str, AnyPolicy | SchedulerChoice] | None = None,
    *,
    deterministic: bool = False,
    refusing: bool = False,
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
            refusing=refusing,
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
        known = policy.card.encoder in KERNELS
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

    def run(numbers: Sequence[int]) -> NDArray[np.float64]:
        rates = np.empty(len(numbers))
        for k, number in enumerate(numbers):
            result = simulation.episode(number)
            for record in result.failed:
                failures.add(record)
            rates[k] = result.success_rate
        return rates

    return Player(run, 1, reason or otherwise, failures)


def _score_policy(
    plan: Plan,
    policy: FeaturePolicy | ScoringWeights,
    deterministic: bool,
    refusing: bool,
    threads: int | None,
    asks: Asks | None,
    numbers: Sequence[int],
) -> NDArray[np.float64]:
    if isinstance(policy, ScoringWeights):
        batch, rows = pack_for([plan] * len(numbers), policy, asks), Threads(len(numbers), threads)
        return play_scoring(
            batch, rows, policy, numbers, deterministic=deterministic, refusing=refusing
        )
    env = VectorEnv([plan] * len(numbers), threads, encoder_of(policy))
    return play(env, policy, numbers)


def _score_actor(
    plan: Plan, actor: OnnxActor, deterministic: bool, threads: int | None, numbers: Sequence[int]
) -> NDArray[np.float64]:
    """Ask the actor as a node does, one observation at a time: sums in its graph depend on more."""
    size = plan.topology.size
    env = VectorEnv([plan] * len(numbers), threads, actor.card.encoder)
    env.reset(numbers)
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
    return env.success_rates()
