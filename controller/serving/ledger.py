"""Bookkeeping of an episode's requests: what their client saw joined with what their node says.

Pure bookkeeping: no clock, no I/O. A request of the run's own users is entered when it is sent. Its
row is complete when the client has an answer and the node has reported it; ``close`` makes the rows
of all that stay incomplete, so that each has exactly one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from testbed.model.serving.events import Request
from testbed.model.serving.record import RequestOutcome, RequestRecord
from testbed.model.serving.users import EXTERNAL
from testbed.model.units import Micros
from testbed.storage.tasklog import RequestRow

_Batch = TypeVar("_Batch")


class Seen(NamedTuple):
    """The end of a request as its client saw it.

    ``answered`` is the time until it had the answer, ``status`` that of HTTP; None if there was
    none. ``taken`` False: the node cannot have taken it, so it will not report it.
    """

    outcome: RequestOutcome
    answered: Micros | None = None
    status: int | None = None
    taken: bool = True


NO_ANSWER: Final = Seen(RequestOutcome.LOST)
"""How it ends for a client that gets no answer."""


@dataclass(slots=True)
class _Open(Generic[_Batch]):
    """A request whose row is not complete; ``batch`` is what its record came with."""

    request: Request
    due: Micros
    sent: Micros
    seen: Seen | None = None
    record: RequestRecord | None = None
    batch: _Batch | None = None


class Joined(NamedTuple, Generic[_Batch]):
    """A complete row. ``record`` is None if the node has not reported it.

    ``batch`` is the one that its record came with, if that came before the client's answer.
    """

    row: RequestRow
    seen: Seen | None
    record: RequestRecord | None
    batch: _Batch | None = None


class RequestLedger(Generic[_Batch]):
    """The requests of one episode, for the functions of these names.

    ``reports`` False: nodes report counts alone, so a row is complete when its client has ended.
    """

    def __init__(self, functions: Sequence[str], *, reports: bool = True) -> None:
        self._reports = reports
        self._functions = functions
        self._open: dict[int, _Open[_Batch]] = {}
        self._unanswered = 0
        self.sent = 0

    @property
    def unanswered(self) -> int:
        """Requests that have been sent and have not ended for their client."""
        return self._unanswered

    def send(self, request: Request, due: Micros, sent: Micros) -> None:
        """Enter a request that was due at ``due`` and has been sent at ``sent``."""
        self.sent += 1
        self._unanswered += 1
        self._open[request.id] = _Open(request, due, sent)

    def ended(self, number: int, seen: Seen) -> Joined[_Batch] | None:
        """Take how a request ended for its client; return its row if it is complete."""
        known = self._open[number]
        known.seen = seen
        self._unanswered -= 1
        if known.record is None and seen.taken and self._reports:
            return None
        return self._joined(known)

    def reported(self, record: RequestRecord, batch: _Batch) -> Joined[_Batch] | None:
        """Take what a node says of a request; return its row if it is complete.

        That of a request that is not of the run's users is. Raises: KeyError: nothing waits for it,
        because its row was complete before.
        """
        known = self._open.get(record.id)
        if known is None:
            if record.id < EXTERNAL:
                raise KeyError(record.id)
            return Joined(RequestRow.of(record, self._functions[record.function]), None, record)
        known.record = record
        if known.seen is None:
            known.batch = batch
            return None
        return self._joined(known)

    def close(self) -> Iterator[Joined[_Batch]]:
        """Return the rows of all requests that are not complete, which are lost."""
        for known in list(self._open.values()):
            if known.seen is None:
                known.seen = NO_ANSWER
                self._unanswered -= 1
            yield self._joined(known)

    def _joined(self, known: _Open[_Batch]) -> Joined[_Batch]:
        request, seen, record = known.request, known.seen, known.record
        assert seen is not None
        del self._open[request.id]
        name = self._functions[request.function]
        client = {
            "sent": known.sent,
            "answered": seen.answered,
            "client_status": seen.status,
        }
        if record is not None:
            row = RequestRow.of(record, name, **client)
        else:
            row = RequestRow(
                request.episode,
                request.id,
                request.source,
                name,
                known.due,
                status=None,
                outcome=RequestOutcome.LOST if seen.taken else seen.outcome,
                peer=None,
                server=None,
                elapsed=None,
                **client,
            )
        return Joined(row, seen, record, known.batch)
