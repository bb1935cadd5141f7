"""A scheduler that does not answer costs its task, not the node.

The node's one loop calls the scheduler, so a ``decide`` that never returns would silence the node,
and all that could be said of it is that no heartbeat comes. A thread sees that one decision goes on
and on, and a signal takes the loop out of it. The thread counts how often it has looked, not how
late it is: where the whole process was stopped, nobody has looked.

Code that runs outside Python without ever looking for signals cannot be left; its node is silent.
"""

from __future__ import annotations

import functools
import signal
import threading
from types import FrameType, TracebackType
from typing import Final, Self

from testbed.model.decision import Ask, Decision, Observation, Scheduler

LOOK_S: Final = 0.5
"""Between two looks at what is being decided."""

FIRST: Final = 6
"""Looks that the first slow decision gets: what is loaded at first use may take its time. Shorter
than a node may be silent before it is given up."""

LATER: Final = 2
"""Looks that decisions get once one was too slow."""

OVERRUNS: Final = 3
"""Decisions without an answer after which a scheduler is not asked again."""

SIGNAL: Final = signal.SIGUSR2


class NotInTime(BaseException):
    """Taken out of a decision. No ``Exception``, so that code that goes on at errors ends too."""


class DecisionWatch:
    """Takes the main thread out of decisions that go on too long; enter it in that thread."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self.look_s = look_s
        self.allowed = FIRST
        self.deciding = False
        self.number = 0
        self._overdue = 0
        self._end = threading.Event()
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._look, name="decisions", daemon=True)
        self._before: object = None

    def __enter__(self) -> Self:
        self._before = signal.signal(SIGNAL, self._ring)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        signal.signal(SIGNAL, self._before)  # type: ignore[arg-type]

    def _look(self) -> None:
        seen = looks = 0
        while not self._end.wait(self.look_s):
            number = self.number if self.deciding else 0
            looks = looks + 1 if number and number == seen else 0
            seen = number
            if looks >= self.allowed:
                # Counted anew: it is rung for again should it be caught.
                looks = 0
                self._overdue = number
                signal.pthread_kill(self._main, SIGNAL)

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        # The decision may have come to its end just now, and another one begun.
        if self.deciding and self.number == self._overdue:
            raise NotInTime(f"decide() had no answer after {self.allowed * self.look_s:g} s")


class Bounded:
    """``scheduler`` under a watch.

    Its decisions raise ``NotInTime`` when they go on too long, and at once when several have.
    """

    def __init__(self, scheduler: Scheduler, watch: DecisionWatch) -> None:
        self._scheduler = scheduler
        watch.allowed = FIRST
        overruns = 0

        @functools.wraps(scheduler.decide)
        def decide(observation: Observation) -> Decision | Ask:
            nonlocal overruns
            if overruns >= OVERRUNS:
                raise NotInTime(f"not asked any more: decide() had no answer {OVERRUNS} times")
            watch.number += 1
            watch.deciding = True
            try:
                return scheduler.decide(observation)
            except NotInTime:
                overruns += 1
                watch.allowed = LATER
                raise
            finally:
                # In place, not by a call: a signal is handled on the way into one.
                watch.deciding = False

        self.decide = decide

    @property
    def name(self) -> str:
        """The name of what is watched, which may change."""
        return self._scheduler.name

    @name.setter
    def name(self, name: str) -> None:
        self._scheduler.name = name
