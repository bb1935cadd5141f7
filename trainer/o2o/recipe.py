"""Recipes: which rewards, losses and steps the two phases use.

``paper`` is the paper's to the letter (sections IV-C and V-A); ``default`` is what was measured to
be better on networks kept for choices (docs/o2o.md describes the choice of each part); ``released``
is the paper's with the known defects of the code that its authors released, to tell whether a
result depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypedDict, Unpack

from testbed.errors import Problem, UsageError
from trainer.credit.weight import BY_LOAD, LaterWeight
from trainer.learning.cql import CqlConfig
from trainer.learning.learners import learner_like
from trainer.learning.offline import OfflineConfig
from trainer.learning.online import OnlineConfig
from trainer.learning.ppo import PpoConfig
from trainer.learning.shared_target import SharedTargetConfig
from trainer.o2o.logged import REWARD_KINDS, RewardKind


@dataclass(frozen=True, slots=True)
class Recipe:
    """Rewards, losses and steps of both phases; sizes and seeds come with the experiment.

    Raises:
        UsageError: an unknown kind of reward, or one of single decisions with a discount.
    """

    name: str
    description: str
    offline_reward: RewardKind
    online_reward: RewardKind
    offline: OfflineConfig
    online: OnlineConfig
    later_weight: LaterWeight = BY_LOAD
    """Weight of effects on later decisions in the credit; see ``trainer.credit.weight``."""
    unseen: tuple[str, ...] = ()
    """What the networks do not see of an observation: beginnings of names of the encoder's columns.
    These are 0 for them, offline and online; a policy's artifact contains that."""

    def __post_init__(self) -> None:
        problems = []
        for phase, kind, gamma in (
            ("offline", self.offline_reward, self.offline.learner.gamma),
            ("online", self.online_reward, self.online.ppo.gamma),
        ):
            if kind not in REWARD_KINDS:
                problems.append(
                    Problem(
                        f"recipe.{phase}_reward", str(kind), f"one of {', '.join(REWARD_KINDS)}"
                    )
                )
            elif kind != "team" and gamma != 0.0:
                problems.append(
                    Problem(
                        f"recipe.{phase}.gamma",
                        f"{gamma} with a reward of single decisions",
                        "0: the reward of a decision is complete",
                    )
                )
        if problems:
            raise UsageError("invalid recipe", problems)


PAPER: Final = Recipe(
    name="paper",
    description="the paper's settings and losses, team reward",
    offline_reward="team",
    online_reward="team",
    offline=OfflineConfig(steps=4_000, learner=CqlConfig(batch_size=128)),
    online=OnlineConfig(episodes=1_000, ppo=PpoConfig(kl_stop=None)),
)

DEFAULT: Final = Recipe(
    name="default",
    description="each decision has its own reward: its task's outcome offline, its credit online",
    offline_reward="own",
    online_reward="credit",
    offline=OfflineConfig(
        steps=4_000,
        learner=CqlConfig(
            learning_rate=1e-3,
            gamma=0.0,
            tau=5e-3,
            batch_size=640,
            alpha=0.3,
            cql_weight=0.1,
            actor_q="online",
        ),
    ),
    online=OnlineConfig(
        episodes=1_000,
        ppo=PpoConfig(
            learning_rate=1e-3, gamma=0.0, gae_lambda=0.0, clip=0.3, rewards="batch", kl_stop=None
        ),
    ),
)

RELEASED: Final = replace(
    PAPER,
    name="released",
    description="the paper's, with the defects of the authors' released code",
    # Its loss is computed with the regulariser, but the regulariser is not added.
    offline=replace(PAPER.offline, learner=SharedTargetConfig(batch_size=128, cql_weight=0.0)),
    # Its observation has no queue: neither the paper's, nor what other encoders know of backlogs.
    unseen=("queue_length", "receiving_", "send_backlog_", "known_"),
)

RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {recipe.name: recipe for recipe in (DEFAULT, PAPER, RELEASED)}
)


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise UsageError(
            f"unknown recipe {name!r}", [Problem("recipe", repr(name), f"one of {known}")]
        )
    return RECIPES[name]


class OnlineSizes(TypedDict, total=False):
    """Sizes of online learning: fields of ``OnlineConfig``; ``online_episodes`` is its episodes."""

    online_episodes: int | None
    episodes_per_update: int | None
    evaluation_episodes: int | None
    evaluate_every: int | None


def sized(
    base: Recipe,
    *,
    seed: int = 0,
    num_learners: int = 0,
    threads: int = 1,
    offline_steps: int | None = None,
    learner: str | None = None,
    kl_stop: float | None = None,
    **online_sizes: Unpack[OnlineSizes],
) -> Recipe:
    """Return the recipe with other sizes; None, or one that is not given, keeps the recipe's own.

    ``learner`` names another offline learner (``trainer.learning.learners``); it gets those
    settings of the recipe's own that both have.

    Raises:
        UsageError: a value outside its range, or an unknown learner.
    """
    offline = replace(
        base.offline,
        seed=seed,
        steps=base.offline.steps if offline_steps is None else offline_steps,
        num_learners=num_learners,
        threads=threads,
        learner=learner_like(learner or base.offline.learner.name, base.offline.learner),
    )
    online = base.online
    given: dict[str, Any] = dict(online_sizes)
    given["episodes"] = given.pop("online_episodes", None)
    online = replace(
        online,
        seed=seed,
        ppo=replace(
            online.ppo,
            seed=seed,
            num_learners=num_learners,
            threads=threads,
            kl_stop=online.ppo.kl_stop if kl_stop is None else kl_stop,
        ),
        **{name: value for name, value in given.items() if value is not None},
    )
    return replace(base, offline=offline, online=online)


def document(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values; the settings of its offline learner are under its name."""
    found = asdict(recipe)
    offline: dict[str, Any] = found["offline"]
    offline[recipe.offline.learner.name] = offline.pop("learner")
    if not recipe.unseen:
        # Left out, so that what earlier releases stored is found again.
        del found["unseen"]
    return found
