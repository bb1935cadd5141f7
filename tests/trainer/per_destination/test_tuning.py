"""Fine-tuning by logs: it learns what there is to learn, and never keeps what is worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.policies import Policy, check_fits, save, shipped
from testbed.scenario.load import load
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.engine.policies import weights_of
from testbed.sim.engine.scoring import ScoringWeights
from testbed.sim.play import evaluate
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log
from tests.sim.plans import random_plan
from trainer.per_destination.export import actor_onnx, write_policy
from trainer.per_destination.from_logs import LoggedDecisions, read_decisions
from trainer.per_destination.improving import Judged
from trainer.per_destination.tuning import TuneConfig, artifact_of, fine_tune

PLAN = random_plan(41, size=5, slots=40)
QUICK = TuneConfig(minibatch=512, check_episodes=40, threads=1)


def perturbed(seed: int = 1, by: float = 0.15) -> ScoringWeights:
    """The shipped weights with noise, relative to how far each layer's spread."""
    rng = np.random.default_rng(seed)
    return ScoringWeights(
        *(
            (array + by * array.std() * rng.standard_normal(array.shape)).astype(np.float32)
            for array in weights_of(shipped())
        )
    )


def run(
    log: TaskLog, store: Path, card: Policy, first: int, episodes: int, plan: Plan = PLAN
) -> LoggedDecisions:
    """Simulate under this policy, and read what it did back from the log."""
    save(str(store), card.card, card.actor)
    run_id = record_run(
        replace(plan, artifacts_url=str(store)),
        log,
        scheduler=SchedulerSpec("drl", {"policy": card.card.id}),
        episodes=episodes,
        first_episode=first,
    )
    return read_decisions(log, [run_id], card)


def policy_of(weights: ScoringWeights, folder: Path, name: str) -> Policy:
    card = write_policy(weights, folder / name, name)
    return Policy(card, (folder / name / "actor.onnx").read_bytes(), name)


@pytest.fixture
def logged(tmp_path: Path) -> LoggedDecisions:
    policy = policy_of(perturbed(), tmp_path, "noisy")
    with open_task_log(str(tmp_path / "tasks.db")) as log:
        return run(log, tmp_path / "store", policy, 0, 12)


def test_rounds_of_running_and_tuning_improve_a_policy(tmp_path: Path) -> None:
    # Overloaded, and the bits say little: the shipped policy is not at its best here.
    plan = plan_of(load("paper-testbed", ["seeds.topology=202", "slots.count=30"]))
    weights = start = perturbed()
    policy = policy_of(weights, tmp_path, "start")
    checks = []
    with open_task_log(str(tmp_path / "tasks.db")) as log:
        for number in range(2):
            found = run(log, tmp_path / "store", policy, 10 * number, 10, plan)
            result = fine_tune(weights, found, QUICK)
            assert result.check is not None
            checks.append(result.check)
            if result.kept:
                weights = result.weights
                card, actor = artifact_of("tuned", result, found, policy.card)
                policy = Policy(card, actor, card.id)
    found_rates = evaluate(
        without_control_delay(plan),
        ["start", "end"],
        range(5000, 5060),
        {"start": start, "end": weights},
    )
    gap = found_rates["end"] - found_rates["start"]
    assert gap.mean() > 0.01
    assert gap.mean() > 3.0 * gap.std() / np.sqrt(len(gap))
    assert all(check.difference > -0.005 for check in checks)
    parents = policy.card.parents
    assert len(parents) == 1
    assert parents[0].startswith(("start-", "tuned-"))


def test_what_got_worse_is_not_kept(logged: LoggedDecisions) -> None:
    # The same decisions with the opposite of their credit teach the opposite of what is right.
    batches = tuple(batch._replace(credit=-batch.credit) for batch in logged.batches)
    config = replace(QUICK, learning_rate=3e-3, epochs=8, clip=5.0, kl_limit=100.0)
    start = perturbed()
    result = fine_tune(start, replace(logged, batches=batches), config)
    assert result.check is not None
    assert result.check.difference < 0.0
    assert not result.kept
    assert result.weights is start
    unseen = fine_tune(start, replace(logged, batches=batches), replace(config, check_episodes=0))
    assert unseen.kept
    assert (unseen.weights.w3 != start.w3).any()


def test_steps_end_where_the_policy_moved_too_far(logged: LoggedDecisions) -> None:
    config = replace(QUICK, check_episodes=0, epochs=10)
    free = fine_tune(perturbed(), logged, replace(config, kl_limit=10.0)).measures
    bounded = fine_tune(perturbed(), logged, replace(config, kl_limit=0.0005)).measures
    assert free.epochs == 10
    assert bounded.epochs < 10
    assert bounded.divergence > 0.0005


def test_the_same_logs_give_the_same_weights(logged: LoggedDecisions) -> None:
    config = replace(QUICK, check_episodes=0)
    one, two = (fine_tune(perturbed(), logged, config).weights for _ in range(2))
    other = fine_tune(perturbed(), logged, replace(config, seed=1)).weights
    for left, right, different in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(left, right)
        assert (left != different).any()


def test_plain_returns_are_learned_from_as_well(logged: LoggedDecisions) -> None:
    [batch] = logged.batches
    half = torch.arange(len(batch.chosen)) % 2 == 0
    first, second = (Judged(*(values[part] for values in batch)) for part in (half, ~half))
    plain = second._replace(credit=(second.credit > 0.5).float())
    result = fine_tune(perturbed(), replace(logged, batches=(first, plain)), QUICK)
    assert result.check is not None
    assert result.check.difference > -0.01


def test_the_new_policy_names_its_parent_and_what_it_was_made_from(
    logged: LoggedDecisions, tmp_path: Path
) -> None:
    result = fine_tune(perturbed(), logged, replace(QUICK, check_episodes=10))
    parent = shipped().card
    card, actor = artifact_of("mine", result, logged, parent)
    assert actor == actor_onnx(result.weights)
    assert card.id.startswith("mine-")
    assert card.parents == (parent.id,)
    assert card.scenario == PLAN.name
    assert card.evaluation["check"]["episodes"] == 10
    assert card.training["logs"]["decisions"] == logged.counts.decisions
    assert check_fits(card, 50) == ()


def test_too_few_episodes_and_settings_without_sense_are_refused(
    logged: LoggedDecisions,
) -> None:
    few = dict(list(logged.success_rate.items())[:9])
    with pytest.raises(UsageError, match="9 with a decision"):
        fine_tune(perturbed(), replace(logged, success_rate=few), QUICK)
    refused: list[Callable[[], TuneConfig]] = [
        lambda: TuneConfig(epochs=0),
        lambda: TuneConfig(learning_rate=0.0),
        lambda: TuneConfig(check_episodes=1),
    ]
    for make in refused:
        with pytest.raises(UsageError, match="invalid tuning settings"):
            make()


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (
            replace(PLAN, rules=replace(PLAN.rules, execution_queue_limit=3)),
            "the plan limits execution queues",
        ),
        (
            replace(PLAN, workload=replace(PLAN.workload, size_bytes=Constant(1.0))),
            "does not cover workload.size_bytes",
        ),
    ],
    ids=["queue limit", "no time to send"],
)
def test_a_network_whose_queues_cannot_be_served_again_is_tuned_on_plain_returns(
    tmp_path: Path, plan: Plan, reason: str
) -> None:
    policy = policy_of(perturbed(), tmp_path, "noisy")
    with open_task_log(str(tmp_path / "tasks.db")) as log:
        found = run(log, tmp_path / "store", policy, 0, 10, plan)
    assert len(found.counts.plain) == 10
    assert reason in next(iter(found.counts.plain.values()))
    result = fine_tune(perturbed(), found, replace(QUICK, check_episodes=2))
    assert result.check is not None
    assert result.check.before > 0.5
