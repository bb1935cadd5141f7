"""The whole experiment in the simulator, small: it learns, continues where it stopped, is fair."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from testbed.errors import UsageError
from testbed.experiment.o2o import document, table, write_report
from testbed.files import LOCK, working_in
from testbed.model import encoders
from testbed.policies import list_policies, load, load_folder
from testbed.policies.inference import open_actor
from testbed.scenario.load import load as load_scenario
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.play import evaluate
from trainer.learning.cql import CqlConfig
from trainer.learning.offline import settings_of
from trainer.learning.shared_target import SharedTargetConfig
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import RECIPES, recipe, sized
from trainer.o2o.recipe import document as recipe_document
from trainer.o2o.result import O2OResult, keep_policies
from trainer.o2o.settings import O2OConfig
from trainer.o2o.simulated import (
    FIRST_LOG_EPISODE,
    FIRST_ONLINE_EPISODE,
    FIRST_VALIDATION_EPISODE,
    SimulatedVenue,
    online_numbers,
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(load_scenario("quickstart"))


def _config(name: str = "default", online_episodes: int = 40) -> O2OConfig:
    small = sized(
        recipe(name),
        offline_steps=400,
        online_episodes=online_episodes,
        episodes_per_update=20,
        evaluation_episodes=20,
        evaluate_every=1,
    )
    return O2OConfig(recipe=small, log_episodes=60, evaluation_episodes=20)


@pytest.fixture(scope="module")
def told(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[O2OResult, Path]:
    out = tmp_path_factory.mktemp("experiment") / "out"
    return run(SimulatedVenue(plan, threads=1), _config(), out), out


def test_the_experiment_learns(told: tuple[O2OResult, Path]) -> None:
    result, _ = told
    means = {name: float(np.mean(rates)) for name, rates in result.rates.items()}
    assert means["offline"] > means["untrained"] + 0.03
    assert means["o2o"] > means["rda-masked"]
    assert set(means) >= {"random", "local", "ratc", "rda", "central", "oracle", "o2o"}
    assert result.bound is not None
    assert all((rates <= result.bound + 1e-9).all() for rates in result.rates.values())
    assert result.gate is not None
    # The offline policy is what is handed over, so the first evaluation is its own.
    assert result.gate.difference == 0.0
    assert result.curve[0].evaluation == pytest.approx(result.validation["offline"])
    assert "control messages" in result.notes[0]


def test_methods_meet_the_same_episodes_as_anywhere_else(
    plan: Plan, told: tuple[O2OResult, Path]
) -> None:
    result, _ = told
    own = evaluate(result.plan, ["ratc"], 20)["ratc"]
    np.testing.assert_array_equal(result.rates["ratc"], own)


def test_what_is_learned_from_is_never_evaluated_on() -> None:
    ends = [20, FIRST_VALIDATION_EPISODE + 1000, FIRST_LOG_EPISODE + 50 * 1_000_000]
    assert ends == sorted(ends)
    assert ends[-1] < FIRST_ONLINE_EPISODE
    for seed in (0, 1, 2**32 - 1):
        numbers = online_numbers(20, seed)
        assert numbers[0] >= FIRST_ONLINE_EPISODE
        assert numbers[-1] < 2**31


def test_an_interrupted_experiment_goes_on_and_ends_the_same(
    plan: Plan, told: tuple[O2OResult, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(SimulatedVenue(plan, threads=1), _config(), out, progress=_stop_at("online", 20))
    result = run(SimulatedVenue(plan, threads=1), _config(), out)
    for name in ("offline", "o2o"):
        np.testing.assert_array_equal(result.rates[name], told[0].rates[name])
    assert [p.evaluation for p in result.curve] == [p.evaluation for p in told[0].curve]
    more = run(SimulatedVenue(plan, threads=1), _config(online_episodes=60), out)
    assert more.curve[-1].episodes == 60


def test_a_folder_of_another_experiment_is_refused(
    plan: Plan, told: tuple[O2OResult, Path], tmp_path: Path
) -> None:
    _, out = told
    with pytest.raises(UsageError, match="source"):
        run(SimulatedVenue(plan, threads=1), replace(_config(), source="rda"), out)
    (tmp_path / "mine.txt").write_text("not an experiment")
    with pytest.raises(UsageError, match="holds something else"):
        run(SimulatedVenue(plan, threads=1), _config(), tmp_path)


def test_two_experiments_do_not_work_in_one_folder(plan: Plan, tmp_path: Path) -> None:
    config = _config(online_episodes=10)
    config = replace(config, online=False, methods=("ratc",), log_episodes=4, with_bound=False)
    out = tmp_path / "out"
    with (
        working_in(out, "experiment"),
        pytest.raises(UsageError, match=rf"working in {out}.*\n.*process {os.getpid()} on "),
    ):
        run(SimulatedVenue(plan, threads=1), config, out)
    # What a killed process leaves of its lock keeps nobody out.
    assert (out / LOCK).exists()
    assert run(SimulatedVenue(plan, threads=1), config, out).rates.keys() == {"ratc", "offline"}


def test_a_further_offline_training_is_fine_tuned_anew(plan: Plan, tmp_path: Path) -> None:
    def config(offline_steps: int) -> O2OConfig:
        small = sized(
            recipe("default"),
            offline_steps=offline_steps,
            online_episodes=10,
            episodes_per_update=10,
            evaluation_episodes=4,
        )
        return O2OConfig(small, log_episodes=4, evaluation_episodes=2, methods=(), with_bound=False)

    run(SimulatedVenue(plan, threads=1), config(20), tmp_path / "out")
    more = run(SimulatedVenue(plan, threads=1), config(40), tmp_path / "out")
    whole = run(SimulatedVenue(plan, threads=1), config(40), tmp_path / "whole")
    assert [point.evaluation for point in more.curve] == [p.evaluation for p in whole.curve]
    with pytest.raises(UsageError, match="at least 40"):
        run(SimulatedVenue(plan, threads=1), config(20), tmp_path / "out")


def test_an_unknown_source_is_refused_before_anything_is_written(
    plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="'rtac'; did you mean 'ratc'"):
        run(SimulatedVenue(plan, threads=1), replace(_config(), source="rtac"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_report_and_the_policies_say_the_same(
    told: tuple[O2OResult, Path], tmp_path: Path
) -> None:
    result, _ = told
    store = str(tmp_path / "store")
    experiment = replace(result, policies=keep_policies(result, tmp_path, store, {}))
    again = replace(result, policies=keep_policies(result, tmp_path, store, {}))
    assert experiment.policies == again.policies
    page = write_report(experiment, tmp_path / "report")
    stored = json.loads((page.parent / "o2o.json").read_text())
    assert stored["success_rate"]["o2o"]["mean"] == pytest.approx(
        float(np.mean(result.rates["o2o"])), abs=1e-6
    )
    low, high = (stored["success_rate"]["ratc"][end] for end in ("low", "high"))
    assert low < stored["success_rate"]["ratc"]["mean"] < high
    assert stored["differences"]["o2o - ratc"]["mean"] == pytest.approx(
        float(np.mean(result.rates["o2o"] - result.rates["ratc"])), abs=1e-6
    )
    assert (page.parent / "learning-curve.png").stat().st_size > 5_000
    assert table(experiment)["method"].iloc[0] == "oracle"
    assert document(experiment)["versions"]["torch"]

    cards = {name: load_folder(tmp_path / "policies" / name).card for name in experiment.policies}
    assert cards["o2o"].parents == (cards["offline"].id,)
    assert cards["o2o"].nodes == 5
    assert cards["o2o"].dataset_hash == result.data_hash
    assert len(list_policies(store)) == 2
    policy = load(store, f"policies/{cards['o2o'].id}")
    # The artifact decides as the actor it was made from, on the nodes' own path.
    by_artifact = evaluate(result.plan, ["artifact"], 3, {"artifact": policy})["artifact"]
    np.testing.assert_allclose(by_artifact, result.rates["o2o"][:3])


def test_recipes_are_what_they_say() -> None:
    paper = RECIPES["paper"]
    assert paper.offline_reward == paper.online_reward == "team"
    cql, ppo = paper.offline.learner, paper.online.ppo
    assert isinstance(cql, CqlConfig)
    assert (cql.learning_rate, cql.gamma, cql.tau, cql.batch_size) == (3e-4, 0.99, 5e-4, 128)
    assert (cql.alpha, cql.cql_weight, cql.actor_q) == (0.05, 0.1, "target")
    assert (ppo.gae_lambda, ppo.clip, ppo.epochs, ppo.entropy_weight) == (0.95, 0.2, 4, 0.0)
    assert ppo.kl_stop is None
    assert sized(paper, kl_stop=0.02).online.ppo.kl_stop == 0.02
    with pytest.raises(UsageError, match="default, paper, released"):
        recipe("best")
    with pytest.raises(UsageError, match="single decisions"):
        replace(paper, offline_reward="own")


def test_the_released_recipe_is_the_papers_but_for_three_things() -> None:
    paper, released = RECIPES["paper"], RECIPES["released"]
    ours = replace(
        released, name=paper.name, description=paper.description, unseen=(), offline=paper.offline
    )
    assert ours == paper
    assert replace(released.offline, learner=paper.offline.learner) == paper.offline
    learner = released.offline.learner
    assert isinstance(learner, SharedTargetConfig)
    regularised = replace(learner, cql_weight=0.1)
    assert settings_of(regularised) == settings_of(paper.offline.learner)
    assert sized(released).offline.learner == learner
    # What earlier releases could not have is not named, so that what they stored is found.
    assert "unseen" not in recipe_document(paper)
    assert "queue_length" in recipe_document(released)["unseen"]


@pytest.mark.parametrize("encoder", ["paper-v1", "extended-v1"])
def test_a_policy_of_the_released_recipe_sees_no_queue(
    plan: Plan, tmp_path: Path, encoder: str
) -> None:
    small = sized(
        recipe("released"),
        offline_steps=20,
        online_episodes=10,
        episodes_per_update=10,
        evaluation_episodes=4,
    )
    config = O2OConfig(
        recipe=small,
        encoder=encoder,
        log_episodes=4,
        evaluation_episodes=2,
        methods=(),
        online_only=True,
        with_bound=False,
    )
    result = run(SimulatedVenue(plan, threads=1), config, tmp_path / "out")
    nodes, names = plan.topology.size, encoders.encoder(encoder).columns(plan.topology.size)
    rows = np.random.default_rng(0).random((1, len(names)), dtype=np.float32)
    mask = np.ones((1, nodes + 1), dtype=np.bool_)
    shipped = open_actor(load_folder(tmp_path / "out" / "policies" / "o2o"))

    def on_nodes(features: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        found = shipped.probabilities(features[0].tolist(), mask[0].tolist())
        return np.array([found], np.float32)

    assert set(result.actors) == {"offline", "o2o", "online-only"}
    policies: list[Callable[..., NDArray[np.float32]]] = [on_nodes]
    policies += [actor.probabilities for actor in result.actors.values()]
    for decides in policies:
        usual = decides(rows, mask)
        for column, name in enumerate(names):
            other = rows.copy()
            other[0, column] += 1.0
            unseen = np.array_equal(decides(other, mask), usual)
            assert unseen == name.startswith(("queue", "receiving", "send", "known")), name


@pytest.mark.long
def test_the_papers_recipe_tells_the_experiment_too(plan: Plan, tmp_path: Path) -> None:
    result = run(SimulatedVenue(plan, threads=1), _config("paper"), tmp_path / "out")
    assert float(np.mean(result.rates["o2o"])) > float(np.mean(result.rates["random"]))


class _stop_at:
    def __init__(self, stage: str, done: int) -> None:
        self._stage, self._done = stage, done

    def __call__(self, progress: object) -> None:
        if (progress.stage, progress.done) == (self._stage, self._done):  # type: ignore[attr-defined]
            raise KeyboardInterrupt
