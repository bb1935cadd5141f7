"""Rows of tasks are made while their episode goes on, and their records are forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import recording as module
from controller.ledger import TaskSet
from controller.link import NodeLink
from controller.recording import TaskRecording
from controller.writer import LogWriter
from testbed.model.events import Record, RecordKind
from testbed.model.history import TaskRow, fold_all
from testbed.model.task import Outcome
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import CONTROLLER
from testbed.sim.simulator import EpisodeResult, simulate_episode
from testbed.storage.tasklog import RunInfo, open_task_log
from testbed.testing.runtime import small_plan

BATCH = 50


async def _ignore(_link: NodeLink, _batch: pb.EventBatch) -> None:
    """Takes no events: nothing is running at the address."""


async def record(
    folder: Path, episode: EpisodeResult, *more: Record
) -> tuple[list[TaskRow], int, int]:
    """Record an episode in batches, and ``more`` at its end.

    The rows in the log, how many tasks were held at most, and how many histories were illegal.
    """
    link = NodeLink(0, "127.0.0.1:1", _ignore, shared("secret", CONTROLLER))
    failures: list[str] = []
    with open_task_log(folder / "tasks.db") as log:
        log.begin_run(RunInfo.of(small_plan(4), "network", id="run"))
        writer = LogWriter(log)
        recording = TaskRecording("run", 4, writer, failures.append)
        recording.begin_episode()
        most = number = 0
        records, decisions = episode.records, list(episode.decisions)
        for first in range(0, len(records), BATCH):
            part = records[first : first + BATCH]
            # Decisions come with the records of their time, or a batch later.
            told = [each for each in decisions if each.at < part[-1].at]
            decisions = decisions[len(told) :]
            number += 1
            recording.store_batch(link, number, part, told)
            most = max(most, recording.held)
        recording.store_batch(link, number + 1, more, decisions)
        recording.end_episode()
        await recording.complete()
        await writer.close(10)
        assert not failures
        return list(log.tasks("run")), most, recording.illegal


async def test_tasks_that_have_ended_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLD_TASKS", 20)
    episode = simulate_episode(small_plan(4, slots=300), 0, "random")
    assert len(episode.outcomes) == 1200
    rows, most, illegal = await record(tmp_path, episode)
    assert rows == fold_all((), episode.records, episode.decisions).rows
    assert all(row.scheduler for row in rows)
    assert illegal == 0
    # Those that wait for others, those that are under way, and the tasks of a batch.
    assert most < 2 * 20 + 2 * BATCH


async def test_what_comes_after_a_row_was_made_contradicts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLD_TASKS", 10)
    episode = simulate_episode(small_plan(4, slots=60), 0, "random")
    first = next(each for each in episode.records if each.kind is RecordKind.ENDED)
    again = first._replace(seq=first.seq + 1)
    rows, _, illegal = await record(tmp_path, episode, again)
    assert illegal == 1
    assert len(rows) == len(episode.outcomes)
    outcomes = {row.task_id: row.outcome for row in rows}
    assert outcomes.pop(first.task.id) is Outcome.LOST
    del episode.outcomes[first.task.id]
    assert outcomes == episode.outcomes


def test_a_set_of_tasks_takes_a_bit_for_each() -> None:
    tasks = TaskSet()
    given = [*range(0, 10_000, 3), 2**40]
    for task_id in given:
        tasks.add(task_id)
        tasks.add(task_id)
    assert [task_id for task_id in range(10_000) if task_id in tasks] == given[:-1]
    assert 2**40 in tasks
    assert 2**40 + 1 not in tasks
