"""The hook ``place``: where a task is executed, decided once for each task by its node's scheduler.

``testbed.model.decision`` has its Protocol and values, ``testbed.model.events`` its record. Here
are its documents: plain values whose keys are the names of fields.
"""

from __future__ import annotations

from typing import Final

from testbed.model.decision import (
    Answer,
    Observation,
    PeerState,
    Scheduler,
    SchedulerContext,
)
from testbed.model.events import DecisionRecord
from testbed.model.hook import PLACE, Document, Hook
from testbed.model.task import Task


def to_document(decision: DecisionRecord) -> Document:
    """Return a decision with its inputs as plain values."""
    document = decision._asdict()
    document["observation"] = observation_to_document(decision.observation)
    return document


def from_document(document: Document) -> DecisionRecord:
    """Return the decision of plain values; the inverse of ``to_document``.

    Raises: ValueError, KeyError or TypeError: these are not the values of a decision.
    """
    probabilities, mask = document["probabilities"], document["mask"]
    return DecisionRecord(
        **{
            **document,
            "observation": observation_from_document(document["observation"]),
            "probabilities": None if probabilities is None else tuple(probabilities),
            "mask": None if mask is None else tuple(mask),
        }
    )


def task_to_document(task: Task) -> Document:
    """Return a task as plain values."""
    return task._asdict()


def observation_to_document(observation: Observation) -> Document:
    """Return an observation as plain values; ``known`` has ``[state, heard]`` or null by peer."""
    document = observation._asdict()
    task = observation.task
    document["task"] = None if task is None else task._asdict()
    document["answers"] = [
        {**answer._asdict(), "state": None if answer.state is None else answer.state._asdict()}
        for answer in observation.answers
    ]
    document["known"] = [
        None if known is None else [known[0]._asdict(), known[1]] for known in observation.known
    ]
    return document


def observation_from_document(document: Document) -> Observation:
    """Return the observation of plain values; the inverse of ``observation_to_document``."""
    task = document["task"]
    return Observation(
        **{
            **document,
            "task": None if task is None else Task(**task),
            "receiving": tuple(document["receiving"]),
            "sending": tuple(document["sending"]),
            "send_backlog": tuple(document["send_backlog"]),
            "sending_work": tuple(document.get("sending_work", ())),
            "answers": tuple(_answer(answer) for answer in document["answers"]),
            "known": tuple(
                None if known is None else (PeerState(**known[0]), known[1])
                for known in document["known"]
            ),
        }
    )


def _answer(document: Document) -> Answer:
    state = document["state"]
    return Answer(**{**document, "state": None if state is None else PeerState(**state)})


HOOK: Final = Hook(
    name=PLACE,
    noun="scheduler",
    method="decide",
    group="edge_testbed.schedulers",
    protocol=Scheduler,
    context=SchedulerContext,
    record=DecisionRecord,
    to_document=to_document,
    from_document=from_document,
)
