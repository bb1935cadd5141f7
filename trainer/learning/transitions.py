"""The input of the learners: checked arrays of transitions and trajectories.

An object of this module is valid: shapes agree, nothing is NaN, every action was allowed.
``trainer.learning.offline`` consumes `Transitions`, ``trainer.learning.ppo`` `Trajectory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import DEFAULT

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RewardScale:
    """The affine map that gives rewards mean 0 and standard deviation 1 (Algorithms 1 and 2).

    A data set whose rewards are all equal is only centred (``std`` 1).
    """

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, rewards: NDArray[Any]) -> RewardScale:
        """Measure the scale of all given rewards, summed in float64."""
        wide = np.asarray(rewards, dtype=np.float64)
        std = float(wide.std())
        return cls(float(wide.mean()), std if std > 1e-8 else 1.0)

    def apply(self, rewards: NDArray[Any]) -> FloatArray:
        """Return the rewards in normalised units, float32."""
        wide = np.asarray(rewards, dtype=np.float64)
        return ((wide - self.mean) / self.std).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Transitions:
    """M transitions of agents that share one policy, in any order.

    Raises:
        UsageError: arrays of wrong shape or type, no rows, NaN or infinity, an action outside its
            mask, a row with nothing allowed; all problems are listed.
    """

    obs: FloatArray  # [M, D]
    mask: BoolArray  # [M, A], True where the action is allowed
    action: IntArray  # [M]
    log_prob: FloatArray  # [M] of the behaviour policy; NaN where it is not known
    reward: FloatArray  # [M] team reward of the slot, as logged (not normalised)
    next_obs: FloatArray  # [M, D]
    next_mask: BoolArray  # [M, A]; may be all False where terminated
    terminated: BoolArray  # [M] no next state: its value is 0
    truncated: BoolArray  # [M] the log stops here, the next state still has a value
    encoder: str = DEFAULT

    def __post_init__(self) -> None:
        found = _Findings()
        rows = found.rows(self.obs, "obs")
        shapes: list[tuple[str, NDArray[Any], Any, tuple[int | None, ...]]] = [
            ("obs", self.obs, np.float32, (rows, None)),
            ("mask", self.mask, np.bool_, (rows, None)),
            ("action", self.action, np.int64, (rows,)),
            ("log_prob", self.log_prob, np.float32, (rows,)),
            ("reward", self.reward, np.float32, (rows,)),
            ("next_obs", self.next_obs, np.float32, (rows, _width(self.obs))),
            ("next_mask", self.next_mask, np.bool_, (rows, _width(self.mask))),
            ("terminated", self.terminated, np.bool_, (rows,)),
            ("truncated", self.truncated, np.bool_, (rows,)),
        ]
        for name, array, dtype, shape in shapes:
            found.array(name, array, dtype, shape)
        found.stop_if_any("these transitions cannot be learned from")
        for name, values in (("obs", self.obs), ("reward", self.reward)):
            found.finite(name, values)
        # After a terminal transition the next state does not exist; anything may stand there.
        found.finite("next_obs", self.next_obs)
        found.log_prob("log_prob", self.log_prob, unknown_allowed=True)
        found.actions(self.action, self.mask)
        found.masks("next_mask", self.next_mask | self.terminated[:, None])
        both = int(np.count_nonzero(self.terminated & self.truncated))
        if both:
            found.add("truncated", f"{both} rows are terminated and truncated", "at most one")
        found.stop_if_any("these transitions cannot be learned from")

    def __len__(self) -> int:
        return len(self.action)

    @property
    def features(self) -> int:
        """D, the width of an observation."""
        return int(self.obs.shape[1])

    @property
    def actions(self) -> int:
        """A, the number of actions."""
        return int(self.mask.shape[1])

    def reward_scale(self) -> RewardScale:
        """Return the normalisation of the rewards of this data set."""
        return RewardScale.of(self.reward)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """The T decisions of one node in one episode, in order, with the state after the last.

    ``checked``: the values were checked by `check_decisions` together with those of others, which
    takes a tenth of the time.

    Raises:
        UsageError: like `Transitions`; besides, every log-probability must be known.
    """

    obs: FloatArray  # [T + 1, D]
    mask: BoolArray  # [T + 1, A]; the last row may be all False where terminated
    action: IntArray  # [T]
    log_prob: FloatArray  # [T] of the policy that acted
    reward: FloatArray  # [T]
    terminated: bool = False  # False: truncated, the last state has a value
    run: str = ""
    episode: int = 0
    node: int = 0
    checked: InitVar[bool] = False

    def __post_init__(self, checked: bool) -> None:
        if checked:
            return
        found = _Findings()
        steps = found.rows(self.action, "action")
        after = None if steps is None else steps + 1
        found.array("obs", self.obs, np.float32, (after, None))
        found.array("mask", self.mask, np.bool_, (after, None))
        found.array("action", self.action, np.int64, (steps,))
        found.array("log_prob", self.log_prob, np.float32, (steps,))
        found.array("reward", self.reward, np.float32, (steps,))
        what = f"the trajectory of run {self.run!r}, episode {self.episode}, node {self.node}"
        found.stop_if_any(f"{what} cannot be learned from")
        found.decisions(self.obs, self.mask[:-1], self.action, self.log_prob, self.reward)
        if not self.terminated:
            found.masks("mask", self.mask[-1:])
        found.stop_if_any(f"{what} cannot be learned from")

    def __len__(self) -> int:
        return len(self.action)


def check_decisions(
    what: str,
    obs: FloatArray,
    mask: BoolArray,
    action: IntArray,
    log_prob: FloatArray,
    reward: FloatArray,
    last: BoolArray,
) -> None:
    """Check the values of decisions [M] of many trajectories at once.

    ``obs`` are all states [., D], ``mask`` those of the decisions [M, A], ``last`` those of the
    states after the last ones [S, A].

    Raises:
        UsageError: as `Trajectory` raises it, about ``what``.
    """
    found = _Findings()
    found.array("obs", obs, np.float32, (None, None))
    found.array("mask", mask, np.bool_, (len(action), None))
    found.array("action", action, np.int64, (None,))
    for name, values in (("log_prob", log_prob), ("reward", reward)):
        found.array(name, values, np.float32, (len(action),))
    found.stop_if_any(f"{what} cannot be learned from")
    found.decisions(obs, mask, action, log_prob, reward)
    found.masks("mask", last)
    found.stop_if_any(f"{what} cannot be learned from")


def transitions_of(trajectories: Sequence[Trajectory]) -> Transitions:
    """Cut trajectories into transitions, in the given order.

    Raises:
        UsageError: no trajectory, or trajectories of different widths.
    """
    check_widths(trajectories)
    last = np.concatenate([_last_flags(len(t)) for t in trajectories])
    terminated = np.concatenate([np.full(len(t), t.terminated) for t in trajectories])
    return Transitions(
        obs=np.concatenate([t.obs[:-1] for t in trajectories]),
        mask=np.concatenate([t.mask[:-1] for t in trajectories]),
        action=np.concatenate([t.action for t in trajectories]),
        log_prob=np.concatenate([t.log_prob for t in trajectories]),
        reward=np.concatenate([t.reward for t in trajectories]),
        next_obs=np.concatenate([t.obs[1:] for t in trajectories]),
        next_mask=np.concatenate([t.mask[1:] for t in trajectories]),
        terminated=last & terminated,
        truncated=last & ~terminated,
    )


def check_widths(trajectories: Sequence[Trajectory]) -> tuple[int, int]:
    """Return (D, A) common to all trajectories.

    Raises:
        UsageError: none given, or different observation or action widths.
    """
    widths = {(t.obs.shape[1], t.mask.shape[1]) for t in trajectories}
    if len(widths) != 1:
        seen = ", ".join(f"{d} features x {a} actions" for d, a in sorted(widths)) or "none"
        raise UsageError(
            "trajectories do not belong together",
            [Problem("trajectories", f"found {seen}", "one or more, all of one encoder and N")],
        )
    features, actions = widths.pop()
    return int(features), int(actions)


def _last_flags(steps: int) -> BoolArray:
    flags = np.zeros(steps, dtype=np.bool_)
    flags[-1] = True
    return flags


def _width(array: NDArray[Any]) -> int | None:
    return int(array.shape[1]) if getattr(array, "ndim", 0) == 2 else None


class _Findings:
    """Collects problems, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._problems)

    def add(self, path: str, seen: str, allowed: str) -> None:
        self._problems.append(Problem(path, seen, allowed))

    def stop_if_any(self, message: str) -> None:
        if self._problems:
            raise UsageError(message, self._problems)

    def rows(self, array: NDArray[Any], name: str) -> int | None:
        if getattr(array, "ndim", 0) == 0:
            return None
        if len(array) == 0:
            self.add(name, "no rows", "at least one")
        return len(array)

    def array(self, name: str, array: Any, dtype: Any, shape: tuple[int | None, ...]) -> None:
        if not isinstance(array, np.ndarray):
            self.add(name, f"a {type(array).__name__}", "a numpy array")
            return
        if array.dtype != dtype:
            self.add(name, f"type {array.dtype}", f"{np.dtype(dtype)}")
        fits = array.ndim == len(shape) and all(
            want is None or have == want for have, want in zip(array.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            self.add(name, f"shape {array.shape}", f"[{wanted}]")
        elif len(shape) == 2 and array.shape[1] == 0:
            self.add(name, "no columns", "at least one")

    def decisions(
        self,
        obs: FloatArray,
        mask: BoolArray,
        action: IntArray,
        log_prob: FloatArray,
        reward: FloatArray,
    ) -> None:
        self.finite("obs", obs)
        self.finite("reward", reward)
        self.log_prob("log_prob", log_prob, unknown_allowed=False)
        self.actions(action, mask)

    def finite(self, name: str, values: NDArray[Any]) -> None:
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            self.add(name, f"{bad} values are NaN or infinite", "finite numbers")

    def log_prob(self, name: str, values: NDArray[Any], *, unknown_allowed: bool) -> None:
        unknown = np.isnan(values)
        if unknown_allowed:
            wrong = np.isinf(values) | (values > 1e-4)
            allowed = "at most 0, or NaN where it is not known"
        else:
            wrong = unknown | np.isinf(values) | (values > 1e-4)
            allowed = "finite and at most 0"
        if wrong.any():
            count = int(np.count_nonzero(wrong))
            self.add(name, f"{count} values are not log-probabilities", allowed)

    def actions(self, action: IntArray, mask: BoolArray) -> None:
        outside = (action < 0) | (action >= mask.shape[1])
        if outside.any():
            row = int(np.argmax(outside))
            self.add(f"action[{row}]", f"action {int(action[row])}", f"0..{mask.shape[1] - 1}")
            return
        self.masks("mask", mask)
        refused = ~mask[np.arange(len(action)), action]
        if refused.any():
            row = int(np.argmax(refused))
            self.add(
                f"action[{row}]",
                f"{int(np.count_nonzero(refused))} actions are outside their mask, "
                f"first {int(action[row])}",
                "an action that the mask allows",
            )

    def masks(self, name: str, mask: BoolArray) -> None:
        empty = ~mask.any(axis=1)
        if empty.any():
            self.add(
                f"{name}[{int(np.argmax(empty))}]",
                f"{int(np.count_nonzero(empty))} rows allow nothing",
                "at least one allowed action",
            )
