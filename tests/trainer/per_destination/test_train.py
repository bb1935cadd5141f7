"""Training of the per-destination policy: it learns, and the same seed gives the same weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from testbed.errors import UsageError
from testbed.experiment.per_destination.__main__ import training_of
from testbed.model.information import Asks
from testbed.model.per_destination import HEARD_NAME, STATE_NAME
from testbed.model.topology import Overload, OverloadMeasure
from testbed.model.units import MILLISECOND, SECOND
from testbed.policies import load_folder
from testbed.schedulers.drl import Drl
from testbed.sim.engine.arrays import problems_of
from testbed.sim.play import evaluate
from testbed.sim.simulator import simulate_episode
from tests.sim.plans import random_plan
from trainer.credit.weight import later_weight
from trainer.per_destination.export import actor_onnx, write_policy
from trainer.per_destination.networks import LIGHT, PAPER, PAPER_SWEPT, SMALL
from trainer.per_destination.train import (
    Group,
    Iteration,
    PerDestinationConfig,
    train_per_destination,
)

QUICK = PerDestinationConfig(
    iterations=10, seed=1, groups=(Group(PAPER, (8,), 16),), minibatch=1024, threads=1
)


def test_a_few_iterations_beat_every_baseline_with_the_same_information() -> None:
    seen: list[Iteration] = []
    result = train_per_destination(QUICK, seen.append)
    assert [iteration.number for iteration in seen] == list(range(10))
    assert tuple(seen) == result.history
    assert seen[-1].entropy < seen[0].entropy
    equals = ["ratc-masked", "rda-masked", "local-or-reliable", "untrained"]
    rates = {name: [0.0] * 4 for name in [*equals, "learned"]}
    for k in range(4):
        plan = random_plan(900 + k, size=8)
        found = evaluate(plan, [*equals, "learned"], 10, {"learned": result.weights})
        for name, values in found.items():
            rates[name][k] = float(values.mean())
    means = {name: float(np.mean(values)) for name, values in rates.items()}
    assert means["learned"] > max(means[name] for name in equals)


def test_the_same_seed_gives_the_same_weights() -> None:
    config = replace(QUICK, iterations=2)
    one = train_per_destination(config)
    two = train_per_destination(config)
    other = train_per_destination(replace(config, seed=7))
    for left, right, different in zip(one.weights, two.weights, other.weights, strict=True):
        np.testing.assert_array_equal(left, right)
        assert (left != different).any()


def test_what_is_made_does_not_depend_on_the_processors_of_the_machine() -> None:
    config = replace(QUICK, iterations=2)
    made = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            result = train_per_destination(replace(config, threads=threads))
            made.append((actor_onnx(result.weights), training_of(result)))
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]


def test_training_goes_on_from_given_weights() -> None:
    result = train_per_destination(QUICK)
    again = train_per_destination(replace(QUICK, iterations=1), start=result.weights)
    assert again.history[0].entropy < 0.7 * result.history[0].entropy


@pytest.mark.parametrize("family", [PAPER, PAPER_SWEPT, LIGHT, SMALL])
def test_every_network_to_train_on_can_be_run(family: object) -> None:
    rng = np.random.default_rng(0)
    drawn = [family.draw(rng, size) for size in (1, 5, 20)]  # type: ignore[attr-defined]
    assert [plan.topology.size for plan in drawn] == [1, 5, 20]
    assert all(problems_of(plan) == [] for plan in drawn)
    assert len({plan.seeds.workload for plan in drawn}) == 3


def test_effects_on_later_tasks_count_more_the_less_others_can_react() -> None:
    plan = random_plan(1)
    arrivals = plan.topology.arrival_probability

    def weight(share: float, limit: float) -> float:
        topology = replace(
            plan.topology, arrival_probability=tuple(share * rate for rate in arrivals)
        )
        overload = Overload(OverloadMeasure.BACKLOG, int(limit * SECOND))
        rules = replace(plan.rules, overload=overload)
        return later_weight(replace(plan, topology=topology, rules=rules), (0.3, 3.5))

    assert weight(0.2, 1.0) == 0.3
    assert 0.3 < weight(0.2, 6.0) < 1.0
    assert weight(0.2, 20.0) == 1.0
    assert weight(3.0, 1.0) == 1.0


def test_settings_that_make_no_sense_are_refused_together() -> None:
    with pytest.raises(UsageError) as error:
        PerDestinationConfig(iterations=0, epochs=0, groups=())
    assert {problem.path for problem in error.value.problems} == {"iterations", "epochs", "groups"}


@pytest.mark.parametrize(
    ("information", "encoder", "asks"),
    [
        ("state", STATE_NAME, "state"),
        ("probe:2", HEARD_NAME, {"probe": 2}),
        ("gossip:1 slot", HEARD_NAME, {"gossip": "1 slot"}),
    ],
)
def test_a_policy_learns_from_states_and_is_written_as_one_that_asks_for_them(
    information: str, encoder: str, asks: Asks, tmp_path: Path
) -> None:
    config = replace(QUICK, information=information, iterations=6)
    result = train_per_destination(config)
    assert result.weights.encoder == encoder
    rates = [iteration.success_rate[PAPER.name] for iteration in result.history]
    assert max(rates[3:]) > rates[0]
    card = write_policy(result.weights, tmp_path / "p", "states", asks=config.asks)
    assert (card.encoder, card.asks) == (encoder, asks)
    policy = load_folder(tmp_path / "p")
    plan = random_plan(901, size=8, slots=20, delay=(25 * MILLISECOND, SECOND))
    # The engine, with the weights, and the simulator, with what nodes load, do the same.
    found = evaluate(plan, ["it"], 2, {"it": policy})["it"].tolist()
    made = partial(Drl.of, policy=policy)
    assert found == [simulate_episode(plan, number, made).success_rate for number in range(2)]


def test_training_does_not_go_on_from_other_information() -> None:
    result = train_per_destination(replace(QUICK, iterations=1))
    with pytest.raises(UsageError, match="per-destination-v1"):
        train_per_destination(replace(QUICK, information="state"), start=result.weights)
    for information in ("rumours", "probe", "probe:0", "probe:many", "state:2", "gossip:1"):
        with pytest.raises(UsageError, match="one of bits, state, probe:2"):
            replace(QUICK, information=information)
