"""The faults of a run: those of its plan, and those that were injected by hand.

A fault by hand lasts its emulated time across episodes; between two of them no time passes. It is
released when its time is over, when it is cleared, and with the end of the run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from testbed.errors import UsageError
from testbed.model.events import Record, RecordKind
from testbed.model.fault_effects import Effects, FaultNote, fault_lines
from testbed.model.faults import KINDS, Fault, Timeline
from testbed.model.faults.arrivals import Arrivals
from testbed.model.faults.limits import impossible
from testbed.model.faults.seam import BY_HAND
from testbed.model.units import SECOND, Micros, counted
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.operator import FaultStatus
from testbed.scenario.plan import PlanHead

MOST_LOGGED: Final = 5_000
"""Faults of one run that its log has one by one; the rest is counted."""

SHOWN: Final = 3

LEAD: Final[Micros] = 50_000
"""Real microseconds between announcing a fault by hand to its nodes and its beginning."""

ARRIVALS_LEAD: Final[Micros] = 250_000
"""The same for faults of arrivals, and for their end when they are released: nodes know arrivals
ahead, and have to be told of other ones before they begin, on a busy machine too."""

LONGEST: Final[Micros] = 30 * 24 * 3600 * SECOND


def refusal(fault: Fault, size: int) -> str:
    """Return why a fault cannot be injected in a network of ``size`` nodes; empty if it can.

    Its ``end`` is its duration.
    """
    if wrong := impossible(fault, size):
        return wrong
    if type(fault.end) is not int or not 0 < fault.end <= LONGEST:
        return "a fault lasts from 1 us to 720 h"
    return ""


def repeated_faults(request: pb.StartRunRequest, size: int) -> dict[int, tuple[Fault, ...]]:
    """Return the faults that a run is asked to meet as another one did, by episode.

    Raises: UsageError: one of them is none, or cannot be had in a network of ``size`` nodes.
    """
    found: dict[int, tuple[Fault, ...]] = {}
    for given in request.faults:
        faults = []
        for document in given.faults:
            try:
                fault = Fault.from_document(json.loads(document))
            except (ValueError, AttributeError, RecursionError) as error:
                raise UsageError(f"not a fault: {error}") from None
            wrong = refusal(dataclasses.replace(fault, end=fault.end - fault.begin), size)
            if wrong or fault.begin < 0 or fault.entry != BY_HAND:
                raise UsageError(f"fault {fault.id} of episode {given.episode}: {wrong or _NOT}")
            faults.append(fault)
        found[given.episode] = (*found.get(given.episode, ()), *faults)
    return found


_NOT: Final = "it has to be one that was injected by hand, after the start of its episode"


class RunFaults:
    """All faults of one run of ``plan``, episode by episode.

    ``repeated`` are met like faults by hand, each in its episode.
    """

    def __init__(self, plan: PlanHead, repeated: Mapping[int, tuple[Fault, ...]]) -> None:
        self._plan = plan
        self._repeated = repeated
        self._by_hand: list[Fault] = []
        self._last_repeated = max(
            (fault.number for faults in repeated.values() for fault in faults), default=0
        )
        self._injected = self._last_repeated
        self._effects: Effects | None = None
        self.lost = 0
        """Tasks that faults took with their nodes."""
        self.log: list[dict[str, Any]] = []
        """The outcome of each fault of the completed episodes."""
        self.not_logged = 0
        self.failed: list[str] = []
        """Faults that did not take, in words."""

    # --- episodes ---------------------------------------------------------------------------

    def begin(self, episode: int) -> list[bytes]:
        """Begin an episode; return the faults by hand that its nodes have to know."""
        self._by_hand += self._repeated.get(episode, ())
        self._effects = Effects(episode, self._whole(episode))
        return self.told

    def end(self, now: Micros, silent: Iterable[int]) -> None:
        """End the episode at ``now`` on its clock; ``silent`` are nodes that had left it."""
        effects, self._effects = self._effects, None
        if effects is None:
            return
        for document in effects.documents(now, frozenset(silent)):
            if document["took"] is False:
                self.failed.append(
                    f"fault {document['id']} ({document['what']}) of episode "
                    f"{effects.episode} did not take"
                )
            if len(self.log) < MOST_LOGGED:
                self.log.append(document)
            else:
                self.not_logged += 1
        self._by_hand = [
            dataclasses.replace(fault, begin=0, end=fault.end - now)
            for fault in self._by_hand
            # Of a repeated one that goes on, the next episode has a fault of its own.
            if fault.end > now and fault.number > self._last_repeated
        ]

    def timeline(self, episode: int) -> Timeline:
        """Return the faults of an episode as they are known now."""
        effects = self._effects
        if effects is not None and effects.episode == episode:
            return effects.timeline
        return self._plan.timeline(episode)

    # --- by hand ----------------------------------------------------------------------------

    @property
    def told(self) -> list[bytes]:
        """The faults by hand of the present episode, as nodes take them."""
        return [json.dumps(fault.to_document()).encode() for fault in self._by_hand]

    def inject(self, fault: Fault, now: Micros | None) -> Fault:
        """Begin ``fault``, whose ``end`` is its duration; return it numbered.

        It begins a moment after ``now``, or at 0 between two episodes (None).
        """
        self._injected += 1
        # A moment later, so that both ends of a link begin at the same instant.
        at = 0 if now is None else now + max(self._emulated(LEAD), self._ahead(fault))
        begun = dataclasses.replace(fault, begin=at, end=at + fault.end, number=self._injected)
        self._by_hand.append(begun)
        self._renew()
        return begun

    def clear(self, now: Micros | None) -> list[Fault]:
        """Release all faults by hand; those that were active. None is between two episodes."""
        active = [fault for fault in self._by_hand if fault.holds(now or 0)]
        ends = [0 if now is None else now + self._ahead(fault) for fault in self._by_hand]
        self._by_hand = [
            dataclasses.replace(fault, end=max(fault.begin, min(fault.end, end)))
            for fault, end in zip(self._by_hand, ends, strict=True)
        ]
        self._renew()
        return active

    def take_back(self, fault: Fault) -> None:
        """Forget a fault that could not be brought to the nodes."""
        self._by_hand = [each for each in self._by_hand if each.id != fault.id]
        if self._effects is not None:
            self._effects.forget(fault.id)
        self._renew()

    def described(self, now: Micros) -> tuple[FaultStatus, ...]:
        """Return all faults of the present episode, those of the plan included, at ``now``."""
        faults = self._by_hand if self._effects is None else self._effects.timeline.faults
        return tuple(
            FaultStatus(
                id=fault.id,
                kind=fault.kind,
                what=KINDS[fault.kind].describe(fault),
                begin=fault.begin,
                end=fault.end,
                state="active" if fault.holds(now) else "over" if fault.end <= now else "to come",
                by_hand=fault.entry == BY_HAND,
            )
            for fault in faults
        )

    def lines(self, now: Micros) -> tuple[str, ...]:
        """Return in words the faults that have begun by ``now``, and how many tasks they took."""
        effects = self._effects
        present = () if effects is None else effects.timeline.faults
        begun = [
            {
                "episode": effects.episode if effects else 0,
                "entry": fault.entry,
                "kind": fault.kind,
                "what": KINDS[fault.kind].describe(fault),
            }
            for fault in present
            if fault.begin <= now
        ]
        lines = fault_lines([*self.log, *begun])
        if self.lost:
            lines.append(f"{counted(self.lost, 'task')} lost with nodes that faults took down")
        return tuple(lines)

    # --- what nodes say ---------------------------------------------------------------------

    def note(self, documents: Iterable[bytes]) -> None:
        """Take what nodes note. Raises: ValueError: it cannot be read."""
        for document in documents:
            try:
                note = FaultNote(**json.loads(document))
            except TypeError as error:
                raise ValueError(repr(error)) from None
            if self._effects is not None and note.episode == self._effects.episode:
                self._effects.note(note.node, note.fault, note.what, max(0, note.clock - note.at))

    def add(self, record: Record) -> None:
        """Take a record of a node."""
        if record.kind is RecordKind.ENDED and "fault" in record.data:
            self.lost += 1
        if self._effects is not None:
            self._effects.add(record)

    @property
    def reasons(self) -> list[str]:
        """The first faults that did not take, and how many more there are."""
        more = len(self.failed) - SHOWN
        return self.failed[:SHOWN] + ([f"{more} more faults did not take"] if more > 0 else [])

    def _ahead(self, fault: Fault) -> Micros:
        """Return how long ahead nodes know what a fault changes, in emulated microseconds."""
        return self._emulated(ARRIVALS_LEAD) if fault.kind == Arrivals.name else 0

    def _emulated(self, real: Micros) -> Micros:
        return int(real / self._plan.time_scale)

    def _whole(self, episode: int) -> Timeline:
        planned = self._plan.timeline(episode)
        return Timeline((*planned.faults, *self._by_hand), planned.size)

    def _renew(self) -> None:
        if self._effects is not None:
            self._effects.set_timeline(self._whole(self._effects.episode))
