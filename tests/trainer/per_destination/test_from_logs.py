"""Decisions read back from logs: the credit of the engine, and nothing that is not on-policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import TaskRow
from testbed.model.task import Outcome
from testbed.model.units import MILLISECOND, SECOND
from testbed.policies import Policy, shipped
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.sim.engine.arrays import pack
from testbed.sim.engine.policies import weights_of
from testbed.sim.engine.scoring import record_scoring
from testbed.sim.engine.threads import Threads
from testbed.sim.record import record_run
from testbed.storage.tasklog import RunInfo, RunState, TaskLog, open_task_log
from tests.sim.plans import random_plan
from trainer.credit.queues import credit_of
from trainer.credit.rebuilding import LoggedEpisode, disagreement, rebuild, why_not
from trainer.credit.weight import later_weight
from trainer.per_destination.export import actor_onnx
from trainer.per_destination.from_logs import read_decisions, who_decided

EPISODES = 3
PLAN = replace(
    random_plan(5, size=4, slots=25, failures=2.0),
    workload=replace(random_plan(5, size=4, slots=25).workload, deadline=Constant(2 * SECOND)),
)
"""Overloaded enough that every kind of end is in it."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path_factory.mktemp("log") / "tasks.db")) as opened:
        record_run(PLAN, opened, scheduler="drl", episodes=EPISODES, run_id="drl")
        record_run(PLAN, opened, scheduler="ratc", episodes=1, run_id="ratc")
        record_run(
            PLAN,
            opened,
            scheduler=SchedulerSpec("drl", {"deterministic": True}),
            run_id="mode",
        )
        yield opened


def logged(log: TaskLog, run: str, episode: int) -> LoggedEpisode:
    return LoggedEpisode(
        episode, list(log.tasks(run, episode=episode)), list(log.records(run, episode=episode))
    )


def copied(
    log: TaskLog,
    to: Path,
    *,
    records: Callable[[Record], Record | None] = lambda record: record,
    decisions: Callable[[DecisionRecord], DecisionRecord] = lambda decision: decision,
    tasks: Callable[[TaskRow], TaskRow] = lambda row: row,
    state: RunState = RunState.COMPLETED,
) -> TaskLog:
    """The run ``drl`` in a log of its own, with changes."""
    other = open_task_log(str(to / "copy.db"))
    run = log.run("drl")
    other.begin_run(run.info)
    kept = [each for each in map(records, log.records("drl")) if each is not None]
    other.append("drl", kept, [decisions(each) for each in log.decisions("drl")])
    other.write_tasks("drl", [tasks(row) for row in log.tasks("drl")])
    other.end_run("drl", state)
    return other


def test_rebuilt_credits_are_those_of_the_engine(log: TaskLog) -> None:
    numbers = range(EPISODES)
    episodes = [logged(log, "drl", number) for number in numbers]
    assert [why_not(PLAN, episode) for episode in episodes] == [None] * EPISODES
    rebuilt = rebuild(PLAN, episodes)

    batch, rows = pack([PLAN] * EPISODES), Threads(EPISODES, 1)
    record_scoring(batch, rows, weights_of(shipped()), list(numbers))
    credit = credit_of(batch, rows)
    np.testing.assert_array_equal(rebuilt.batch.tasks["outcome"], batch.tasks["outcome"])
    assert {1, 2, 3, 4} <= set(np.unique(batch.tasks["outcome"]))
    for mine, theirs in zip(rebuilt.credit, credit, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)
    assert (credit.same < 0).any()
    assert (credit.later < 0).any()
    assert [disagreement(rebuilt, row) for row in range(EPISODES)] == [0.0] * EPISODES


def test_decisions_are_read_as_the_engine_made_them(log: TaskLog) -> None:
    found = read_decisions(log, ["drl"], shipped())
    [batch] = found.batches
    engine, rows = pack([PLAN] * EPISODES), Threads(EPISODES, 1)
    made = record_scoring(engine, rows, weights_of(shipped()), list(range(EPISODES)))
    credit = credit_of(engine, rows)
    gain = credit.own + credit.same + later_weight(PLAN) * credit.later
    gains = gain[made.episode, made.task]
    size = PLAN.topology.size
    order = np.lexsort((made.task // size, made.task % size, made.episode))
    order = order[np.isfinite(gains[order])]
    np.testing.assert_array_equal(batch.chosen.numpy(), made.chosen[order])
    np.testing.assert_array_equal(batch.mask.numpy(), made.mask[order])
    np.testing.assert_allclose(batch.rows.numpy(), made.rows[order], atol=1e-5)
    np.testing.assert_allclose(
        batch.log_probability.numpy(), made.log_probability[order], atol=1e-4
    )
    np.testing.assert_allclose(batch.credit.numpy(), gains[order], atol=1e-6)
    counts = found.counts
    assert (counts.episodes, counts.plain, counts.by_others) == (EPISODES, {}, 0)
    assert counts.decisions + counts.not_told == len(made.task)
    assert counts.not_told == int(np.isnan(gains).sum()) > 0
    assert sorted(found.success_rate) == [("drl", number) for number in range(EPISODES)]


@pytest.mark.parametrize("of_links", [False, True])
def test_control_messages_that_take_time_change_nothing_about_queues(
    tmp_path: Path, of_links: bool
) -> None:
    size = PLAN.topology.size
    delays = tuple(tuple(MILLISECOND * (i + 2 * j) // 4 for j in range(size)) for i in range(size))
    rules = replace(
        PLAN.rules, control_delay=3 * MILLISECOND, link_delays=delays if of_links else None
    )
    plan = replace(PLAN, rules=rules)
    with open_task_log(str(tmp_path / "tasks.db")) as log:
        record_run(plan, log, scheduler="drl", episodes=1, run_id="late")
        episode = logged(log, "late", 0)
        assert why_not(plan, episode) is None
        assert disagreement(rebuild(plan, [episode]), 0) == 0.0
        assert read_decisions(log, ["late"], shipped()).counts.not_by_weights == 0


def test_an_episode_that_lost_a_task_counts_by_plain_returns(log: TaskLog, tmp_path: Path) -> None:
    victim = next(row for row in log.tasks("drl", episode=1) if row.outcome is Outcome.SUCCEEDED)

    def lose(row: TaskRow) -> TaskRow:
        return row._replace(outcome=Outcome.LOST) if row.task_id == victim.task_id else row

    with copied(log, tmp_path, tasks=lose) as other:
        found = read_decisions(other, ["drl"], shipped())
    assert found.counts.plain == {"drl/1": "1 tasks were lost"}
    full, plain = found.batches
    assert set(np.unique(plain.credit.numpy())) == {0.0, 1.0}
    assert len(np.unique(full.credit.numpy().round(4))) > 10
    decided = sum(row.destination is not None for row in log.tasks("drl", episode=1))
    assert len(plain.chosen) == decided - 1


def test_a_queue_with_a_gap_is_not_served_again(log: TaskLog, tmp_path: Path) -> None:
    queued = next(
        record for record in log.records("drl", episode=0) if record.kind is RecordKind.ADMITTED
    )

    def without(record: Record) -> Record | None:
        return None if record == queued else record

    with copied(log, tmp_path, records=without) as other:
        reason = why_not(PLAN, logged(other, "drl", 0))
        assert reason == f"records of task {queued.task.id} are missing"
        assert list(read_decisions(other, ["drl"], shipped()).counts.plain) == ["drl/0"]


def test_queues_that_do_not_say_what_happened_are_not_believed(
    log: TaskLog, tmp_path: Path
) -> None:
    def swapped(row: TaskRow) -> TaskRow:
        late = row.outcome is Outcome.DROPPED and row.episode == 2
        return row._replace(outcome=Outcome.SUCCEEDED) if late else row

    with copied(log, tmp_path, tasks=swapped) as other:
        plain = read_decisions(other, ["drl"], shipped()).counts.plain
    assert list(plain) == ["drl/2"]
    assert "ended differently from their rebuilt queues" in plain["drl/2"]


def test_tasks_of_other_seeds_are_not_those_of_the_plan(log: TaskLog) -> None:
    other = replace(PLAN, seeds=replace(PLAN.seeds, workload=77))
    reason = why_not(other, logged(log, "drl", 0))
    assert reason is not None
    assert "missing" in reason or "not that of the plan" in reason


def test_only_decisions_of_the_policy_itself_count(log: TaskLog, tmp_path: Path) -> None:
    others = {0: "ratc", 1: "drl:another-policy-0123"}

    def change(decision: DecisionRecord) -> DecisionRecord:
        return decision._replace(scheduler=others.get(decision.node, decision.scheduler))

    whole = read_decisions(log, ["drl"], shipped())
    with copied(log, tmp_path, decisions=change) as other:
        found = read_decisions(other, ["drl"], shipped())
    own = whole.batches[0].rows[:, :, 0].argmax(dim=1)
    mine = own >= 2
    [batch] = found.batches
    assert len(batch.chosen) == int(mine.sum())
    np.testing.assert_array_equal(batch.credit.numpy(), whole.batches[0].credit[mine].numpy())
    assert found.counts.by_others > 0


def test_decisions_that_were_not_sampled_are_refused(log: TaskLog) -> None:
    assert who_decided(log, ["mode"]).keys() == {shipped().card.id}
    with pytest.raises(UsageError, match="most probable"):
        read_decisions(log, ["mode"], shipped())


def test_decisions_of_other_weights_are_refused(log: TaskLog) -> None:
    weights = weights_of(shipped())
    other = Policy(shipped().card, actor_onnx(weights._replace(w3=3 * weights.w3)), "other")
    with pytest.raises(UsageError, match="not what the policy gives"):
        read_decisions(log, ["drl"], other)


def test_runs_without_a_policy_and_of_another_scenario_are_refused(
    log: TaskLog, tmp_path: Path
) -> None:
    assert who_decided(log, ["ratc"]) == {}
    with pytest.raises(UsageError, match="sampled no decision"):
        read_decisions(log, ["ratc"], shipped())
    with open_task_log(str(tmp_path / "tasks.db")) as other:
        record_run(PLAN, other, scheduler="drl", episodes=1, run_id="one")
        another: Plan = random_plan(6, size=4, slots=25)
        record_run(another, other, scheduler="drl", episodes=1, run_id="two")
        with pytest.raises(UsageError, match="another topology and workload than run one"):
            read_decisions(other, ["one", "two"], shipped())


def test_runs_that_cannot_be_trusted_are_left_out_unless_asked_for(
    log: TaskLog, tmp_path: Path
) -> None:
    with copied(log, tmp_path, state=RunState.INVALID) as other:
        with pytest.raises(UsageError, match=r"it is invalid.*include it"):
            read_decisions(other, ["drl"], shipped())
        info = RunInfo.of(PLAN, "simulator", id="empty")
        other.begin_run(info)
        found = read_decisions(other, ["drl"], shipped(), include_untrustworthy=True)
    assert (found.counts.runs, found.counts.episodes) == (["drl"], EPISODES)
