"""Settings of learning where it runs, and the numbers of its episodes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from testbed.errors import check_settings
from testbed.experiment.live.gate import parts
from testbed.experiment.statistics import MIN_PAIRS

Start: TypeAlias = Literal["ratc", "shipped", "random"]
STARTS: Final = get_args(Start)

FIRST_GATE_EPISODE: Final = 300_000_000
"""Number of the first episode by which policies are accepted or refused; none is learned from."""

_FIRST_EPISODE: Final = 310_000_000
_PER_SEED: Final = 100_000
_SEEDS: Final = 10_000
"""The largest number must fit 32 bits, as the controller takes it."""

LEAST_EPISODES: Final = 10
"""Fewer episodes say more about chance than about decisions."""


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """Settings of ``testbed.experiment.live.learn``.

    ``start`` is what decides first: RATC, the shipped policy ``shipped``, or random weights.
    ``episodes`` is the budget: all that are run, those of the gates included. Of these, ``update``
    are run and learned from for every update, and ``gate`` for every gate, in parts of about
    ``look``. Learning ends early where ``patience`` updates in a row brought no better policy
    (0: never). The learning rate is multiplied by ``shrink`` after every rollback, until the next
    policy is accepted.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    start: Start = "ratc"
    shipped: str = "per-destination-v2"
    episodes: int = 320
    update: int = 32
    gate: int = 12
    look: int = 4
    patience: int = 6
    epochs: int = 4
    minibatch: int = 1024
    learning_rate: float = 3e-3
    clip: float = 0.3
    kl_limit: float = 0.2
    shrink: float = 0.5
    seed: int = 0
    include_invalid: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("start", self.start in STARTS, f"one of {', '.join(STARTS)}"),
            ("update", self.update >= LEAST_EPISODES, f"at least {LEAST_EPISODES}"),
            ("gate", self.gate >= MIN_PAIRS, f"at least {MIN_PAIRS}"),
            ("look", self.look >= 1, "at least 1"),
            (
                "episodes",
                self.episodes >= self.least,
                f"at least {self.least}: gate, update and gate",
            ),
            ("patience", self.patience >= 0, "0 or more"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("minibatch", self.minibatch >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("clip", self.clip > 0, "above 0"),
            ("kl_limit", self.kl_limit > 0, "above 0"),
            ("shrink", 0 < self.shrink <= 1, "above 0, at most 1"),
            ("seed", 0 <= self.seed < _SEEDS, f"from 0 to {_SEEDS - 1}"),
        )
        check_settings("invalid settings of learning", "learn", self, checks)

    @property
    def least(self) -> int:
        """Episodes of the smallest budget: one gate of the start, one update, one gate."""
        return self.update + 2 * self.gate

    @property
    def parts(self) -> list[int]:
        """Sizes of the parts of a gate."""
        return parts(self.gate, self.look)

    @property
    def first_episode(self) -> int:
        """Number of the first episode that is learned from; the others follow."""
        return _FIRST_EPISODE + self.seed * _PER_SEED

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)
