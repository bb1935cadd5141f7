"""Offline training: transitions in, an actor and a value critic out (Algorithm 1, and peers of it).

Guarantees: the same data, settings and seed give the same weights, and a training that was
interrupted and resumed ends with exactly the weights of one that was not. An interrupt (Ctrl-C, and
SIGTERM of the command line) keeps all but the steps since the last report. No Ray cluster is
started; with ``num_learners`` an already connected one is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from testbed.errors import Problem, UsageError, differences
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.checkpoint import (
    Arrays,
    prefixed,
    read_checkpoint,
    taken,
    write_checkpoint,
)
from trainer.learning.cql import CqlConfig
from trainer.learning.curves import Curves
from trainer.learning.groups import (
    learn_here,
    learner_group,
    read_metrics,
    read_state,
    read_weights,
    write_state,
)
from trainer.learning.module import actor_of, flat_observations, module_spec
from trainer.learning.stepping import Settings
from trainer.learning.threads import torch_threads
from trainer.learning.transitions import IntArray, RewardScale, Transitions

CHECKPOINT = "offline.npz"
ACTOR = "actor.npz"


@dataclass(frozen=True, slots=True)
class OfflineConfig:
    """Settings of one offline training.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    steps: int = 4_000
    """Gradient steps in total."""
    seed: int = 0
    """Seed of the initial weights and of the minibatches."""
    learner: Settings = field(default_factory=CqlConfig)
    """The learner and its settings (``trainer.learning.learners``)."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of every network."""
    offset: tuple[float, ...] | None = None
    """Subtracted from observations before the first layer; None: the encoder normalises."""
    scale: tuple[float, ...] | None = None
    """Factors on observations after the offset; None: 1."""
    report_every: int = 100
    """Gradient steps between two rows of metrics: means since the last row, evaluation or
    checkpoint."""
    checkpoint_every: int = 1_000
    """Gradient steps between two checkpoints; one is always written at the end, and when
    interrupted."""
    evaluate_every: int = 1_000
    """Gradient steps between two evaluations, if an evaluation is given."""
    patience: int | None = None
    """Evaluations without a new best after which training stops early; None: never."""
    num_learners: int = 0
    """Remote learners; 0 trains in this process and needs no Ray cluster."""
    threads: int = 1
    """Torch threads of a training in this process; one is fastest for networks of this size."""

    def __post_init__(self) -> None:
        least = [
            ("steps", self.steps, 1),
            ("seed", self.seed, 0),
            ("report_every", self.report_every, 1),
            ("checkpoint_every", self.checkpoint_every, 1),
            ("evaluate_every", self.evaluate_every, 1),
            ("num_learners", self.num_learners, 0),
            ("threads", self.threads, 1),
            ("patience", 1 if self.patience is None else self.patience, 1),
        ]
        problems = [
            Problem(f"offline.{name}", str(value), f"at least {low}")
            for name, value, low in least
            if value < low
        ]
        learner = self.learner
        if self.num_learners and not isinstance(learner, CqlConfig):
            # Gradients are averaged of what passes through the module's own forward pass.
            problems.append(
                Problem(
                    "offline.num_learners",
                    f"{self.num_learners} remote learners of {learner.name}",
                    "0: only cql can be learned remotely",
                )
            )
        if self.num_learners > 1 and learner.batch_size % self.num_learners:
            problems.append(
                Problem(
                    f"offline.{learner.name}.batch_size",
                    f"{learner.batch_size} rows for {self.num_learners} learners",
                    "a multiple of the number of learners",
                )
            )
        if problems:
            raise UsageError("invalid settings of the offline training", problems)


@dataclass(frozen=True, slots=True)
class OfflineProgress:
    """Argument of the progress callback, with every row of metrics."""

    step: int
    steps: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class OfflineResult:
    """A finished offline training.

    ``actor`` is the best evaluated one, or the last where nothing was evaluated. ``weights`` are
    the actor's and value critic's (`pi.*`, `vf.*`) of the same moment: the start of the online
    phase.
    """

    actor: Actor
    weights: Arrays
    reward_scale: RewardScale
    steps_done: int
    stopped_early: bool
    best_step: int
    best_score: float | None
    metrics: Mapping[str, float]
    checkpoint: Path


def train_offline(
    transitions: Transitions,
    config: OfflineConfig,
    out_dir: Path,
    *,
    progress: Callable[[OfflineProgress], None] | None = None,
    evaluate: Callable[[Actor], float] | None = None,
    stop: Callable[[], bool] | None = None,
    resume: bool = False,
) -> OfflineResult:
    """Train actor and critics on logged transitions; files go to ``out_dir``.

    Writes ``metrics.csv``, ``tensorboard/``, ``offline.npz`` (everything needed to go on) and
    ``actor.npz``. ``evaluate`` gives the score of an actor, higher is better; the best is kept.
    ``stop`` is asked at every pause and ends the training as if its steps were done, with a
    checkpoint. With ``resume`` an existing checkpoint is continued, else it starts from step 0;
    without, an existing one is overwritten. ``steps`` may be raised between the two.

    Raises:
        UsageError: a checkpoint of other settings, data or network, or of more steps.
        PermanentError: the loss is no longer finite.
    """
    return _Training(transitions, config, out_dir, evaluate).run(progress, stop, resume=resume)


class _Training:
    def __init__(
        self,
        transitions: Transitions,
        config: OfflineConfig,
        out_dir: Path,
        evaluate: Callable[[Actor], float] | None,
    ) -> None:
        self.config = config
        self.spec = NetworkSpec(
            transitions.features,
            transitions.actions,
            config.hidden,
            config.offset,
            config.scale,
            transitions.encoder,
        )
        self.data = transitions
        self.reward_scale = transitions.reward_scale()
        self.reward = self.reward_scale.apply(transitions.reward)
        self.out_dir = out_dir
        self.evaluate = evaluate
        self.step = 0
        self.best_step = 0
        self.best_score: float | None = None
        self.best: Arrays = {}
        self.misses = 0
        self.metrics: dict[str, float] = {}
        self._pause: tuple[Arrays, dict[str, Any]] | None = None

    def run(
        self,
        progress: Callable[[OfflineProgress], None] | None,
        stop: Callable[[], bool] | None,
        *,
        resume: bool,
    ) -> OfflineResult:
        config, path = self.config, self.out_dir / CHECKPOINT
        stored = read_checkpoint(path, "offline") if resume and path.exists() else None
        learner = config.learner
        spec = module_spec(self.spec, twin_q=learner.twin_q, seed=config.seed)
        group = learner_group(learner.algorithm(), spec, config.num_learners)
        try:
            if stored is not None:
                self._restore(group, *stored)
            threads = torch_threads(config.threads)
            kept = None if stored is None else self.step
            with threads, Curves(self.out_dir, keep_until=kept) as curves:
                while self.step < config.steps and not self._out_of_patience():
                    self._pause = self._snapshot(group) if group.is_local else None
                    self._advance(group, self._next_pause())
                    if self._evaluation_due():
                        self.metrics["evaluation"] = self._judge(group)
                    if self._report_due() or "evaluation" in self.metrics:
                        curves.add(self.step, self.metrics)
                        if progress is not None:
                            progress(OfflineProgress(self.step, config.steps, self.metrics))
                    if self.step % config.checkpoint_every == 0:
                        self._save(group)
                    if stop is not None and stop():
                        break
            self._save(group)
            weights = self.best or learner.handed_over(read_weights(group))
        except KeyboardInterrupt:
            # The learner may be anywhere between two pauses: what is kept is the last of them.
            if self._pause is not None:
                write_checkpoint(path, "offline", *self._pause)
            raise
        finally:
            group.shutdown()
        actor = actor_of(self.spec, weights)
        actor.save(self.out_dir / ACTOR)
        return OfflineResult(
            actor=actor,
            weights=weights,
            reward_scale=self.reward_scale,
            steps_done=self.step,
            stopped_early=self.step < config.steps,
            best_step=self.best_step if self.best else self.step,
            best_score=self.best_score,
            metrics=dict(self.metrics),
            checkpoint=path,
        )

    def _next_pause(self) -> int:
        config = self.config
        every = [config.report_every, config.checkpoint_every]
        if self.evaluate is not None:
            every.append(config.evaluate_every)
        return min(config.steps, *(self.step + size - self.step % size for size in every))

    def _advance(self, group: LearnerGroup, until: int) -> None:
        """Run gradient steps up to ``until``, all of them in one call of the learner."""
        config = self.config
        shards = max(1, config.num_learners)
        # Each step has its own seed, so that where a training was interrupted does not matter.
        rows = np.stack(
            [self._rows_of_step(step) for step in range(self.step, until)]
        )  # [steps, batch]
        # A learner gets one contiguous piece of the batch: its share of every step.
        rows = rows.reshape(len(rows), shards, -1).transpose(1, 0, 2).reshape(-1)
        if group.is_local:
            batch = self._columns(rows, following=config.learner.gamma != 0)
            learn_here(group, batch=batch, size=config.learner.batch_size)
        else:
            group.update(
                batch=self._batch(rows),
                minibatch_size=config.learner.batch_size // shards,
                num_epochs=1,
            )
        self.metrics = read_metrics(group)
        self.step = until

    def _rows_of_step(self, step: int) -> IntArray:
        draw = np.random.default_rng([self.config.seed, step])
        rows: IntArray = draw.integers(0, len(self.data), size=self.config.learner.batch_size)
        return rows

    def _batch(self, rows: IntArray) -> MultiAgentBatch:
        batch = SampleBatch(self._columns(rows))
        return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(rows))

    def _columns(self, rows: IntArray, *, following: bool = True) -> dict[str, Tensor]:
        data = self.data
        columns = {
            Columns.OBS: flat_observations(data.obs[rows], data.mask[rows]),
            Columns.ACTIONS: data.action[rows],
            Columns.REWARDS: self.reward[rows],
            Columns.TERMINATEDS: data.terminated[rows],
        }
        if following:
            columns[Columns.NEXT_OBS] = flat_observations(data.next_obs[rows], data.next_mask[rows])
        return {name: torch.from_numpy(value) for name, value in columns.items()}

    def _report_due(self) -> bool:
        return self.step % self.config.report_every == 0 or self.step == self.config.steps

    def _evaluation_due(self) -> bool:
        at = self.step % self.config.evaluate_every == 0 or self.step == self.config.steps
        return self.evaluate is not None and at

    def _judge(self, group: LearnerGroup) -> float:
        assert self.evaluate is not None
        weights = self.config.learner.handed_over(read_weights(group))
        score = float(self.evaluate(actor_of(self.spec, weights)))
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step, self.best = score, self.step, weights
            self.misses = 0
        else:
            self.misses += 1
        return score

    def _out_of_patience(self) -> bool:
        return self.config.patience is not None and self.misses >= self.config.patience

    def _identity(self) -> dict[str, Any]:
        """Return the settings that must be equal for a checkpoint to be continued."""
        config = self.config
        return {
            "network": self.spec.to_json(),
            config.learner.name: settings_of(config.learner),
            "seed": config.seed,
            "rows": len(self.data),
            "reward_mean": self.reward_scale.mean,
            "reward_std": self.reward_scale.std,
        }

    def _snapshot(self, group: LearnerGroup) -> tuple[Arrays, dict[str, Any]]:
        """Return everything that is needed to go on from here: arrays, and what is noted."""
        note = {
            "identity": self._identity(),
            "step": self.step,
            "best_step": self.best_step,
            "best_score": self.best_score,
            "misses": self.misses,
            "metrics": self.metrics,
        }
        return prefixed("state", read_state(group)) | prefixed("best", self.best), note

    def _save(self, group: LearnerGroup) -> None:
        write_checkpoint(self.out_dir / CHECKPOINT, "offline", *self._snapshot(group))

    def _restore(self, group: LearnerGroup, arrays: Arrays, note: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(self._identity()))
        problems = differences("checkpoint.", mine, note["identity"])
        if problems:
            raise UsageError("the checkpoint is of a training with other settings", problems)
        if int(note["step"]) > self.config.steps:
            raise UsageError(
                "more steps are done than requested; request at least as many, or start over",
                [
                    Problem(
                        "offline.steps", str(self.config.steps), f"at least {note['step']}, as done"
                    )
                ],
            )
        write_state(group, taken("state", arrays))
        self.best = taken("best", arrays)
        self.step, self.best_step = int(note["step"]), int(note["best_step"])
        self.best_score = None if note["best_score"] is None else float(note["best_score"])
        self.misses, self.metrics = int(note["misses"]), dict(note["metrics"])


def settings_of(learner: Settings) -> dict[str, Any]:
    """Return the settings of a learner as plain values."""
    return asdict(cast(Any, learner))
