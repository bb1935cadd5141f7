"""Learners on a Ray cluster: two remote workers learn what one in this process learns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.trainer.learning.problems import SPEC, episodes_with, logged
from trainer.learning.cql import CqlConfig
from trainer.learning.groups import read_weights
from trainer.learning.offline import OfflineConfig, train_offline
from trainer.learning.ppo import Ppo, PpoConfig

# Workers import PyTorch and Ray, each anew for each group, on as few cores as there are.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        # Ray announces a change of its default for accelerators, which this machine may not have.
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_two_remote_learners_learn_what_one_here_learns(cluster: None, tmp_path: Path) -> None:
    data = logged(20)
    config = OfflineConfig(steps=10, learner=CqlConfig(batch_size=32), hidden=SPEC.hidden)
    here = train_offline(data, config, tmp_path / "here")
    there = train_offline(data, replace(config, num_learners=2), tmp_path / "there")
    # Gradients are averaged over the two halves of every batch: equal up to rounding.
    for name, value in here.weights.items():
        np.testing.assert_allclose(there.weights[name], value, atol=1e-4, err_msg=name)
    again = replace(config, num_learners=2, steps=20)
    assert train_offline(data, again, tmp_path / "there", resume=True).steps_done == 20

    settings = PpoConfig(minibatch_size=100, num_learners=2)
    batch = episodes_with(None, 11, seed=0)
    with Ppo(SPEC, settings, weights=there.weights) as ppo:
        metrics = ppo.update(batch)
        state, after = ppo.state(), ppo.weights()
        assert metrics["minibatches"] == 4 * 3
        assert np.isfinite(list(metrics.values())).all()
        assert not np.array_equal(after["vf.0.weight"], there.weights["vf.0.weight"])
        every = [result.get() for result in ppo._group.foreach_learner(_weights_of)]
        for name, value in every[0].items():
            np.testing.assert_array_equal(value, every[1][name], err_msg=name)
        ppo.update(batch)
        ppo.restore(state)
        for name, value in read_weights(ppo._group).items():
            np.testing.assert_array_equal(value, after[name], err_msg=name)


def _weights_of(learner: object) -> dict[str, object]:
    from trainer.learning.groups import _read_weights

    return dict(_read_weights(learner))
