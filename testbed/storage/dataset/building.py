"""From the decisions and outcomes of a task log to sequences of transitions (model section 6).

Nothing is derived again that was recorded: the observation, mask and probabilities are those the
decision was made with. What was not recorded is counted in the metadata of the data set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import Encode, action_mask, encoder, time_slot
from testbed.model.events import DecisionRecord
from testbed.model.run_state import RunState
from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.storage.dataset.format import (
    Content,
    Counts,
    TransitionSequence,
    write_data_set,
)
from testbed.storage.export import ProgressCallback, describe_run, no_progress
from testbed.storage.tasklog.base import Run, TaskLog


def build(
    task_log: TaskLog,
    run_ids: Sequence[str],
    encoder_name: str,
    folder: Path,
    *,
    include_untrustworthy: bool = False,
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Make a data set in ``folder`` from these runs; returns its metadata.

    Runs that are not ``completed`` (invalid, degraded, stopped, failed, still running) are left
    out and named in the metadata, unless asked for.

    Raises:
        UsageError: an unknown run or encoder, no run that can be used, runs without decisions or
            without idle slots, runs of different networks, or ``folder`` is taken. All problems
            are found before any work.
        PermanentError: the folder cannot be written, or the log cannot be read.
    """
    encoding = encoder(encoder_name)
    runs = list({run.id: run for run in map(task_log.run, run_ids)}.values())
    used, left_out = _chosen(runs, include_untrustworthy)
    plans = _plans(task_log, used, left_out)
    plan = plans[0]
    content = Content(
        name=folder.name,
        encoder=encoding,
        nodes=plan.topology.size,
        slots=plan.workload.slots,
        scenario=plan.name,
        scenario_hashes=tuple(dict.fromkeys(run.info.scenario_hash for run in used)),
        runs=tuple({**describe_run(run), "outcomes": task_log.outcomes(run.id)} for run in used),
        left_out=tuple(left_out),
        network=json.loads(plan.to_json()),
    )
    counts = Counts()
    encode = encoding.bind(plan)
    total = sum(task_log.counts(run.id)["decisions"] for run in used)

    def sequences() -> Iterator[TransitionSequence]:
        done = 0
        for run in used:
            endings = _endings(task_log, run.id, plan, counts)
            episodes: set[int] = set()
            seen = 0
            for decisions in _by_node(task_log, run.id):
                episodes.add(decisions[0].episode)
                seen += 1
                done += len(decisions)
                if seen % plan.topology.size == 0:
                    progress("decisions", done, total)
                ended = endings.get(decisions[0].episode)
                sequence = _sequence(run.id, decisions, ended, plan, encode, counts)
                if sequence is not None:
                    yield sequence
            counts.missing_sequences += len(episodes) * plan.topology.size - seen
        progress("decisions", done, total)

    return write_data_set(folder, content, sequences(), counts=counts, overwrite=overwrite)


def _chosen(
    runs: Sequence[Run], include_untrustworthy: bool
) -> tuple[list[Run], list[dict[str, Any]]]:
    used: list[Run] = []
    left_out: list[dict[str, Any]] = []
    for run in runs:
        if run.trustworthy or include_untrustworthy:
            used.append(run)
        else:
            left_out.append({"id": run.id, "reason": _why(run)})
    return used, left_out


def _why(run: Run) -> str:
    reasons = (*run.code_failures, *(run.certificate or {}).get("reasons", ()))
    said = f": {'; '.join(map(str, reasons))}" if reasons else ""
    if run.state is RunState.RUNNING:
        return "it has not ended"
    return f"it is {run.state}{said}"


def _plans(
    task_log: TaskLog, used: Sequence[Run], left_out: Sequence[dict[str, Any]]
) -> list[Plan]:
    """Return the plans of the runs, which agree in all that encoder and policy depend on."""
    problems: list[Problem] = []
    plans: list[Plan] = []
    for run in used:
        try:
            plan = run.plan
        except ValueError as error:
            problems.append(Problem(f"run {run.id}", str(error), "leave it out"))
            continue
        plans.append(plan)
        counts = task_log.counts(run.id)
        if not counts["decisions"]:
            problems.append(
                Problem(f"run {run.id}", "has no decisions", "leave it out, or run it again")
            )
        elif not plan.log_idle_slots:
            problems.append(
                Problem(
                    f"run {run.id}",
                    "did not log idle slots, so its sequences have gaps",
                    "run it again with idle slots logged",
                )
            )
        elif not counts["tasks"]:
            problems.append(
                Problem(
                    f"run {run.id}", "has no outcomes of tasks", "leave it out, or run it again"
                )
            )
    for plan, run in zip(plans[1:], used[1:], strict=False):
        differs = plan.differences(plans[0])
        if differs:
            problems.append(
                Problem(
                    f"run {run.id}",
                    f"has another {' and '.join(differs)} than run {used[0].id}",
                    "make one data set per network",
                )
            )
    if not used:
        problems += [
            Problem(f"run {left['id']}", left["reason"], "include it with --include-invalid")
            for left in left_out
        ] or [Problem("runs", "none given", "name at least one, or `latest`")]
    if problems:
        raise UsageError("no data set can be made of these runs", problems)
    return plans


def team_rewards(
    task_log: TaskLog, run_id: str, plan: Plan, counts: Counts | None = None
) -> dict[int, NDArray[np.float32]]:
    """Team reward [T] of every episode: +1 or -1 per task in the slot in which it ended.

    Endings after the last slot are credited to the last slot. A lost task counts as ended when its
    deadline passed, because nobody knows better.
    """
    found = _endings(task_log, run_id, plan, counts)
    return {episode: each.team for episode, each in found.items()}


class _Endings(NamedTuple):
    """How the tasks of an episode ended."""

    team: NDArray[np.float32]
    """[T], see ``team_rewards``."""
    outcome: NDArray[np.float32]
    """[T, N], by slot and node of arrival: 1 or 0, NaN without a task or if it was lost."""


def _endings(
    task_log: TaskLog, run_id: str, plan: Plan, counts: Counts | None
) -> dict[int, _Endings]:
    slots, length, nodes = plan.workload.slots, plan.workload.slot, plan.topology.size
    found: dict[int, _Endings] = {}
    for row in task_log.tasks(run_id):
        episode = found.get(row.episode)
        if episode is None:
            episode = found[row.episode] = _Endings(
                np.zeros(slots, np.float32), np.full((slots, nodes), np.nan, np.float32)
            )
        lost, succeeded = row.outcome is Outcome.LOST, row.outcome is Outcome.SUCCEEDED
        elapsed = row.deadline if lost or row.elapsed is None else row.elapsed
        if lost and counts is not None:
            counts.lost_tasks += 1
        slot = time_slot(row.slot * length + elapsed, plan)
        episode.team[slot] += 1.0 if succeeded else -1.0
        if not lost:
            episode.outcome.flat[row.task_id % (slots * nodes)] = 1.0 if succeeded else 0.0
    return found


def _by_node(task_log: TaskLog, run_id: str) -> Iterator[list[DecisionRecord]]:
    """Return all decisions of one node in one episode, by slot."""
    group: list[DecisionRecord] = []
    for decision in task_log.decisions(run_id):
        if group and (group[0].episode, group[0].node) != (decision.episode, decision.node):
            yield group
            group = []
        group.append(decision)
    if group:
        yield group


def _sequence(
    run_id: str,
    decisions: list[DecisionRecord],
    ended: _Endings | None,
    plan: Plan,
    encode: Encode,
    counts: Counts,
) -> TransitionSequence | None:
    """Return the sequence of one node in one episode; None if too little of it was recorded."""
    nodes, slots = plan.topology.size, plan.workload.slots
    first = decisions[0].slot
    usable = 1
    while usable < len(decisions) and decisions[usable].slot == first + usable:
        usable += 1
    counts.dropped_rows += len(decisions) - usable
    decisions = decisions[:usable]

    rows = [_row(decision, nodes, encode, counts) for decision in decisions]
    last = decisions[-1]
    if last.slot == slots - 1:
        # Nothing arrives after the last slot: the node as it was, without its task.
        counts.final_states_assumed += 1
        rows.append(_idle(last, nodes, encode))
    elif last.slot < slots:
        # The node died, or what it recorded is lost: its last row serves as the state after.
        counts.dropped_rows += 1
    steps = len(rows) - 1
    if ended is None and all(decision.task_id is None for decision in decisions):
        ended = _Endings(np.zeros(slots, np.float32), np.full((slots, nodes), np.nan, np.float32))
    if ended is None or steps < 1:
        # The run broke off before the outcomes of this episode were written.
        counts.dropped_rows += steps
        return None
    observations, masks, actions, log_probs = zip(*rows, strict=True)
    placed = np.array(actions[:steps]) < nodes
    outcomes = ended.outcome[first : first + steps, last.node]
    return TransitionSequence(
        run=run_id,
        episode=last.episode,
        node=last.node,
        first_slot=first,
        observations=np.array(observations, np.float32),
        masks=np.array(masks, np.bool_),
        actions=np.array(actions[:steps], np.int64),
        log_probs=np.array(log_probs[:steps], np.float32),
        rewards=ended.team[first : first + steps].copy(),
        policies=tuple(decision.scheduler for decision in decisions[:steps]),
        outcomes=np.where(placed, outcomes, np.float32(np.nan)),
    )


_Row = tuple[list[float], list[bool], int, float]


def _idle(decision: DecisionRecord, nodes: int, encode: Encode) -> _Row:
    """Return a slot in which nothing could be decided: the only action is N, and it is certain."""
    observation = decision.observation
    if observation.task is not None:
        observation = observation._replace(task=None)
    return encode(observation), [False] * nodes + [True], nodes, 0.0


def _row(decision: DecisionRecord, nodes: int, encode: Encode, counts: Counts) -> _Row:
    chosen = decision.destination
    if decision.task_id is None or chosen is None:
        return _idle(decision, nodes, encode)
    if decision.mask is not None:
        mask = [*decision.mask, False]
    else:
        counts.masks_derived += 1
        mask = action_mask(decision.observation, nodes)
    if not mask[chosen]:
        counts.actions_outside_mask += 1
        mask[chosen] = True
    odds = decision.probabilities
    known = odds is not None and odds[chosen] > 0.0
    log_prob = math.log(odds[chosen]) if odds is not None and known else math.nan
    return encode(decision.observation), mask, chosen, log_prob
