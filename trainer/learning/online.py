"""Online fine-tuning: collect with the current policy, update, keep what is not worse.

Guarantees: the first online evaluation is held against the offline policy before anything is
learned (hand-over gate); only trajectories of the policy in force are learned from; a policy that
evaluates worse than the one it replaces, beyond noise, is rolled back; the best evaluated policy
is what the training returns; after a restart it continues where it stopped, with the same result.
What runs the episodes is a `Rollout`: the real network or the simulator.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError, check_settings, differences
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.checkpoint import (
    Arrays,
    prefixed,
    read_checkpoint,
    taken,
    write_checkpoint,
)
from trainer.learning.curves import Curves
from trainer.learning.module import actor_of
from trainer.learning.ppo import Ppo, PpoConfig
from trainer.learning.transitions import RewardScale, Trajectory

STATE = "online.npz"
ACTOR = "actor.npz"
LEAST_EPISODES = 10
"""Fewer episodes per update make updates that lose more than they gain."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Episodes that one policy ran: all their trajectories and the success rate of each."""

    trajectories: Sequence[Trajectory]
    success_rate: Scores  # [episodes], NaN of an episode without a task


class Rollout(Protocol):
    """Runs episodes with a policy; deterministic in the policy and the seed where it can be.

    An episode that could not be run is an error, never an episode with a bad score.
    """

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        """Run ``episodes`` new episodes, actions sampled from the policy; for learning."""
        ...

    def evaluate(self, actor: Actor, episodes: int) -> Scores:
        """Success rate of each of the first ``episodes`` evaluation episodes; NaN without a task.

        The same episodes (arrivals, sizes, faults) every time, so that two policies can be
        compared pair by pair; never episodes that `collect` runs.
        """
        ...


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """Settings of the fine-tuning.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    episodes: int = 1_000
    """Episodes to learn from in total; the last update may be smaller, but not below the least."""
    episodes_per_update: int = 20
    """Episodes collected per update, at least 10."""
    evaluation_episodes: int = 40
    """Paired episodes per evaluation."""
    evaluate_every: int = 5
    """Updates between two evaluations; the last update is always evaluated."""
    noise: float = 2.0
    """Standard errors of the paired difference that count as noise."""
    tolerance: float = 0.0
    """Success rate that may be lost besides the noise before a policy is refused."""
    shrink_after_rollback: float = 0.5
    """Factor on the learning rate after a rollback, above 0 and at most 1."""
    seed: int = 0
    """Seed of the collected episodes."""
    ppo: PpoConfig = field(default_factory=PpoConfig)
    """The learner."""

    def __post_init__(self) -> None:
        least = f"at least {LEAST_EPISODES}"
        checks = (
            ("episodes", self.episodes >= LEAST_EPISODES, least),
            ("episodes_per_update", self.episodes_per_update >= LEAST_EPISODES, least),
            ("evaluation_episodes", self.evaluation_episodes >= 2, "at least 2"),
            ("evaluate_every", self.evaluate_every >= 1, "at least 1"),
            ("noise", self.noise >= 0, "0 or more"),
            ("tolerance", self.tolerance >= 0, "0 or more"),
            ("shrink_after_rollback", 0 < self.shrink_after_rollback <= 1, "above 0, at most 1"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        check_settings("invalid settings of the fine-tuning", "online", self, checks)


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """A policy's scores against a reference's: difference of means and its standard error."""

    difference: float
    standard_error: float
    worse: bool
    """Below the reference by more than noise and tolerance."""


def score_difference(
    scores: Scores, reference: Scores, *, noise: float = 2.0, tolerance: float = 0.0
) -> ScoreDifference:
    """Hold per-episode scores against a reference.

    Paired where both have the same number of episodes (then they must be the same episodes),
    otherwise as two independent samples. Episodes without a task, whose score is NaN, do not count.

    Raises:
        UsageError: fewer than two episodes with a task on either side.
    """
    if len(scores) == len(reference):
        both = ~(np.isnan(scores) | np.isnan(reference))
        scores, reference = scores[both], reference[both]
    else:
        scores, reference = scores[~np.isnan(scores)], reference[~np.isnan(reference)]
    problems = [
        Problem(
            name,
            f"{len(values)} episodes with a task",
            "at least 2; evaluate more episodes, or let more tasks arrive",
        )
        for name, values in (("scores", scores), ("reference", reference))
        if len(values) < 2
    ]
    if problems:
        raise UsageError("these evaluations cannot be compared", problems)
    difference = float(np.mean(scores) - np.mean(reference))
    if len(scores) == len(reference):
        error = float(np.std(scores - reference, ddof=1)) / math.sqrt(len(scores))
    else:
        error = math.sqrt(
            float(np.var(scores, ddof=1)) / len(scores)
            + float(np.var(reference, ddof=1)) / len(reference)
        )
    return ScoreDifference(difference, error, difference < -(noise * error + tolerance) - 1e-12)


Verdict = Literal["gate", "kept", "rolled back", "not evaluated"]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of the learning curve; point 0 is the first evaluation, before any update."""

    update: int
    episodes: int
    """Episodes learned from so far."""
    collected: float | None
    """Mean success rate of the episodes collected for this update."""
    evaluation: float | None
    standard_error: float | None
    verdict: Verdict
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class OnlineResult:
    """A finished (or refused) fine-tuning.

    ``actor`` is the best evaluated one; the starting one if the gate refused it.
    """

    actor: Actor
    weights: Arrays
    gate: ScoreDifference | None
    """First online evaluation against the offline policy's; None without a reference."""
    refused: bool
    """The gate refused the hand-over: nothing was learned."""
    best_update: int
    best_scores: Scores
    rollbacks: int
    history: tuple[CurvePoint, ...]
    finished: bool
    """False if `stop` ended it early; it can then be resumed."""


class Start(NamedTuple):
    """The offline result that fine-tuning begins from; without one it learns from nothing.

    ``weights`` are those of its actor and value critic, ``reference`` its success rate per
    evaluation episode, for the gate (None: no gate).
    """

    weights: Mapping[str, NDArray[Any]] | None = None
    reward_scale: RewardScale | None = None
    reference: Scores | None = None


FROM_NOTHING: Final = Start()


def fine_tune(
    rollout: Rollout,
    spec: NetworkSpec,
    config: OnlineConfig,
    out_dir: Path,
    *,
    start: Start = FROM_NOTHING,
    progress: Callable[[CurvePoint], None] | None = None,
    stop: Callable[[], bool] | None = None,
    resume: bool = False,
) -> OnlineResult:
    """Fine-tune a policy on episodes of ``rollout``; state and curves go to ``out_dir``.

    The state is on disk after every update; with ``resume`` it is continued if it is there.

    Raises:
        UsageError: a state of other settings, another network or another start, or of more
            episodes; weights that do not fit.
        PermanentError: the loss is no longer finite.
    """
    path = out_dir / STATE
    stored = read_checkpoint(path, "online") if resume and path.exists() else None
    with Ppo(spec, config.ppo, weights=start.weights, reward_scale=start.reward_scale) as ppo:
        tuning = _Tuning(rollout, ppo, config, path, _digest(start.weights))
        if stored is not None:
            tuning.restore(*stored)
        kept = None if stored is None else tuning.update
        with Curves(out_dir, keep_until=kept) as curves:

            def report(point: CurvePoint) -> None:
                curves.add(point.update, numbers_of(point))
                if progress is not None:
                    progress(point)

            for point in tuning.history:
                # The state is written before the curve, which may so lack the last point.
                if point.update > curves.last_step:
                    curves.add(point.update, numbers_of(point))
            if stored is None:
                report(tuning.start(start.reference))
            while tuning.goes_on() and not (stop is not None and stop()):
                report(tuning.advance())
        result = tuning.result()
    result.actor.save(out_dir / ACTOR)
    return result


def begun_from(out_dir: Path, weights: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether fine-tuning in ``out_dir`` began with these weights; True if there is none.

    Raises:
        UsageError: its state cannot be read.
    """
    path = out_dir / STATE
    if not path.exists():
        return True
    _, note = read_checkpoint(path, "online")
    return bool(note["identity"].get("start") == _digest(weights))


def _digest(weights: Mapping[str, NDArray[Any]] | None) -> str:
    """sha256 of what a fine-tuning starts from; empty for nothing."""
    if weights is None:
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


class _Tuning:
    """The state machine of the loop; everything that must survive a restart is saved here."""

    def __init__(
        self, rollout: Rollout, ppo: Ppo, config: OnlineConfig, path: Path, start: str
    ) -> None:
        self._rollout, self._ppo, self._config, self._path = rollout, ppo, config, path
        self._start = start
        self.update = 0
        self._episodes = 0
        self._rollbacks = 0
        self._best_update = 0
        self._gate: ScoreDifference | None = None
        self._refused = False
        self.history: list[CurvePoint] = []
        # The policy in force when it was last evaluated: what a worse one is rolled back to.
        self._accepted: Arrays = {}
        self._accepted_scores: Scores = np.zeros(0)
        self._best: Arrays = {}
        self._best_scores: Scores = np.zeros(0)

    def start(self, reference: Scores | None) -> CurvePoint:
        """Evaluate the policy as handed over and hold it against the offline one."""
        scores = self._evaluate()
        if reference is not None:
            config = self._config
            self._gate = score_difference(
                scores, reference, noise=config.noise, tolerance=config.tolerance
            )
            self._refused = self._gate.worse
        self._accepted, self._accepted_scores = self._ppo.state(), scores
        self._best, self._best_scores = self._ppo.weights(), scores
        return self._remember(None, scores, "gate", {})

    def goes_on(self) -> bool:
        """Return whether another update is due."""
        return not self._refused and self._batch() > 0

    def advance(self) -> CurvePoint:
        """Collect, update, and evaluate where it is due."""
        config = self._config
        size = self._batch()
        # A counter, not the update's number: after a rollback new episodes are wanted too.
        seed = int(np.random.SeedSequence([config.seed, self.update]).generate_state(1)[0])
        collected = self._rollout.collect(self._ppo.actor(), size, seed)
        metrics = self._ppo.update(collected.trajectories)
        self.update += 1
        self._episodes += size
        mean = float(np.nanmean(collected.success_rate))
        if self.update % config.evaluate_every and self._batch() > 0:
            return self._remember(mean, None, "not evaluated", metrics)
        scores = self._evaluate()
        return self._remember(mean, scores, self._judge(scores), metrics)

    def result(self) -> OnlineResult:
        """Return the result so far."""
        return OnlineResult(
            actor=actor_of(self._ppo.spec, self._best),
            weights=self._best,
            gate=self._gate,
            refused=self._refused,
            best_update=self._best_update,
            best_scores=self._best_scores,
            rollbacks=self._rollbacks,
            history=tuple(self.history),
            finished=not self.goes_on(),
        )

    def _batch(self) -> int:
        """Return episodes of the next update; 0 when too few are left for one."""
        left = self._config.episodes - self._episodes
        size = min(self._config.episodes_per_update, left)
        return size if size >= LEAST_EPISODES else 0

    def _evaluate(self) -> Scores:
        episodes = self._config.evaluation_episodes
        return np.asarray(self._rollout.evaluate(self._ppo.actor(), episodes), dtype=np.float64)

    def _judge(self, scores: Scores) -> Verdict:
        config = self._config
        verdict = score_difference(
            scores, self._accepted_scores, noise=config.noise, tolerance=config.tolerance
        )
        if verdict.worse:
            self._rollbacks += 1
            self._ppo.roll_back(self._accepted, slow_down=config.shrink_after_rollback)
            return "rolled back"
        if np.nanmean(scores) > np.nanmean(self._best_scores):
            self._best, self._best_scores = self._ppo.weights(), scores
            self._best_update = self.update
        self._accepted, self._accepted_scores = self._ppo.state(), scores
        return "kept"

    def _remember(
        self,
        collected: float | None,
        scores: Scores | None,
        verdict: Verdict,
        metrics: Mapping[str, float],
    ) -> CurvePoint:
        mean = error = None
        if scores is not None:
            told = scores[~np.isnan(scores)]
            mean = float(np.mean(told))
            error = float(np.std(told, ddof=1)) / math.sqrt(len(told))
        point = CurvePoint(
            self.update, self._episodes, collected, mean, error, verdict, dict(metrics)
        )
        self.history.append(point)
        self._save()
        return point

    def _identity(self) -> dict[str, Any]:
        # The number of episodes may be raised when a training is continued.
        settings = asdict(self._config)
        settings.pop("episodes")
        stored: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "network": self._ppo.spec.to_json(),
                    "settings": settings,
                    "start": self._start,
                }
            )
        )
        return stored

    def _save(self) -> None:
        note = {
            "identity": self._identity(),
            "update": self.update,
            "episodes": self._episodes,
            "rollbacks": self._rollbacks,
            "best_update": self._best_update,
            "gate": None if self._gate is None else asdict(self._gate),
            "refused": self._refused,
            "history": [asdict(point) for point in self.history],
        }
        arrays = prefixed("current", self._ppo.state())
        arrays |= prefixed("accepted", self._accepted) | prefixed("best", self._best)
        arrays["accepted_scores"] = self._accepted_scores
        arrays["best_scores"] = self._best_scores
        write_checkpoint(self._path, "online", arrays, note)

    def restore(self, arrays: Arrays, note: Mapping[str, Any]) -> None:
        """Continue what `_save` wrote.

        Raises:
            UsageError: it belongs to other settings, another network or another start, or has
                learned from more episodes than are asked for.
        """
        problems = differences("state.", self._identity(), note["identity"])
        if problems:
            raise UsageError("the state is of a fine-tuning with other settings", problems)
        if int(note["episodes"]) > self._config.episodes:
            raise UsageError(
                "more episodes are done than requested; request at least as many, or start over",
                [
                    Problem(
                        "online.episodes",
                        str(self._config.episodes),
                        f"at least {note['episodes']}, as done",
                    )
                ],
            )
        self._ppo.restore(taken("current", arrays))
        self._accepted, self._best = taken("accepted", arrays), taken("best", arrays)
        self._accepted_scores = arrays["accepted_scores"]
        self._best_scores = arrays["best_scores"]
        self.update, self._episodes = int(note["update"]), int(note["episodes"])
        self._rollbacks, self._best_update = int(note["rollbacks"]), int(note["best_update"])
        self._gate = None if note["gate"] is None else ScoreDifference(**note["gate"])
        self._refused = bool(note["refused"])
        self.history = [CurvePoint(**point) for point in note["history"]]


def numbers_of(point: CurvePoint) -> dict[str, float]:
    """Return the numbers of a point, as ``metrics.csv`` has them."""
    numbers = {"episodes": float(point.episodes), **point.metrics}
    for name in ("collected", "evaluation", "standard_error"):
        value = getattr(point, name)
        if value is not None:
            numbers[name] = value
    return numbers | {"rolled_back": float(point.verdict == "rolled back")}
