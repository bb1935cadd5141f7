"""Settings, names and progress of an experiment, the same for all venues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from testbed.model.encoders import DEFAULT as DEFAULT_ENCODER
from testbed.model.encoders import encoder
from testbed.schedulers.catalogue import BASELINES, METHODS
from trainer.o2o.recipe import DEFAULT, Recipe
from trainer.o2o.sizes import refuse_too_few

ON_NODES: Final = tuple(name for name in BASELINES if METHODS[name].on_nodes)
"""The baselines that nodes can run; see docs/schedulers.md."""

OFFLINE: Final = "offline"
O2O: Final = "o2o"
ONLINE_ONLY: Final = "online-only"

Driver: TypeAlias = Literal["simulator", "network"]
Stage: TypeAlias = Literal["logs", "offline", "online", "online-only", "evaluation", "network"]


@dataclass(frozen=True, slots=True)
class StageProgress:
    """Progress of an experiment: ``done`` of ``total`` in a stage, with a message.

    One that is ``notable`` is shown in any case.
    """

    stage: Stage
    done: int
    total: int
    message: str
    notable: bool = False


Report: TypeAlias = Callable[[StageProgress], None]


@dataclass(frozen=True, slots=True)
class O2OConfig:
    """Settings of one experiment; the sizes of both phases are in the recipe.

    Raises:
        UsageError: a value outside its range, or an unknown encoder.
    """

    recipe: Recipe = DEFAULT
    source: str = "ratc"
    """The baseline whose logs the offline phase learns from."""
    encoder: str = DEFAULT_ENCODER
    """The encoder of the policies that are learned."""
    log_episodes: int = 500
    evaluation_episodes: int = 40
    """Paired episodes of the final evaluation, numbers 0, 1, ..."""
    methods: tuple[str, ...] = BASELINES
    """Baselines for the learned policies."""
    offline: bool = True
    """Whether there is an offline phase; without, nothing but ``online_only`` is learned."""
    online: bool = True
    """Whether the offline policy is fine-tuned."""
    online_only: bool = False
    """Whether the online learner also starts from nothing, for comparison; in the simulator."""
    with_bound: bool = True
    include_invalid: bool = False
    """Learn from runs of a network outside their limits of fidelity too, instead of refusing."""
    seed: int = 0
    """Seed of what is learned from; that of the learners is in the recipe."""

    def __post_init__(self) -> None:
        encoder(self.encoder)
        refuse_too_few(self.log_episodes, self.evaluation_episodes, self.seed)
