"""The log of a process, kept in files until the controller has stored it.

All nodes of a process share it: one append-only file per run, one batch for what happens at all of
them, and one listener at a time, so that a process with many nodes costs the controller no more
than one with a single node. What has happened goes to its file in one write as soon as the event
loop has nothing more urgent to do, so that a process killed at any moment has lost some
milliseconds at most; batches are cut from the file later and sent again until they are
acknowledged. A batch is in the file before it is sent. A new process on the same folder goes on
where the last one stopped.

A file that is removed, cut short or written over while the process runs is made anew from what is
in memory; what a new process cannot read of a file is left out, said, and kept beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from edgenode.turns import later
from testbed.errors import PermanentError
from testbed.model.events import Record
from testbed.model.hook import Decided
from testbed.model.serving.record import RequestRecord, WindowRecord
from testbed.model.units import Micros
from testbed.rpc.codec import decode_decision, decode_record, encode_decision, encode_record
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.serving import decode_requests, decode_windows, encode_request, encode_window

_logger: Final = logging.getLogger(__name__)

SOON: Final = 0.02
"""Seconds from the first event of a batch to its cut where little happens."""

LATEST: Final = 0.25
"""The same where much happens: a batch costs both ends more than the events in it."""

AT_ONCE: Final = 4
"""Batches that may be cut soon, one after another; another one for every ``LATEST`` seconds."""

BATCH_BYTES: Final = 1 << 20
"""Size at which a batch is cut at once."""

RETRY: Final = 5.0
"""Seconds between two attempts to write a file that could not be written."""

_KEEP_BYTES: Final = 1 << 20
"""A file whose content is all acknowledged is emptied when it has grown beyond this."""

# One line each: a record, a decision, a fault applied or released, a request that was answered, a
# window that is over, how late a router was called and why one failed, the end of batch n. A file
# starts with the end of the last batch that is no longer in it, so that numbers go on after the
# file was emptied.
_RECORD: Final = b"r"
_DECISION: Final = b"d"
_FAULT: Final = b"f"
_REQUEST: Final = b"q"
_WINDOW: Final = b"w"
_TICK: Final = b"t"
_FAILURE: Final = b"x"
_END: Final = b"="


class LogEvent(NamedTuple):
    """What has happened, and how it is written."""

    kind: bytes
    encode: Callable[[Any], bytes]
    what: Any


class RunSpool:
    """The file of one run; batches are numbered from 1 without gaps.

    Batches stay in memory until they are acknowledged; the file is read only by the next process.
    If it cannot be written (disk full), that is logged and the log goes on without it.
    """

    def __init__(self, run: str, path: Path, on_batch: Callable[[], None]) -> None:
        self.run = run
        self.path = path
        self.last_batch = 0
        self._on_batch = on_batch
        self._batches: deque[tuple[int, list[bytes]]] = deque()
        self._backlog = 0
        self._happened: list[LogEvent] = []
        self._uncut: list[bytes] = []
        self._uncut_bytes = 0
        self._unwritten: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._soon = float(AT_ONCE)
        self._counted = 0.0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._writable = True
        self._again_at = 0.0
        self._recover()

    @property
    def unacknowledged(self) -> int:
        """Number of batches that the controller has not acknowledged."""
        return len(self._batches)

    @property
    def backlog(self) -> int:
        """Bytes of those batches."""
        return self._backlog

    def append(self, event: LogEvent) -> None:
        """Write an event when nothing more urgent is due; it will be in the next batch."""
        self._happened.append(event)
        if len(self._happened) == 1:
            later(asyncio.get_running_loop()).add(self._settle)
        if self._timer is None:
            self._cut_in(self._delay())

    def _settle(self) -> None:
        """Write what has happened."""
        self._encode()
        if self._uncut_bytes >= BATCH_BYTES:
            self.cut()
        else:
            self._flush()

    def _encode(self) -> None:
        """Make lines of what has happened."""
        events, self._happened = self._happened, []
        for kind, encode, what in events:
            line = kind + encode(what)
            self._uncut.append(line)
            self._uncut_bytes += len(line)
            self._unwritten.append(line)

    def hurry(self) -> None:
        """Cut the next batch soon: nothing is to be expected after what has happened."""
        if self._timer is not None and self._due > asyncio.get_running_loop().time() + SOON:
            self._timer.cancel()
            self._cut_in(SOON)

    def _cut_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + seconds
        self._timer = loop.call_later(seconds, lambda: later(loop).add(self._cut_late))

    def _cut_late(self) -> None:
        self.cut()

    def _delay(self) -> float:
        """Return how long the next batch waits for more events, in seconds."""
        now = asyncio.get_running_loop().time()
        self._soon = min(AT_ONCE, self._soon + (now - self._counted) / LATEST)
        self._counted = now
        if self._soon < 1:
            return LATEST
        self._soon -= 1
        return SOON

    def cut(self) -> int:
        """Make a batch of what is not in one yet; the number of the last batch, 0 if none was."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._encode()
        if self._uncut:
            self.last_batch += 1
            self._unwritten.append(_END + b"%d" % self.last_batch)
            self._flush()
            self._keep(self._uncut)
            self._uncut, self._uncut_bytes = [], 0
            self._look()
            self._on_batch()
        return self.last_batch

    def _keep(self, lines: list[bytes]) -> None:
        """Keep a batch until it is acknowledged."""
        self._batches.append((self.last_batch, lines))
        self._backlog += _size(lines)

    def batch_after(self, number: int) -> pb.EventBatch | None:
        """Return the first unacknowledged batch after ``number`` as it is sent; None if none."""
        if not self._batches or self._batches[-1][0] <= number:
            return None
        # Numbers have no gaps, so the position follows from the number; but a file may be damaged.
        position = min(max(0, number + 1 - self._batches[0][0]), len(self._batches) - 1)
        while position and self._batches[position - 1][0] > number:
            position -= 1
        found, lines = self._batches[position]
        return pb.EventBatch(
            run=self.run,
            number=found,
            records=_of(lines, _RECORD),
            decisions=_of(lines, _DECISION),
            faults=_of(lines, _FAULT),
            requests=_of(lines, _REQUEST),
            windows=_of(lines, _WINDOW),
            ticks=[int(line) for line in _of(lines, _TICK)],
            failures=[_failure_of(line) for line in _of(lines, _FAILURE)],
        )

    def acknowledge(self, number: int) -> None:
        """Drop all batches up to ``number``, which are stored elsewhere."""
        while self._batches and self._batches[0][0] <= number:
            self._backlog -= _size(self._batches.popleft()[1])
        if not self._batches and not self._uncut and self._size > _KEEP_BYTES:
            self._empty()

    def take_over(self, path: Path) -> None:
        """Take what another file has of this run, as one batch more, and delete it."""
        other = RunSpool(self.run, path, lambda: None)
        for _, lines in other._batches:
            self._uncut += lines
            self._unwritten += lines
        self.cut()
        if self._writable:
            other._batches.clear()
        other.close()

    def close(self) -> None:
        """Cut the last batch and close the file; delete it if all is acknowledged."""
        self.cut()
        os.close(self._file)
        if not self._batches:
            self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        """Write the lines that are not in the file yet."""
        if self._unwritten:
            lines, self._unwritten = self._unwritten, []
            self._write(b"\n".join(lines) + b"\n")

    def _write(self, line: bytes) -> None:
        if not self._writable:
            return
        try:
            written = os.write(self._file, line)
        except OSError as error:
            written, reason = 0, str(error)
        else:
            reason = "the disk is full"
        self._size += written
        if written < len(line):
            # A line may be cut in the middle now: nothing may follow it until the file is emptied.
            self._writable = False
            _logger.error(
                "cannot write %s: %s; if this process is killed, events that the controller "
                "does not have yet are lost",
                self.path,
                reason,
            )

    def _empty(self) -> None:
        os.ftruncate(self._file, 0)
        self._size = 0
        self._writable = True
        self._write(_END + b"%d\n" % self.last_batch)

    def _look(self) -> None:
        """See whether the file is still the one that is written, and make it anew if it is not."""
        loop = asyncio.get_running_loop()
        if self._writable:
            try:
                open_one, found = os.fstat(self._file), self.path.stat()
                if os.path.samestat(open_one, found) and found.st_size == self._size:
                    return
                problem = "it was removed, replaced or written to by another program"
            except OSError as error:
                problem = error.strerror or str(error)
            _logger.error("%s: %s; the file is written again", self.path, problem)
        elif loop.time() < self._again_at:
            return
        self._again_at = loop.time() + RETRY
        try:
            self._make_anew()
        except OSError as error:
            if self._writable:
                _logger.error(
                    "%s cannot be rewritten: %s; if this process is killed, events that the "
                    "controller does not have yet are lost",
                    self.path,
                    error.strerror or error,
                )
            self._writable = False

    def _make_anew(self) -> None:
        """Write all that is not acknowledged into a new file, in place of the old one."""
        # Folders of this node alone: one further up that is gone is nothing to make anew.
        self.path.parent.parent.mkdir(exist_ok=True)
        self.path.parent.mkdir(exist_ok=True)
        first = self._batches[0][0] if self._batches else self.last_batch + 1
        parts = [_END + b"%d\n" % (first - 1)] if first > 1 else []
        for number, lines in self._batches:
            parts += [line + b"\n" for line in lines]
            parts.append(_END + b"%d\n" % number)
        parts += [line + b"\n" for line in self._uncut]
        self._unwritten.clear()
        content = b"".join(parts)
        temporary = self.path.with_suffix(".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600)
        try:
            if os.write(file, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            temporary.replace(self.path)
        except BaseException:
            os.close(file)
            temporary.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._size, self._writable = file, len(content), True

    def _recover(self) -> None:
        """Find the batches of an earlier process; what it had not cut becomes one more."""
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            # The process died while it wrote this line.
            os.ftruncate(self._file, complete)
        damaged = 0
        for line in content[:complete].split(b"\n")[:-1]:
            number = _number(line)
            if number is not None and number >= self.last_batch:
                self.last_batch = number
                if self._uncut:
                    self._keep(self._uncut)
                    self._uncut = []
            elif _is_event(line):
                self._uncut.append(line)
            else:
                damaged += 1
        self._size = complete
        if damaged:
            self._keep_damaged(content, damaged)
        self.cut()
        if self._batches:
            _logger.info("run %s: %d batches to send again", self.run, len(self._batches))

    def _keep_damaged(self, content: bytes, lines: int) -> None:
        kept = self.path.with_suffix(".damaged")
        _logger.error(
            "%s is damaged: %d lines cannot be read and are left out; the file is kept as %s",
            self.path,
            lines,
            kept.name,
        )
        try:
            kept.write_bytes(content)
            self._make_anew()
        except OSError as error:
            _logger.error("%s: %s", kept, error.strerror or error)


def _number(line: bytes) -> int | None:
    """Return the number of the batch that ends with this line; None if none does."""
    digits = line[1:]
    return int(digits) if line[:1] == _END and digits.isdigit() and len(digits) < 16 else None


def _size(lines: Iterable[bytes]) -> int:
    return sum(map(len, lines))


def _of(lines: Iterable[bytes], kind: bytes) -> list[bytes]:
    """Return the documents of the lines of one kind."""
    return [line[1:] for line in lines if line[:1] == kind]


def _encode_int(value: int) -> bytes:
    return b"%d" % value


def _encode_failure(failure: tuple[int, str]) -> bytes:
    return json.dumps(failure).encode()


def _failure_of(data: bytes) -> pb.RouterFailure:
    node, reason = json.loads(data)
    return pb.RouterFailure(node=node, reason=reason)


_READ: Final[Mapping[bytes, Callable[[bytes], object]]] = {
    _RECORD: decode_record,
    _DECISION: decode_decision,
    _FAULT: json.loads,
    _REQUEST: lambda data: decode_requests([data]),
    _WINDOW: lambda data: decode_windows([data]),
    _TICK: int,
    _FAILURE: _failure_of,
}
"""What reads the document of a line, by its kind; raises if it is damaged."""


def _is_event(line: bytes) -> bool:
    """Return whether the line is whole and no end of a batch."""
    read = _READ.get(line[:1])
    if read is None:
        return False
    try:
        read(line[1:])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return False
    return True


class Files:
    """The spool files of one process, one per run, in a folder of its own.

    ``reading`` is held by who sends batches: of the listeners of all nodes one gets them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: dict[str, RunSpool] = {}
        self.current: dict[int, RunSpool | None] = {}
        """The run of each node that logs into these files, by a number of its own."""
        self.news = asyncio.Event()
        self.reading = asyncio.Lock()
        self.acknowledged = asyncio.Event()
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.spool")):
            try:
                self._add(unquote(path.stem))
            except OSError as error:
                _logger.error("%s cannot be read and is left as it is: %s", path, error)

    def adopt(self, folder: Path) -> None:
        """Take over what a node has left in its folder when it had a process of its own."""
        for path in sorted(folder.glob("*.spool")):
            run = unquote(path.stem)
            try:
                (self.runs.get(run) or self._add(run)).take_over(path)
            except OSError as error:
                _logger.error("%s cannot be read and is left as it is: %s", path, error)

    def open(self, run: str) -> RunSpool:
        """Return the file of a run, made if need be. Raises: OSError."""
        # The folder may have been removed meanwhile, alone or with those of the other nodes.
        self.folder.parent.mkdir(exist_ok=True)
        self.folder.mkdir(exist_ok=True)
        return self.runs.get(run) or self._add(run)

    @property
    def unacknowledged(self) -> int:
        """Number of batches that the controller has not acknowledged."""
        return sum(spool.unacknowledged for spool in self.runs.values())

    def drop_finished(self) -> None:
        """Delete the files of runs that no node is in and of which all is acknowledged."""
        used = list(self.current.values())
        for run, spool in list(self.runs.items()):
            if spool not in used and not spool.unacknowledged:
                spool.close()
                del self.runs[run]

    def close(self) -> None:
        """Close all files; those with nothing left to send are deleted."""
        for spool in self.runs.values():
            spool.close()
        self.runs.clear()

    def _add(self, run: str) -> RunSpool:
        path = self.folder / f"{quote(run, safe='')}.spool"
        spool = self.runs[run] = RunSpool(run, path, self._tell)
        return spool

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Spool:
    """The log of one node, in the files of its process.

    Without ``files`` it has files of its own in ``folder``; what is in that folder is taken over.
    """

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        if files is None:
            files = Files(folder)
        elif folder != files.folder:
            files.adopt(folder)
        self.files = files
        self._number = max(files.current, default=-1) + 1
        self._current: RunSpool | None = None
        files.current[self._number] = None

    @property
    def reading(self) -> asyncio.Lock:
        """Held by who sends the batches of the process."""
        return self.files.reading

    @property
    def news(self) -> asyncio.Event:
        """Set when there is another batch. Another event from then on, so that who takes it before
        looking for a batch misses none."""
        return self.files.news

    @property
    def unacknowledged(self) -> int:
        """Number of batches of the process that the controller has not acknowledged."""
        return self.files.unacknowledged

    @property
    def backlog(self) -> int:
        """Bytes of the batches that the controller has not acknowledged."""
        return sum(spool.backlog for spool in self.files.runs.values())

    def begin(self, run: str) -> None:
        """From now on what happens belongs to ``run``; files of other runs go when they can.

        Raises: PermanentError: its file cannot be made; then nothing has changed.
        """
        files = self.files
        try:
            self._current = files.current[self._number] = files.open(run)
        except OSError as error:
            raise PermanentError(
                f"the spool {files.folder} cannot be written: {error.strerror or error}; make room "
                "there, or make it writable"
            ) from error
        files.drop_finished()

    def record(self, record: Record) -> None:
        """Log a record."""
        self._append(LogEvent(_RECORD, encode_record, record))

    def decision(self, decision: Decided) -> None:
        """Log a decision."""
        self._append(LogEvent(_DECISION, encode_decision, decision))

    def fault(self, document: bytes) -> None:
        """Log that a fault was applied or released here."""
        self._append(LogEvent(_FAULT, bytes, document))

    def request(self, record: RequestRecord) -> None:
        """Log a request that was answered."""
        self._append(LogEvent(_REQUEST, encode_request, record))

    def window(self, record: WindowRecord) -> None:
        """Log a window that is over."""
        self._append(LogEvent(_WINDOW, encode_window, record))

    def tick(self, lateness: Micros) -> None:
        """Log how late a router was called."""
        self._append(LogEvent(_TICK, _encode_int, lateness))

    def failure(self, node: int, reason: str) -> None:
        """Log why a router failed."""
        self._append(LogEvent(_FAILURE, _encode_failure, (node, reason)))

    def hurry(self) -> None:
        """Cut the next batch soon: nothing is to be expected after what has happened."""
        if self._current is not None:
            self._current.hurry()

    def flush(self, run: str) -> int:
        """Cut a run's batch now; the number of its last batch, 0 if there is none to wait for."""
        spool = self.files.runs.get(run)
        return 0 if spool is None else spool.cut()

    def acknowledge(self, run: str, number: int) -> None:
        """Drop all batches of ``run`` up to ``number``, which the controller has stored."""
        spool = self.files.runs.get(run)
        if spool is not None:
            spool.acknowledge(number)
            if not self.unacknowledged:
                self.files.acknowledged.set()
            self.files.drop_finished()

    def next_batch(self, sent: dict[str, int]) -> pb.EventBatch | None:
        """Return the first unacknowledged batch after those in ``sent`` (last number by run)."""
        for run, spool in self.files.runs.items():
            batch = spool.batch_after(sent.get(run, 0))
            if batch is not None:
                sent[run] = batch.number
                return batch
        return None

    async def drained(self, patience: float) -> bool:
        """Cut the last batch and wait until all is acknowledged; whether it is.

        Waits for at most ``patience`` seconds, for a listener too: a controller that is being
        restarted comes back.
        """
        if self._current is not None:
            self._current.cut()
        files = self.files
        if files.unacknowledged:
            files.acknowledged.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await files.acknowledged.wait()
        return not files.unacknowledged

    def close(self) -> None:
        """Log nothing more; the last of the process closes the files. Idempotent."""
        self._current = None
        self.files.current.pop(self._number, None)
        if not self.files.current:
            self.files.close()

    def _append(self, event: LogEvent) -> None:
        if self._current is None:
            _logger.error("an event outside of any run: %s", event.encode(event.what).decode())
            return
        self._current.append(event)
