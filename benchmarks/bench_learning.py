"""Speed of the learners on one thread, and their ratio to bare PyTorch.

Sizes are those of 20 nodes with the paper's observation. Every figure is the best of several
repetitions, because everything else that runs on the machine can only make it larger.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.reference_torch import BareCql, BarePpo
from trainer.learning.actor import NetworkSpec
from trainer.learning.cql import CqlConfig
from trainer.learning.export import actor_onnx
from trainer.learning.offline import OfflineConfig, OfflineProgress, train_offline
from trainer.learning.ppo import Ppo, PpoConfig
from trainer.learning.threads import torch_threads
from trainer.learning.transitions import Trajectory, transitions_of

FEATURES, ACTIONS = 67, 21
SEQUENCES, STEPS = 432, 100

Row = dict[str, Any]


def rows() -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    with torch_threads(1):
        return [*cql_rows(), *ppo_rows(), *inference_rows()]


def cql_rows(repetitions: int = 3, steps: int = 200) -> list[Row]:
    """Measure a gradient step of offline training: drawing the minibatch, update, metrics."""
    data = transitions_of(_trajectories())
    found = []
    for batch, asked in ((128, None), (640, 6.0), (2560, None)):
        with tempfile.TemporaryDirectory() as folder:
            config = OfflineConfig(
                steps=steps * (repetitions + 1),
                report_every=steps,
                checkpoint_every=10**9,
                learner=CqlConfig(batch_size=batch),
            )
            stamps: list[float] = []

            def note(_: OfflineProgress, kept: list[float] = stamps) -> None:
                kept.append(time.perf_counter())

            # The first stretch also builds the learner; the others are what a step costs.
            train_offline(data, config, Path(folder), progress=note)
            ours = min(b - a for a, b in pairwise(stamps)) / steps * 1e3
        bare = _bare_cql(batch, steps, repetitions)
        found.append(_row(f"CQL step, {batch} rows", ours, "ms", asked))
        found.append(_row(f"CQL step, {batch} rows, bare PyTorch", bare, "ms"))
        limit = 2.0 if batch == 640 else None
        found.append(_row(f"CQL step, {batch} rows, ratio to bare", ours / bare, "x", limit))
    return found


def ppo_rows(repetitions: int = 4) -> list[Row]:
    """Measure a whole update of 43,200 agent steps, 4 epochs, including building the episodes."""
    trajectories = _trajectories()
    config = PpoConfig(kl_stop=None)
    with Ppo(NetworkSpec(FEATURES, ACTIONS), config) as ppo:
        ours = _best(lambda: ppo.update(trajectories), repetitions)
    bare = BarePpo(FEATURES, ACTIONS)
    arrays = [
        torch.from_numpy(np.stack([getattr(t, name) for t in trajectories]))
        for name in ("obs", "mask", "action", "log_prob", "reward")
    ]
    theirs = _best(
        lambda: bare.update(*arrays, epochs=config.epochs, minibatch=config.minibatch_size),
        repetitions,
    )
    name = f"PPO update, {SEQUENCES * STEPS:,} agent steps, {config.epochs} epochs"
    return [
        _row(name, ours, "s", 0.9),
        _row(f"{name}, bare PyTorch", theirs, "s"),
        _row(f"{name}, ratio to bare", ours / theirs, "x", 2.0),
    ]


def inference_rows(calls: int = 5_000) -> list[Row]:
    """Measure one decision of the exported policy with onnxruntime, and the size of the file."""
    with Ppo(NetworkSpec(FEATURES, ACTIONS), PpoConfig()) as ppo:
        data = actor_onnx(ppo.actor())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options)
    inputs = {
        "observation": np.zeros((1, FEATURES), dtype=np.float32),
        "mask": np.ones((1, ACTIONS), dtype=np.bool_),
    }
    taken = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        session.run(None, inputs)
        taken.append(time.perf_counter_ns() - start)
    p50, p99 = np.percentile(taken, [50, 99]) / 1e3
    return [
        _row("policy inference, p50", float(p50), "us"),
        _row("policy inference, p99", float(p99), "us", 50.0),
        _row("policy file", len(data) / 1e3, "KB", 100.0),
    ]


def _bare_cql(batch: int, steps: int, repetitions: int) -> float:
    draw = np.random.default_rng(0)
    obs, following = (torch.rand(batch, FEATURES) for _ in range(2))
    mask, next_mask = (torch.from_numpy(_masks(draw, batch)) for _ in range(2))
    action = torch.zeros(batch, dtype=torch.int64)
    reward = torch.randn(batch)
    bare = BareCql(FEATURES, ACTIONS)

    def stretch() -> None:
        for _ in range(steps):
            bare.step(obs, mask, action, reward, following, next_mask)

    return _best(stretch, repetitions) / steps * 1e3


def _best(call: Callable[[], Any], repetitions: int) -> float:
    call()
    gc.collect()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _masks(draw: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask: np.ndarray[Any, np.dtype[np.bool_]] = draw.random((count, ACTIONS)) < 0.6
    mask[:, 0] = True
    return mask


def _trajectories() -> list[Trajectory]:
    draw = np.random.default_rng(0)
    return [
        Trajectory(
            obs=draw.random((STEPS + 1, FEATURES), dtype=np.float32),
            mask=_masks(draw, STEPS + 1),
            action=np.zeros(STEPS, dtype=np.int64),
            log_prob=np.full(STEPS, -2.5, dtype=np.float32),
            reward=draw.normal(size=STEPS).astype(np.float32),
            episode=number,
        )
        for number in range(SEQUENCES)
    ]


def _row(name: str, value: float, unit: str, asked: float | None = None) -> Row:
    met = None if asked is None else value <= asked
    return {"benchmark": name, "value": round(value, 3), "unit": unit, "at_most": asked, "met": met}


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
