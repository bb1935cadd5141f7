"""The experiment on real nodes: what they log is learned from, what is learned decides there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from testbed.errors import TemporaryError, UsageError
from testbed.experiment.o2o import write_report
from testbed.files import working_in
from testbed.policies.artifact import load_folder
from testbed.rpc.operator import NodeDeployment, OperatorClient, PolicyDeployment
from testbed.rpc.repeated import mark_of
from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.play import evaluate
from testbed.sim.record import record_run
from testbed.storage.artifacts import open_artifact_store
from testbed.storage.tasklog import TaskLog, open_task_log
from trainer.o2o.folder import NETWORK, ExperimentLedger
from trainer.o2o.network import NetworkVenue, check_experiment, episode_rates, untrained
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import recipe, sized
from trainer.o2o.settings import O2OConfig
from trainer.o2o.venue import Setup, spec_of


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    overrides = ["nodes.count=3", "slots.count=10"]
    return plan_of(
        load("quickstart", overrides),
        storage_url=str(tmp_path / "log.sqlite"),
        artifacts_url=str(tmp_path / "artifacts"),
    )


@pytest.fixture
def testbed(plan: Plan, tmp_path: Path) -> Iterator[Testbed]:
    place = LocalRuntime(tmp_path / "home")
    yield place.up(plan, "experiment")
    place.down("experiment")


def _config(online_episodes: int) -> O2OConfig:
    small = sized(
        recipe("default"),
        offline_steps=50,
        online_episodes=online_episodes,
        episodes_per_update=10,
        evaluation_episodes=2,
        evaluate_every=1,
    )
    return O2OConfig(
        recipe=small,
        log_episodes=3,
        evaluation_episodes=2,
        methods=("ratc", "untrained", "per-destination"),
        include_invalid=True,
    )


def _begun(
    client: OperatorClient, log: TaskLog, plan: Plan, out: Path, told: list[str]
) -> NetworkVenue:
    """A venue whose experiment in ``out`` has begun; ``told`` gets its messages."""
    venue, config = NetworkVenue(client, log, plan.artifacts_url or "", plan), _config(10)
    ledger = ExperimentLedger.claim(out, "network", venue.identity(config))
    venue.begin(Setup(config, ledger, lambda progress: told.append(progress.message)))
    return venue


@pytest.mark.long
def test_the_experiment_on_nodes_goes_on_where_it_stopped(
    plan: Plan, testbed: Testbed, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with (
        OperatorClient(testbed.address, testbed.token, timeout=30.0) as client,
        open_task_log(testbed.store, create=False) as log,
    ):
        venue = NetworkVenue(client, log, client.status().artifacts, plan)
        first = run(venue, _config(10), out)
        runs = json.loads((out / NETWORK).read_text())["runs"]
        assert set(first.rates) == {"ratc", "untrained", "per-destination", "offline", "o2o"}
        assert all(len(rates) == 2 and np.isfinite(rates).all() for rates in first.rates.values())
        assert first.bound is not None
        assert client.status().policy == f"policies/{first.policies['o2o']}"
        deciders = {
            row.scheduler
            for key, done in runs.items()
            if key.startswith("online")
            for row in log.tasks(done)
        }
        # The first episodes are those of the offline policy, by its name.
        assert deciders == {f"drl:{first.policies['offline']}"}
        for name, policy in first.policies.items():
            (done,) = (runs[key] for key in runs if key.startswith(f"evaluation {name} "))
            assert {row.scheduler for row in log.tasks(done)} == {f"drl:{policy}"}
            assert load_folder(out / "policies" / name).card.id == policy
        # One for each actor that has decided: the offline one, after the update, the untrained one.
        stored = open_artifact_store(client.status().artifacts).list("policies")
        assert len(stored) == 3
        assert [point.episodes for point in first.curves["o2o"]] == [0, 10]

        second = run(venue, _config(20), out)
        again = json.loads((out / NETWORK).read_text())["runs"]
        # Nothing that was done is done again.
        assert runs.items() <= again.items()
        assert len([key for key in again if key.startswith("online")]) == 2
        assert [point.episodes for point in second.curves["o2o"]] == [0, 10, 20]
        with pytest.raises(UsageError, match="different experiment"):
            run(venue, replace(_config(20), source="rda"), out)
    assert write_report(second, out / "report").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_holds_something_else_is_left_alone(
    plan: Plan, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds something else"):
        check_experiment(plan, _config(10), tmp_path, resume=resume)
    assert (tmp_path / "data" / "thesis.tex").exists()


def test_a_source_that_nodes_cannot_run_is_refused_before_anything_is_run(
    plan: Plan, tmp_path: Path
) -> None:
    for wrong, said in (("rtac", "did you mean 'ratc'"), ("central", "in the simulator only")):
        with pytest.raises(UsageError, match=said):
            check_experiment(plan, replace(_config(10), source=wrong), tmp_path / "out")


def test_an_episode_without_a_task_keeps_its_place(tmp_path: Path) -> None:
    quiet = plan_of(load("quickstart", ["nodes.arrivalProbability=0.05", "slots.count=3"]))
    with open_task_log(tmp_path / "log.sqlite") as log:
        done = record_run(quiet, log, scheduler="ratc", episodes=20, first_episode=7)
        rates = episode_rates(log, done)
    np.testing.assert_array_equal(rates, evaluate(quiet, ["ratc"], range(7, 27))["ratc"])
    assert np.isnan(rates).any()


def test_a_folder_that_is_worked_in_is_refused_before_anything_is_run(
    plan: Plan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with (
        working_in(out, "experiment"),
        pytest.raises(UsageError, match=f"process {os.getpid()} on "),
    ):
        check_experiment(plan, _config(10), out)
    check_experiment(plan, _config(10), out)


def test_episodes_with_incomplete_logs_are_counted(plan: Plan, tmp_path: Path) -> None:
    other = replace(plan, seeds=replace(plan.seeds, workload=plan.seeds.workload + 1))
    out = tmp_path / "out"
    with (
        OperatorClient("localhost:1", "unused", plaintext=True) as client,
        open_task_log(tmp_path / "log.sqlite") as log,
    ):
        good = record_run(plan, log, scheduler="ratc", episodes=2)
        first = _begun(client, log, plan, out, [])
        first.logged([good], "data")
        assert not first.notes

        foreign = record_run(other, log, scheduler="ratc", episodes=3)
        first.logged([good, foreign], "data")
        said = "3 of 5 episodes have incomplete logs; their decisions are scored by task outcome"
        assert said in "".join(first.notes)
        # What was counted before an interruption still counts.
        assert _begun(client, log, plan, out, []).notes == first.notes


def test_what_a_killed_trainer_left_is_stopped_and_a_dead_node_is_worth_another_try(
    plan: Plan, testbed: Testbed, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", list[str]()
    with (
        OperatorClient(testbed.address, testbed.token, timeout=30.0) as client,
        open_task_log(testbed.store, create=False) as log,
    ):
        venue = _begun(client, log, plan, out, told)
        other = f"o2o logs [{mark_of(tmp_path / 'other')}]"
        foreign = client.start_run(scheduler="ratc", episodes=500, label=other)
        with pytest.raises(UsageError, match=f"run {foreign} is under way"):
            venue.run("ratc", 1, 7, "logs")
        client.stop_run(foreign)
        mine = f"o2o logs [{mark_of(out)}]"
        left = client.start_run(scheduler="ratc", episodes=500, label=mine)

        done = venue.run("ratc", 1, 7, "logs")

        assert told[0] == f"logs: run {left} was left under way, so it is stopped"
        assert (log.run(left).state, log.run(done).info.label) == ("stopped", mine)
        LocalRuntime(tmp_path / "home").kill("experiment", 1)
        with pytest.raises(TemporaryError, match="node 1"):
            venue.run("ratc", 1, 8, "logs")


class WithANodeThatRefuses(OperatorClient):
    """The controller answers that one node has refused every policy."""

    def deploy_policy(self, policy: str, *, nodes: Sequence[int] = ()) -> PolicyDeployment:
        refused = NodeDeployment(1, "refused", reason="does not answer")
        return PolicyDeployment(policy, policy, False, (NodeDeployment(0, "unchanged"), refused))


def test_a_policy_that_does_not_reach_all_nodes_is_worth_another_try(
    plan: Plan, tmp_path: Path
) -> None:
    with (
        WithANodeThatRefuses("localhost:1", "unused", plaintext=True) as client,
        open_task_log(tmp_path / "log.sqlite") as log,
    ):
        venue = _begun(client, log, plan, tmp_path / "out", [])
        actor = untrained(spec_of(plan, _config(10)))
        said = "did not reach all nodes: node 1: does not answer"
        with pytest.raises(TemporaryError, match=said):
            venue.deploy(actor)
        with pytest.raises(TemporaryError, match=said):
            venue.finish({"o2o": "o2o-0123456789ab"}, {"o2o": actor})
