"""Decisions of a per-destination policy from the task log, each with the credit it deserves.

Runs of the real network and of the simulator alike. Observations are encoded as the node encoded
them, masks and probabilities are those that were logged, and the credit is that of training
(``credit``), from the episode rebuilt. Where the log of an episode is incomplete, the plain return
of every decision stands in: 1 if its task succeeded, else 0. The next stage is ``tuning``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np

from testbed import policies
from testbed.errors import Problem, UsageError
from testbed.model.decision import SchedulerContext
from testbed.model.events import DecisionRecord
from testbed.model.information import BITS, Asks
from testbed.model.per_destination import PerDestinationEncoder
from testbed.model.task import Outcome, Task
from testbed.scenario.plan import Plan
from testbed.schedulers.drl import pick
from testbed.sim.engine.policies import weights_of
from testbed.sim.engine.scoring import ScoringWeights
from testbed.storage.tasklog.base import Run, TaskLog
from trainer.credit.gains import AT_ONCE, gains_of_log
from trainer.per_destination.export import network_of
from trainer.per_destination.improving import Judged, judged, log_ratios

PREFIX: Final = "drl:"
"""Begins what the log calls a scheduler that is a learned policy; its id follows."""

_UNLIKELY: Final = 0.05
"""By how much the logarithm of a logged probability may differ from what the weights give."""

_LARGEST_SHARE: Final = 0.1
"""Share of decisions with an unlikely probability up to which the others are believed."""

Progress = Callable[[int, int], None]
"""Told after every episode: episodes read, episodes in all."""


@dataclass(slots=True)
class DecisionCounts:
    """Number of decisions that were read, and of those that could not be used, by reason.

    ``plain`` lists the episodes (run, episode) whose queues could not be served again. Decisions
    that were not used: ``by_others`` (another scheduler or policy), ``not_sampled`` (the most
    probable destination was taken), ``not_told`` (failed in transit or lost), ``not_by_weights``
    (their probability is not what the policy gives for what was logged).
    """

    runs: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    episodes: int = 0
    plain: dict[str, str] = field(default_factory=dict)
    decisions: int = 0
    by_others: int = 0
    not_sampled: int = 0
    not_told: int = 0
    not_by_weights: int = 0

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "runs": list(self.runs),
            "left_out": dict(self.left_out),
            "episodes": self.episodes,
            "plain_returns": dict(self.plain),
            "decisions": self.decisions,
            "not_used": {
                "by_others": self.by_others,
                "not_sampled": self.not_sampled,
                "not_told": self.not_told,
                "not_by_weights": self.not_by_weights,
            },
        }


@dataclass(frozen=True, slots=True)
class LoggedDecisions:
    """Decisions of one policy in one network, ready to be learned from.

    ``batches`` hold those with the credit of training, then those with plain returns, where there
    are any. ``success_rate`` is by (run, episode), of episodes with a decision that is used.
    ``asks`` is what the policy asks its peers.
    """

    plan: Plan
    batches: tuple[Judged, ...]
    counts: DecisionCounts
    success_rate: dict[tuple[str, int], float]
    asks: Asks = BITS


class _Decisions(NamedTuple):
    """Decisions of one policy that were sampled, in order of node and time."""

    rows: list[list[tuple[float, ...]]]
    mask: list[tuple[bool, ...]]
    chosen: list[int]
    probability: list[float]
    node: list[int]
    credit: list[float]


def who_decided(task_log: TaskLog, run_ids: Sequence[str]) -> dict[str, int]:
    """Ids of the learned policies that decided in these runs, with how many tasks each placed."""
    found: dict[str, int] = {}
    for run_id in run_ids:
        for row in task_log.tasks(task_log.run(run_id).id):
            if row.scheduler is not None and row.scheduler.startswith(PREFIX):
                policy = row.scheduler.removeprefix(PREFIX)
                found[policy] = found.get(policy, 0) + 1
    return found


def read_decisions(
    task_log: TaskLog,
    run_ids: Sequence[str],
    policy: policies.Policy,
    *,
    include_untrustworthy: bool = False,
    progress: Progress = lambda done, total: None,
) -> LoggedDecisions:
    """Return the decisions that ``policy`` made in these runs, which are of one network.

    Runs that are not ``completed`` are left out and named in the counts, unless asked for.

    Raises:
        UsageError: no run that can be used, runs of different networks, a policy of another kind
            or for another scenario, or one that decided nothing here.
    """
    weights = weights_of(policy)
    runs = [task_log.run(run_id) for run_id in dict.fromkeys(run_ids)]
    counts = DecisionCounts()
    used: list[Run] = []
    for run in runs:
        if run.trustworthy or include_untrustworthy:
            used.append(run)
        else:
            counts.left_out[run.id] = f"it is {run.state}"
    plans = _plans(used, counts)
    policies.check_fits(policy.card, plans[0].topology.size, plans[0].scenario_hash)
    complete, plain = (_Decisions([], [], [], [], [], []) for _ in range(2))
    rates: dict[tuple[str, int], float] = {}
    total = sum(run.info.episodes for run in used)
    for run, plan in zip(used, plans, strict=True):
        counts.runs.append(run.id)
        numbers = range(run.info.first_episode, run.info.first_episode + run.info.episodes)
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            _read(task_log, run.id, plan, part, policy.card, complete, plain, counts, rates)
            done = sum(each.info.episodes for each in used[: len(counts.runs) - 1])
            progress(done + start + len(part), total)
    batches = tuple(
        batch
        for decisions in (complete, plain)
        if decisions.chosen
        for batch in [_by_weights(_judged(decisions), weights, counts)]
        if len(batch.chosen)
    )
    counts.decisions = sum(len(batch.chosen) for batch in batches)
    counts.episodes = len(rates)
    if counts.not_by_weights > _LARGEST_SHARE * (counts.not_by_weights + counts.decisions):
        raise UsageError(
            f"these are not the decisions of policy {policy.card.id}",
            [
                Problem(
                    "probabilities",
                    f"{counts.not_by_weights} of {counts.not_by_weights + counts.decisions} are "
                    "not what the policy gives for what was logged",
                    "the policy that decided, and logs of this version",
                )
            ],
        )
    if not counts.decisions:
        others = ", ".join(sorted(who_decided(task_log, [run.id for run in used]))) or "none"
        raise UsageError(
            f"policy {policy.card.id} sampled no decision in these runs",
            [
                Problem(
                    "runs",
                    f"learned policies that decided: {others}; "
                    f"{counts.not_sampled} decisions took the most probable destination",
                    "runs under --scheduler drl with this policy, sampled",
                )
            ],
        )
    return LoggedDecisions(plans[0], batches, counts, rates, policy.card.asks)


def _plans(used: Sequence[Run], counts: DecisionCounts) -> list[Plan]:
    """Return the plans of the runs, which are of one network.

    Raises: UsageError: they are not, or there is none.
    """
    problems: list[Problem] = []
    plans: list[Plan] = []
    for run in used:
        try:
            plans.append(run.plan)
        except ValueError as error:
            problems.append(Problem(f"run {run.id}", str(error), "leave it out"))
    if not used:
        problems += [
            Problem(f"run {run}", reason, "include it with --include-invalid")
            for run, reason in counts.left_out.items()
        ] or [Problem("runs", "none given", "name at least one, or `latest`")]
    for run, plan in zip(used, plans, strict=False):
        differs = plan.differences(plans[0])
        if differs:
            problems.append(
                Problem(
                    f"run {run.id}",
                    f"has another {' and '.join(differs)} than run {used[0].id}",
                    "tune on the runs of one scenario at a time",
                )
            )
    if problems:
        raise UsageError("these runs cannot be tuned on", problems)
    return plans


def _read(
    task_log: TaskLog,
    run_id: str,
    plan: Plan,
    numbers: Sequence[int],
    card: policies.PolicyCard,
    complete: _Decisions,
    plain: _Decisions,
    counts: DecisionCounts,
    rates: dict[tuple[str, int], float],
) -> None:
    """Read some episodes of a run, and add their decisions to ``complete`` or ``plain``."""
    per_episode = plan.workload.slots * plan.topology.size
    for found in gains_of_log(task_log, run_id, plan, numbers):
        episode, gain, reason = found
        into = complete if reason is None else plain
        before = len(into.chosen)
        for decision, rows in sampled(task_log, run_id, plan, episode.number, card, counts):
            worth = gain[_task_of(decision).id % per_episode]
            if math.isnan(worth):
                counts.not_told += 1
                continue
            assert decision.mask is not None
            assert decision.probabilities is not None
            assert decision.destination is not None
            into.rows.append(rows)
            into.mask.append(decision.mask)
            into.chosen.append(decision.destination)
            into.probability.append(decision.probabilities[decision.destination])
            into.node.append(decision.node)
            into.credit.append(float(worth))
        if len(into.chosen) > before:
            outcomes = [ended.outcome is Outcome.SUCCEEDED for ended in episode.tasks]
            rates[run_id, episode.number] = float(np.mean(outcomes))
            if reason is not None:
                counts.plain[f"{run_id}/{episode.number}"] = reason


def sampled(
    task_log: TaskLog,
    run_id: str,
    plan: Plan,
    episode: int,
    card: policies.PolicyCard,
    counts: DecisionCounts,
) -> Iterator[tuple[DecisionRecord, list[tuple[float, ...]]]]:
    """Return the decisions that the policy sampled in an episode, with the rows it was fed with.

    In order of node and time; decisions of others are counted in ``counts`` and left out.
    """
    made = [
        decision
        for decision in task_log.decisions(run_id, episode=episode)
        if decision.task_id is not None and decision.destination is not None
    ]
    contexts = [
        SchedulerContext(node, plan.topology, plan.rules, plan.workload, plan.seeds.schedulers)
        for node in range(plan.topology.size)
    ]
    name = PREFIX + card.id
    own = [decision for decision in made if decision.scheduler == name]
    counts.by_others += len(made) - len(own)
    if not all(_drawn(decision, contexts[decision.node]) for decision in own):
        # Some of the most probable ones are those that would have been drawn: none can be told.
        counts.not_sampled += len(own)
        return
    for node, of_node in groupby(made, key=lambda decision: decision.node):
        in_order = sorted(of_node, key=lambda decision: (decision.at, decision.slot))
        # A policy that was deployed in between began with a moving average of its own.
        for scheduler, span in groupby(in_order, key=lambda decision: decision.scheduler):
            if scheduler != name:
                continue
            encoder = PerDestinationEncoder(
                node, plan.topology, plan.rules, plan.workload, card.encoder
            )
            for decision in span:
                assert decision.mask is not None
                task = _task_of(decision)
                assert decision.destination is not None
                rows = encoder.rows(decision.observation, task, decision.mask)
                encoder.decided(decision.destination, task, decision.observation)
                yield decision, rows


def _drawn(decision: DecisionRecord, context: SchedulerContext) -> bool:
    """Return whether the node's draw gives this destination for the probabilities."""
    probabilities = decision.probabilities
    if probabilities is None or decision.mask is None:
        return False
    return decision.destination == pick(probabilities, context.uniform(_task_of(decision), 0))


def _task_of(decision: DecisionRecord) -> Task:
    task = decision.observation.task
    assert task is not None, "a decision about a task observed it"
    return task


def _judged(decisions: _Decisions) -> Judged:
    return judged(
        np.array(decisions.rows, np.float32),
        np.array(decisions.mask, np.bool_),
        np.array(decisions.chosen, np.int64),
        np.log(np.array(decisions.probability)).astype(np.float32),
        np.array(decisions.node, np.int64),
        np.array(decisions.credit),
    )


def _by_weights(batch: Judged, weights: ScoringWeights, counts: DecisionCounts) -> Judged:
    """Return the decisions that these weights give the logged probability for what was logged."""
    likely = log_ratios(network_of(weights), batch).abs() <= _UNLIKELY
    counts.not_by_weights += int((~likely).sum())
    return Judged(*(values[likely] for values in batch))
