"""A user's own code that does not come back costs its task, not the node.

The node's one loop calls the scheduler and takes the steps of the application, so code that never
returns would silence the node, and all that could be said of it is that no heartbeat comes. A
thread sees that one call goes on and on, and a signal takes the loop out of it. The thread counts
how often it has looked, not how late it is: where the whole process was stopped, nobody has looked.

Code that runs outside Python without ever looking for signals cannot be left; its node is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import inspect
import signal
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import FrameType, TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from edgenode.applications.seam import Application
from testbed.errors import UsageError
from testbed.model.decision import Ask, Decision, Observation, Refuse, Scheduler
from testbed.model.own_code import defined_at, interrupted, running_at, shown
from testbed.model.task import Task

LOOK_S: Final = 0.5
"""Between two looks at what is being called."""

FIRST: Final = 6
"""Looks that the first slow call gets: what is loaded at first use may take its time. Shorter than
a node may be silent before it is given up."""

LATER: Final = 2
"""Looks that calls get once one was too slow."""

OVERRUNS: Final = 3
"""Calls that did not come back after which a piece of code is not called again."""

SIGNAL: Final = signal.SIGUSR2

MAKING_S: Final = 27.0
"""Seconds for importing and making a scheduler and an application: more than trying a policy may
take, less than the controller waits for a node that is configured."""

P = ParamSpec("P")
T = TypeVar("T")


class NotInTime(BaseException):
    """Taken out of a call. No ``Exception``, so that code that goes on at errors ends too."""


class CodeWatch:
    """Takes the main thread out of calls that go on too long; enter it in that thread.

    One that was not entered lets everything go on.
    """

    def __init__(self, look_s: float = LOOK_S) -> None:
        self.look_s = look_s
        self.calling: OwnCode | None = None
        """Whose call the main thread is in."""
        self.number = 0
        """Number of the present call, or of the last one."""
        self._overdue = 0
        self._end = threading.Event()
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
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
            code, number = self.calling, self.number
            looks = looks + 1 if code is not None and number == seen else 0
            seen = number
            if code is not None and looks >= code.allowed:
                # Counted anew: it is rung for again should it be caught.
                looks = 0
                self._overdue = number
                signal.pthread_kill(self._main, SIGNAL)

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        # The call may have come to its end just now, and another one begun.
        code = self.calling
        if code is not None and self.number == self._overdue:
            raise code.overran(self.number)


class OwnCode:
    """A piece of a user's code whose calls are watched.

    ``what`` says what is wrong with a call that goes on too long; the number of seconds comes after
    it. A call raises ``NotInTime`` then; after several such calls no other is begun.
    """

    def __init__(self, watch: CodeWatch, what: str) -> None:
        self._what = what
        self.allowed = FIRST
        self._watch = watch
        self._overruns = self._last = 0
        self._late: NotInTime | None = None

    def overran(self, number: int) -> NotInTime:
        """Count that call ``number`` went on too long, once; what to raise in it."""
        self._late = NotInTime(f"{self._what} {self.allowed * self._watch.look_s:g} s")
        if number != self._last:
            self._last, self._overruns, self.allowed = number, self._overruns + 1, LATER
        return self._late

    def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call ``function`` in the main thread and return its answer."""
        if self._overruns >= OVERRUNS:
            told = f"not called any more: {self._late}, {OVERRUNS} times"
            # From the last one, whose traceback says where.
            raise NotInTime(told) from self._late
        return self._go_on(function, *arguments, **options)

    def _go_on(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        watch = self._watch
        watch.number += 1
        watch.calling = self
        try:
            return function(*arguments, **options)
        finally:
            # In place, not by a call: a signal is handled on the way into one.
            watch.calling = None

    @types.coroutine
    def stepwise(self, work: Awaitable[T]) -> Generator[Any, Any, T]:
        """Await ``work``, each of its steps from one wait to the next being a call."""
        steps = _awaited(work)
        step: Callable[[Any], Any] = steps.send
        given: Any = None
        while True:
            try:
                waits_for = self._go_on(step, given)
            except StopIteration as end:
                answer: T = end.value
                return answer
            try:
                step, given = steps.send, (yield waits_for)
            except BaseException as error:  # noqa: BLE001 - whatever comes is handed on
                step, given = steps.throw, error


async def _awaited(work: Awaitable[T]) -> T:
    return await work


async def _kept_in(code: OwnCode, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` stepwise; what would leave the event loop fails the task instead."""
    try:
        return await code.stepwise(work)
    except (SystemExit, KeyboardInterrupt) as error:
        if interrupted(error):
            raise
        raise RuntimeError(f"a task raised {type(error).__name__}") from error


def watch_tasks(watch: CodeWatch, loop: asyncio.AbstractEventLoop) -> None:
    """Watch the steps of all tasks that a user's code starts in ``loop``."""

    def start(
        loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[Any]:  # as asyncio calls it
        code = watch.calling
        if code is not None and asyncio.iscoroutine(work):
            work = _kept_in(code, work)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(start)


async def made_in_time(what: str, make: Callable[[], T]) -> T:
    """Return what ``make`` gives, called in a thread so that nothing else waits for it.

    Raises: UsageError: it has not come back within ``MAKING_S``; names where it was.
    """
    loop = asyncio.get_running_loop()
    made: asyncio.Future[T] = loop.create_future()

    def tell(answer: T | None, error: BaseException | None) -> None:
        if made.done():
            return
        if error is None:
            made.set_result(cast("T", answer))
        else:
            made.set_exception(error)

    def call() -> None:
        answer, error = None, None
        try:
            answer = make()
        except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(tell, answer, error)

    # Not one of the event loop's: whoever ends the loop waits for those.
    thread = threading.Thread(target=call, name="making", daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(MAKING_S):
            return await made
    except TimeoutError:
        place = running_at(sys._current_frames().get(thread.ident or 0))
        # So that it takes no processor time any more, if it is Python that runs.
        ident = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(NotInTime))
        at = f", at {place}" if place else ""
        raise UsageError(f"{what} was not made within {MAKING_S:g} s{at}") from None


class BoundedScheduler:
    """``scheduler`` under a watch, whichever hook it serves; ``method`` is the one of its hook.

    Calls of it raise ``NotInTime`` when they go on too long, and at once when several have. All
    else of the scheduler is as it is.
    """

    decide: Callable[[Observation], Decision | Ask | Refuse]
    """Where that is the method of the hook."""

    def __init__(self, scheduler: Scheduler, watch: CodeWatch, method: str = "decide") -> None:
        self._scheduler = scheduler
        asked = getattr(scheduler, method)
        code = OwnCode(watch, f"{method}() had no answer after")

        @functools.wraps(asked)
        def call(observation: Any) -> Any:
            return code.call(asked, observation)

        setattr(self, method, call)

    def __getattr__(self, name: str) -> Any:
        # Only what the watch does not have itself: the phases of a router, for instance.
        return getattr(self._scheduler, name)

    @property
    def name(self) -> str:
        """The name of what is watched, which may change."""
        return self._scheduler.name

    @name.setter
    def name(self, name: str) -> None:
        self._scheduler.name = name


class BoundedApplication:
    """``application`` under a watch: it is awaited, and may not block its node.

    ``execute`` raises ``NotInTime`` when it blocks too long, and at once when it did several times.
    """

    def __init__(self, application: Application, watch: CodeWatch) -> None:
        self._application = application
        self._code = OwnCode(watch, "execute() blocked its node for")
        self._closing = OwnCode(watch, "close() had not returned after")
        self.modelled = application.modelled
        self.needs_payload = application.needs_payload
        self.idle = application.modelled and getattr(application, "idle", False) is True

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        """Execute a task. Raises: TypeError: what is watched answers nothing to wait for."""
        execute = self._application.execute
        work: object = self._code.call(execute, task, payload, duration)
        if not inspect.isawaitable(work):
            raise TypeError(
                f"execute() returned {shown(work)}; it has to be async{defined_at(execute)}"
            )
        await self._code.stepwise(work)

    def close(self) -> None:
        """Close what is watched."""
        self._closing.call(self._application.close)
