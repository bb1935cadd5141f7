"""Learning of the price of work (``testbed.model.work_price``) from the outcome of whole episodes.

What a price is worth shows in the tasks that come later, and in what all nodes do then: only in the
closed loop. So nothing is credited to single decisions. In every iteration the numbers of the price
are moved at random, in pairs of opposite moves that all play the same episodes, and then go where
fewer tasks failed (evolution strategies, Salimans et al. 2017, arXiv:1703.03864; the steps are
Adam's).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed.errors import check_settings
from testbed.model.scarcity import workload_at
from testbed.model.topology import usual_stagger
from testbed.model.units import MILLISECOND
from testbed.model.work_price import WorkPrice
from testbed.scenario.plan import Plan
from testbed.sim.engine.episodes import score_prices
from trainer.per_destination.networks import PAPER

Networks: TypeAlias = Callable[[np.random.Generator], Iterator[Plan]]
"""Yields the networks of an iteration."""

NOTHING: Final = WorkPrice(0.0, 0.0, 0.0)

_SIZES: Final = ((10, 6), (20, 5), (50, 1))
"""Nodes of the random networks, and how many of them an iteration has."""
_LOADS: Final = (0.5, 1.5)
_CONTROL_DELAY: Final = MILLISECOND
_LEAST_FAILED: Final = 1e-3
"""Is added to shares of failed tasks, so that the logarithm of none is defined."""
_FIRST_DECAY: Final = 0.9
_SECOND_DECAY: Final = 0.99


@dataclass(frozen=True, slots=True)
class PricingConfig:
    """Settings of ``learn_price``; the defaults are those of the price that ships.

    ``pairs`` of opposite moves play ``episodes`` of every network. The spread of the moves and the
    step fall linearly from the first to the second number.
    """

    iterations: int = 240
    seed: int = 1
    pairs: int = 16
    episodes: int = 2
    spread: tuple[float, float] = (0.35, 0.1)
    step: tuple[float, float] = (0.1, 0.01)
    threads: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("iterations", self.iterations >= 1, "at least 1"),
            ("pairs", self.pairs >= 1, "at least 1"),
            ("episodes", self.episodes >= 1, "at least 1"),
        )
        check_settings("invalid settings for learning a price", "", self, checks)


@dataclass(frozen=True, slots=True)
class PricingIteration:
    """Result of one iteration; the success rate is that of all moves."""

    number: int
    success_rate: float
    price: WorkPrice


def random_networks(rng: np.random.Generator) -> Iterator[Plan]:
    """Yield networks of the paper's simulation in turns, with refusal, at any load."""
    stagger = usual_stagger(_CONTROL_DELAY)
    for size, count in _SIZES:
        for load in rng.uniform(*_LOADS, count):
            plan = PAPER.draw(rng, size)
            rules = dataclasses.replace(
                plan.rules, control_delay=_CONTROL_DELAY, stagger=stagger, reject=True
            )
            workload = workload_at(float(load), plan.topology, plan.workload)
            yield dataclasses.replace(plan, rules=rules, workload=workload)


def learn_price(
    config: PricingConfig | None = None,
    progress: Callable[[PricingIteration], None] | None = None,
    networks: Networks = random_networks,
    start: WorkPrice = NOTHING,
) -> WorkPrice:
    """Learn a price on ``networks``; ``progress`` is called after every iteration.

    Episodes are numbered on from 0 over the iterations, so a network that comes again has others.
    Returns the mean over the second half of the iterations. The same settings give the same price,
    however many CPUs there are.

    Raises:
        UsageError: settings that make no sense, or a network the engine does not cover.
    """
    config = config or PricingConfig()
    rng = np.random.default_rng(config.seed)
    at = np.array(start, np.float64)
    first, second = np.zeros(len(at)), 0.0
    later = []
    for number in range(config.iterations):
        done = number / config.iterations
        slope, rate = _slope(config, _between(config.spread, done), at, number, networks(rng), rng)
        first = _FIRST_DECAY * first + (1.0 - _FIRST_DECAY) * slope
        # One scale for all numbers: which of them matters is for the slope to say.
        second = _SECOND_DECAY * second + (1.0 - _SECOND_DECAY) * float((slope * slope).mean())
        direction = first / (1.0 - _FIRST_DECAY ** (number + 1))
        scale = np.sqrt(second / (1.0 - _SECOND_DECAY ** (number + 1))) + 1e-12
        at = at + _between(config.step, done) * direction / scale
        if number >= config.iterations // 2:
            later.append(at)
        if progress is not None:
            progress(PricingIteration(number, rate, _price(at)))
    return _price(np.mean(later, axis=0))


def _slope(
    config: PricingConfig,
    spread: float,
    at: NDArray[np.float64],
    number: int,
    networks: Iterator[Plan],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], float]:
    """Return how failures fall with each number [3], as a mean of networks, and the success."""
    slopes, rates = [], []
    episodes = range(number * config.episodes, (number + 1) * config.episodes)
    for plan in networks:
        moves = rng.standard_normal((config.pairs, len(at)))
        prices = [_price(each) for each in (*(at + spread * moves), *(at - spread * moves))]
        succeeded = np.nanmean(score_prices(plan, prices, episodes, config.threads), axis=1)
        fewer = -np.log(1.0 - succeeded + _LEAST_FAILED)
        gain = fewer[: config.pairs] - fewer[config.pairs :]
        slopes.append((gain[:, None] * moves).mean(axis=0) / (2.0 * spread))
        rates.append(float(succeeded.mean()))
    return np.mean(slopes, axis=0), float(np.mean(rates))


def _between(ends: tuple[float, float], done: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * done


def _price(numbers: NDArray[np.float64]) -> WorkPrice:
    return WorkPrice(*numbers.tolist())
