"""Calls a user's own router in a thread, so that requests go on meanwhile.

One that goes on too long is taken for one that raised, and its thread gets an exception; one that
did so several times is not called again. Routers of this package answer in microseconds and are
called where they are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Final, cast

from edgenode.watch import FIRST, LATER, LOOK_S, OVERRUNS, NotInTime
from testbed.model.serving import route
from testbed.model.serving.network import ServingNetwork
from testbed.model.serving.route import RouteObservation, Router, Routing

_OURS: Final = "testbed.schedulers."

Answered = Callable[[RouteObservation, object, BaseException | None], None]
"""Called in the event loop with an observation and the answer to it, or with what was raised."""


def _nobody(_seen: RouteObservation, _answer: object, _error: BaseException | None) -> None:
    """Ignore an answer to an episode that is over."""


class CalledElsewhere:
    """``router`` of node ``node`` as the model sees it: answers ``LATER``, and ``answered`` then.

    ``look_s`` is the unit of its time limits, that of ``edgenode.watch``.
    """

    def __init__(
        self, router: Router, node: int, network: ServingNetwork, look_s: float = LOOK_S
    ) -> None:
        self._router = router
        self._node = node
        self._network = network
        self._look_s = look_s
        self._loop = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None
        self._asked: RouteObservation | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._runs = False
        self._allowed = FIRST
        self._overruns = 0
        self.answered: Answered = _nobody

    @property
    def name(self) -> str:
        """The name of the router, which may change."""
        return self._router.name

    @property
    def phases(self) -> tuple[float, ...]:
        """The phases of the router."""
        return self._router.phases

    def route(self, observation: RouteObservation) -> Routing:
        """Ask the router. Raises: NotInTime: it has not come back, or did so too often."""
        if self._overruns >= OVERRUNS:
            raise NotInTime(f"not called any more: route() had no answer in time, {OVERRUNS} times")
        if self._thread is not None and self._thread.is_alive() and self._runs:
            raise NotInTime("route() has not come back from an earlier call")
        context = copy_context()
        # A daemon: a router that never comes back must not keep the process.
        self._thread = threading.Thread(
            target=lambda: context.run(self._work, observation), name="router", daemon=True
        )
        self._runs = True
        self._asked = observation
        self._overdue = self._loop.call_later(self._allowed * self._look_s, self._give_up)
        self._thread.start()
        return route.LATER

    def detach(self) -> None:
        """Report to nobody any more; a call that goes on too long is ended all the same."""
        self.answered = _nobody

    def _work(self, observation: RouteObservation) -> None:
        answer: object = None
        error: BaseException | None = None
        try:
            # Here as well: looking at what it answered may call code of other people.
            answer = self._router.route(observation)
            if isinstance(answer, Routing):
                answer = self._plain(answer)
        except BaseException as raised:  # noqa: BLE001 - whoever asked gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._came_back, observation, answer, error)

    def _plain(self, answer: Routing) -> Routing:
        try:
            return route.checked(answer, self._node, self._network)
        except ValueError:
            # The model says what is wrong with it.
            return answer

    def _came_back(
        self, observation: RouteObservation, answer: object, error: BaseException | None
    ) -> None:
        self._runs = False
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if self._asked is observation:
            self._asked = None
            self.answered(observation, answer, error)

    def _give_up(self) -> None:
        self._overdue = None
        asked, self._asked = self._asked, None
        if asked is None or self._thread is None:
            return
        seconds = self._allowed * self._look_s
        self._overruns, self._allowed = self._overruns + 1, LATER
        ident = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(NotInTime))
        self.answered(asked, None, NotInTime(f"route() had no answer after {seconds:g} s"))


def called_safely(router: Router, node: int, network: ServingNetwork) -> Router:
    """Return a router as the model of a node calls it: a user's own is called in a thread."""
    if type(router).__module__.startswith(_OURS):
        return router
    return cast("Router", CalledElsewhere(router, node, network))
