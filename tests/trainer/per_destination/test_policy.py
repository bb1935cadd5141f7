"""The per-destination network is one function: in torch, compiled, from a file and as ONNX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from testbed import policies
from testbed.errors import UsageError
from testbed.experiment.per_destination.evaluation import (
    CHOICE_TOPOLOGIES,
    FINAL_TOPOLOGIES,
    NETWORKS,
    compare,
    network,
)
from testbed.experiment.statistics import chance_of, mean_interval
from testbed.model.per_destination import NAME
from testbed.policies.inference import open_actor
from testbed.scenario.load import load
from testbed.scenario.resolve import plan as resolve
from testbed.schedulers.catalogue import EQUALS, REFERENCES
from testbed.schedulers.drl import Drl
from testbed.sim.engine.arrays import pack, without_control_delay
from testbed.sim.engine.features import WIDTH
from testbed.sim.engine.policies import decode_weights, weights_of
from testbed.sim.engine.scoring import ScoringWeights, probabilities_of, record_scoring
from testbed.sim.engine.threads import Threads
from testbed.sim.play import PER_DESTINATION, evaluate
from testbed.sim.simulator import simulate_episode
from tests.sim.plans import random_plan
from trainer.per_destination.export import actor_onnx, network_of, write_policy
from trainer.per_destination.network import ScoringNetwork
from trainer.per_destination.network import weights_of as weights_of_network
from trainer.per_destination.price import price_of_policy, price_of_scheduler


def some_weights(seed: int = 0, hidden: int = 48) -> ScoringWeights:
    torch.manual_seed(seed)
    network = ScoringNetwork(WIDTH, hidden)
    with torch.no_grad():
        network.score.weight.mul_(30.0)
    return weights_of_network(network)


def cases(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    mask = rng.random((40, size)) < 0.6
    mask[:, 0] = True
    mask[0, 1:] = False
    return rng.normal(size=(40, size, WIDTH)).astype(np.float32), mask


@pytest.mark.parametrize("size", [1, 2, 20, 50])
def test_torch_onnx_and_the_engine_agree(size: int) -> None:
    weights = some_weights()
    features, mask = cases(size)
    with torch.no_grad():
        log = network_of(weights)(torch.from_numpy(features), torch.from_numpy(mask))
    expected = log.exp().numpy()
    session = onnxruntime.InferenceSession(actor_onnx(weights), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": features, "mask": mask})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[~mask] == 0.0).all()
    room, one = np.empty((size + 2, 48), np.float32), np.empty(size)
    for k in range(len(mask)):
        probabilities_of(weights, features[k], mask[k], room, one)
        np.testing.assert_allclose(one, expected[k], atol=1e-5)
    assert size == 1 or expected.max(axis=1).std() > 0.05


def test_a_written_policy_is_what_nodes_and_engine_load(tmp_path: Path) -> None:
    weights = some_weights(1)
    card = write_policy(weights, tmp_path / "p", "some", training={"seed": 1})
    policy = policies.load_folder(tmp_path / "p")
    assert policy.card == card
    assert (card.kind, card.encoder, card.nodes) == ("per-destination", NAME, None)
    assert card.size_bytes < 100_000
    for left, right in zip(weights_of(policy), weights, strict=True):
        np.testing.assert_array_equal(left, right)
    actor = open_actor(policy)
    features, mask = cases(6)
    with torch.no_grad():
        log = network_of(weights)(torch.from_numpy(features), torch.from_numpy(mask))
    for k in range(5):
        found = actor.probabilities(features[k].tolist(), mask[k].tolist())
        np.testing.assert_allclose(found, log[k].exp().numpy(), atol=1e-5)


def test_nodes_decide_as_the_engine_does(tmp_path: Path) -> None:
    weights = some_weights(2)
    write_policy(weights, tmp_path / "p", "some")
    policy = policies.load_folder(tmp_path / "p")
    plan = random_plan(77, size=6, slots=20)
    batch = pack([plan])
    decisions = record_scoring(batch, Threads(1), weights, [3])
    result = simulate_episode(plan, 3, lambda context: Drl.of(context, policy))
    first = 3 * plan.workload.slots * plan.topology.size
    expected = {d.task_id: d.destination for d in result.decisions if d.task_id is not None}
    found = dict(zip((first + decisions.task).tolist(), decisions.chosen.tolist(), strict=True))
    assert found == expected
    assert len(set(found.values())) == 6
    rates = evaluate(plan, ["p"], [3], {"p": policy})
    assert rates["p"].tolist() == [result.success_rate]
    delayed = replace(plan, rules=replace(plan.rules, control_delay=1000))
    assert 0.5 < evaluate(delayed, ["p"], [3], {"p": policy})["p"][0] <= 1.0


def test_an_actor_without_its_weights_runs_on_nodes_only(tmp_path: Path) -> None:
    model = onnx.load_from_string(actor_onnx(some_weights()))
    del model.metadata_props[:]
    bare = model.SerializeToString()
    card = policies.PolicyCard.describe(
        "bare", bare, kind="per-destination", encoder=NAME, nodes=None
    )
    with pytest.raises(UsageError, match="no metadata"):
        weights_of(policies.Policy(card, bare, "here"))
    with pytest.raises(UsageError, match="not the weights"):
        decode_weights("[1, 2]")


def test_weights_that_do_not_fit_are_refused_with_every_reason() -> None:
    arrays = some_weights()._asdict()
    arrays["w1"] = arrays["w1"][:-1]
    arrays["b2"] = np.full_like(arrays["b2"], np.nan)
    del arrays["wc"]
    with pytest.raises(UsageError) as error:
        ScoringWeights.from_arrays(arrays)
    assert sorted(problem.path for problem in error.value.problems) == ["b2", "w1", "wc"]
    with pytest.raises(UsageError):
        ScoringWeights.from_arrays({})


def test_a_policy_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="too large"):
        actor_onnx(some_weights(hidden=200))


@pytest.mark.parametrize("scenario", ["paper-simulation", "quickstart"])
def test_the_shipped_policy_beats_the_best_heuristic_with_its_information(scenario: str) -> None:
    gains = []
    for topology in (200, 201, 203):
        plan = without_control_delay(resolve(load(scenario, [f"seeds.topology={topology}"])))
        rates = evaluate(plan, ["local-or-reliable", PER_DESTINATION], 10)
        gains.append(float((rates[PER_DESTINATION] - rates["local-or-reliable"]).mean()))
    assert np.mean(gains) > 0.005


def test_its_card_tells_how_it_was_trained_and_how_good_it_is() -> None:
    card = policies.shipped().card
    assert set(card.evaluation["topologies"]) == set(FINAL_TOPOLOGIES)
    assert not set(FINAL_TOPOLOGIES) & set(CHOICE_TOPOLOGIES)
    assert set(card.evaluation["networks"]) == set(NETWORKS)
    assert card.training["episodes"] > 1000


def test_the_table_is_paired_by_network_and_names_the_best_of_the_equals() -> None:
    weights = weights_of(policies.shipped())
    table = compare(weights, [200, 201, 203], 4, ["quickstart"])["quickstart"]
    rates, against = table["success_rate"], table["against"]
    best = table["best_equal"]
    assert rates[best] == max(rates[name] for name in EQUALS)
    assert set(against) == set(REFERENCES)
    gaps = []
    for seed in (200, 201, 203):
        found = evaluate(network("quickstart", seed), [PER_DESTINATION, best], 4)
        gaps.append(float((found[PER_DESTINATION] - found[best]).mean()))
    expected = mean_interval(gaps)
    assert against[best]["difference"] == pytest.approx(expected.mean, abs=1e-4)
    assert against[best]["low"] == pytest.approx(expected.low, abs=1e-4)
    assert table["price"]["per-destination"] == {"messages": 8.0, "bytes": 4 * (12 + 8)}
    alone = 2 * min(chance_of(expected))
    assert min(1.0, alone) - 1e-6 <= against[best]["p_value"] <= len(REFERENCES) * alone + 1e-6


def test_one_network_says_nothing_of_others() -> None:
    against = compare(weights_of(policies.shipped()), [200], 2, ["quickstart"])["quickstart"]
    assert {each["low"] for each in against["against"].values()} == {None}
    assert {each["p_value"] for each in against["against"].values()} == {None}


def test_networks_of_the_table_share_no_seed() -> None:
    seeds = network("quickstart", 200).seeds
    assert {seeds.topology, seeds.workload, seeds.faults, seeds.schedulers} == {200}


def test_prices_are_messages_and_bytes_for_a_task() -> None:
    assert price_of_policy("bits", 5) == (8.0, 4 * (12 + 8))
    assert price_of_policy("state", 5) == (8.0, 4 * (10 + 29))
    # As many messages as for bits, of which two are larger; with two peers that is all of them.
    assert price_of_policy({"probe": 2}, 5) == (8.0, 2 * (12 + 8) + 2 * (10 + 29))
    assert price_of_policy({"probe": 2}, 3) == price_of_policy("state", 3)
    plan = network("quickstart", 200)
    # 5 nodes tell 4 others in each slot, whether a task arrives there or not.
    gossip = price_of_policy({"gossip": "1 slot"}, 5, plan)
    assert gossip.messages == pytest.approx(20 / sum(plan.topology.arrival_probability))
    assert gossip.bytes == pytest.approx(25 * gossip.messages)
    half = price_of_policy({"gossip": "2 slots"}, 5, plan)
    assert half.messages == pytest.approx(gossip.messages / 2)
    assert price_of_scheduler(plan, "local") == (0.0, 0.0)
    assert price_of_scheduler(plan, "least-completion") == price_of_policy("state", 5)
    # It asks four peers and waits for two of them, where it asks.
    asked = price_of_scheduler(plan, "rda")
    assert 0.0 < asked.messages < 6.0
    assert asked.bytes == pytest.approx(asked.messages * (4 * 10 + 2 * 29) / 6)
