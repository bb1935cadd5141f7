"""An experiment on a local Ray cluster of two workers is the experiment of one process."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from testbed.errors import PrerequisiteMissing
from testbed.scenario.load import load
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.engine.arrays import without_control_delay
from trainer.o2o.cluster import ClusterRollout, connected, rollout_on
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import recipe, sized
from trainer.o2o.settings import O2OConfig
from trainer.o2o.simulated import SimulatedRollout, SimulatedVenue

SHIPPED = plan_of(load("quickstart"))
PLAN = without_control_delay(SHIPPED)

# A cluster of two workers, which import PyTorch and Ray.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        # Ray announces changes of its own defaults, and leaves files of its processes open.
        warnings.simplefilter("ignore")
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        yield cluster.address
        cluster.shutdown()


def test_without_an_address_no_ray_is_started(tmp_path: Path) -> None:
    with connected(None):
        assert not ray.is_initialized()
        small = sized(recipe("default"), offline_steps=5, online_episodes=10)
        config = O2OConfig(
            recipe=small, log_episodes=2, evaluation_episodes=2, methods=(), with_bound=False
        )
        run(SimulatedVenue(PLAN, threads=1), config, tmp_path / "out")
    assert not ray.is_initialized()
    with pytest.raises(PrerequisiteMissing, match="no Ray cluster is connected"):
        rollout_on(PLAN, small)


def test_without_an_address_ray_does_not_delay_the_end() -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('ray.dag' in sys.modules))\n"
        "from trainer.o2o.cluster import connected\n"
        "with connected(None): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_two_workers_tell_the_experiment_of_one_process(address: str, tmp_path: Path) -> None:
    def config(learners: int) -> O2OConfig:
        small = sized(
            recipe("default"),
            offline_steps=20,
            online_episodes=20,
            episodes_per_update=20,
            evaluation_episodes=12,
            num_learners=learners,
        )
        return O2OConfig(
            recipe=small, log_episodes=10, evaluation_episodes=4, methods=(), with_bound=False
        )

    here = run(SimulatedVenue(PLAN, threads=1), config(0), tmp_path / "here")
    with connected(address):
        # With the control delay that scenarios have, as the command line hands it over.
        assert SHIPPED.rules.control_delay
        rollout = rollout_on(SHIPPED, config(2).recipe)
        assert isinstance(rollout, ClusterRollout)
        assert here.actor is not None
        mine = SimulatedRollout(PLAN, "credit", threads=1).collect(here.actor, 12, 7)
        theirs = rollout.collect(here.actor, 12, 7)
        np.testing.assert_array_equal(mine.success_rate, theirs.success_rate)
        for first, second in zip(mine.trajectories, theirs.trajectories, strict=True):
            np.testing.assert_array_equal(first.reward, second.reward)
            np.testing.assert_allclose(first.log_prob, second.log_prob, atol=1e-5)
        there = run(SimulatedVenue(PLAN, rollout=rollout, threads=1), config(2), tmp_path / "there")
    assert there.curve[-1].episodes == 20
    # Gradients are averaged over two halves of every batch: equal up to rounding and its echoes.
    assert np.mean(there.rates["offline"]) == pytest.approx(
        np.mean(here.rates["offline"]), abs=0.02
    )
    assert not ray.is_initialized()


def test_an_address_where_nothing_answers_is_said() -> None:
    with pytest.raises(PrerequisiteMissing, match="no Ray cluster answers"), connected("nowhere"):
        pass
