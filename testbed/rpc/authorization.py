"""The methods each role may call. A method that no table names is refused to everybody.

``Gatekeeper`` stands before all services of a server: it finds out who calls, asks the table, and
lets services ask in turn (``caller``), for what depends on which node it is.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from testbed.rpc.credentials import AUTHORIZATION_KEY, CALLER_KEY, Credentials, PartyCertificate
from testbed.rpc.identity import Identity, Role

_logger: Final = logging.getLogger(__name__)

_PACKAGE: Final = "edge_testbed.v1"

_CONTROLLER: Final = frozenset({Role.CONTROLLER})
_NODE: Final = frozenset({Role.NODE})
_OPERATOR: Final = frozenset({Role.OPERATOR})

ANYBODY: Final = frozenset(Role)
"""Everybody who can connect, known or not. Health says whether a process serves, and no more; on
one machine the socket's folder, between machines the certificate is asked for before."""

ALLOWED: Final[Mapping[str, Mapping[str, frozenset[Role]]]] = {
    f"{_PACKAGE}.Tasks": {"Arrive": _CONTROLLER},
    f"{_PACKAGE}.Peers": {"Exchange": _NODE, "Say": _NODE},
    f"{_PACKAGE}.Control": {
        "Configure": _CONTROLLER,
        "PrepareEpisode": _CONTROLLER,
        "StartEpisode": _CONTROLLER,
        "EndEpisode": _CONTROLLER,
        "SetFaults": _CONTROLLER,
        "SetScheduler": _CONTROLLER,
        "PreparePolicy": _CONTROLLER,
        "CommitPolicy": _CONTROLLER,
        "AbortPolicy": _CONTROLLER,
        "Describe": _CONTROLLER,
        "Events": _CONTROLLER,
        "Shutdown": _CONTROLLER,
    },
    f"{_PACKAGE}.Registry": {"Register": _NODE, "Beat": _NODE},
    f"{_PACKAGE}.Operator": {
        "Status": _OPERATOR,
        "Plan": _OPERATOR,
        "Live": _OPERATOR,
        "StartRun": _OPERATOR,
        "WatchRun": _OPERATOR,
        "StopRun": _OPERATOR,
        "ChangeScheduler": _OPERATOR,
        "DeployPolicy": _OPERATOR,
        "RollBackPolicy": _OPERATOR,
        "InjectFault": _OPERATOR,
        "ClearFaults": _OPERATOR,
        "ListFaults": _OPERATOR,
        "Shutdown": _OPERATOR,
    },
    "grpc.health.v1.Health": {"Check": ANYBODY, "Watch": ANYBODY},
}
"""By service and method: the roles that may call it."""

COMMANDS: Final = frozenset({f"{_PACKAGE}.Control", f"{_PACKAGE}.Tasks"})
"""Services whose calls are commands to a node, each of which counts once and for one registration
(see ``CommandCheck``)."""

COMMAND_KEY: Final = "edge-testbed-command"
"""Metadata key of a command's registration and number, ``SESSION:NUMBER``."""

_caller: ContextVar[Identity] = ContextVar("caller")

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def caller() -> Identity:
    """Return who calls the method that is being served.

    Raises: LookupError: nobody has found out; a service has to be behind a ``Gatekeeper``.
    """
    return _caller.get()


def roles_for(method: str) -> frozenset[Role]:
    """Return who may call ``/package.Service/Method``; nobody if it stands in no table."""
    service, _, name = method.removeprefix("/").partition("/")
    return ALLOWED.get(service, {}).get(name, frozenset())


class CommandCheck:
    """A node's check of each command of its controller: the registration, and a new number.

    The node names a session when it registers, so only the controller that it registered with
    last can stamp a command with it. Numbers may overtake each other, but none comes twice; of
    those more than ``WINDOW`` behind the highest none is taken.
    """

    WINDOW: Final = 4096

    def __init__(self) -> None:
        self.session = ""
        self._highest = 0
        self._seen: set[int] = set()
        self.renew()

    def renew(self) -> str:
        """Begin another session; its name. Commands for the one before are refused from now on."""
        self.session = secrets.token_hex(8)
        self._highest = 0
        self._seen.clear()
        return self.session

    def refusal(self, stamp: str) -> str:
        """Return why a command with this stamp is refused; empty if it is taken and counts."""
        session, _, text = stamp.partition(":")
        if session != self.session:
            return "this command is for an earlier registration of the node, or for none"
        if not text.isdecimal() or len(text) > 15 or not text.isascii():
            return "this command has no number"
        number = int(text)
        if number in self._seen or number <= self._highest - self.WINDOW:
            return f"command {number} has been here already"
        self._seen.add(number)
        if number > self._highest:
            self._highest = number
            if len(self._seen) > 2 * self.WINDOW:
                self._seen = {each for each in self._seen if each > number - self.WINDOW}
        return ""


class CommandStamps:
    """Makes the stamps that ``CommandCheck`` asks for; ``session`` is of the node's registration.

    One for all that is said to a node, so that no number is used twice.
    """

    def __init__(self, session: str = "") -> None:
        self.session = session
        self._numbers = itertools.count(1)

    def __call__(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of the next command."""
        return ((COMMAND_KEY, f"{self.session}:{next(self._numbers)}"),)


class Gatekeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Lets through who may call what, as ``ALLOWED`` says, and refuses everybody else.

    ``me`` are the credentials of the server. ``commands`` is what a node asks of its commands.
    """

    def __init__(self, me: Credentials, commands: CommandCheck | None = None) -> None:
        self._me = me
        self._commands = commands
        self._refused = _Refusals()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Go on with the call, or refuse it."""
        method = handler_call_details.method
        roles = roles_for(method)
        if not roles:
            return self._refuse(
                method, grpc.StatusCode.PERMISSION_DENIED, "this method is open to nobody"
            )
        metadata = dict(handler_call_details.invocation_metadata or ())
        stamp = str(metadata.get(COMMAND_KEY, ""))
        if roles is not ANYBODY and not isinstance(self._me, PartyCertificate):
            who = self._me.identify(
                str(metadata.get(CALLER_KEY, "")), str(metadata.get(AUTHORIZATION_KEY, ""))
            )
            code, why = self._judge(method, stamp, who)
            if code is not None:
                return self._refuse(method, code, why)
            assert who is not None
            # The call is served in the same task, and sees it.
            _caller.set(who)
        # Despite its type it is nothing where the server does not have the service.
        handler: Any = await continuation(handler_call_details)
        if handler is not None and roles is not ANYBODY and isinstance(self._me, PartyCertificate):
            # Who has connected is known to the call only, not here.
            return _guarded(handler, lambda context: self._admit_peer(method, stamp, context))
        return handler  # type: ignore[no-any-return]

    def _judge(
        self, method: str, stamp: str, who: Identity | None
    ) -> tuple[grpc.StatusCode | None, str]:
        """Return why ``who`` may not make this call; no code if they may."""
        if who is None:
            return grpc.StatusCode.UNAUTHENTICATED, "the token of this testbed is needed"
        if who.role not in roles_for(method):
            return grpc.StatusCode.PERMISSION_DENIED, f"{who} may not call {method}"
        service = method.removeprefix("/").partition("/")[0]
        if self._commands is not None and service in COMMANDS:
            refusal = self._commands.refusal(stamp)
            if refusal:
                return grpc.StatusCode.FAILED_PRECONDITION, refusal
        return None, ""

    async def _admit_peer(
        self, method: str, stamp: str, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        assert isinstance(self._me, PartyCertificate)
        who = self._me.identify_peer(context.auth_context())
        code, why = self._judge(method, stamp, who)
        if code is not None:
            self._refused.note(method, why)
            await context.abort(code, why)
        assert who is not None
        _caller.set(who)

    def _refuse(self, method: str, code: grpc.StatusCode, why: str) -> _Handler:
        self._refused.note(method, why)

        async def refuse(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(code, why)

        # This kind reads no request, so it refuses calls of every kind at once.
        handler: _Handler = grpc.stream_stream_rpc_method_handler(refuse)
        return handler


class _Refusals:
    """Says in the log what was refused, in one short line a second at most."""

    def __init__(self) -> None:
        self._next = 0.0
        self._untold = 0

    def note(self, method: str, why: str) -> None:
        now = time.monotonic()
        if now < self._next:
            self._untold += 1
            return
        more = f" (and {self._untold} more since the last such line)" if self._untold else ""
        self._next, self._untold = now + 1.0, 0
        _logger.warning("refused a call of %.100r: %.200s%s", method, why, more)


def _guarded(handler: _Handler, admit: Callable[[Any], Awaitable[None]]) -> _Handler:
    """``handler``, served only after ``admit`` has returned."""
    kind = (
        ("stream" if handler.request_streaming else "unary")
        + "_"
        + ("stream" if handler.response_streaming else "unary")
    )
    inner: Any = getattr(handler, kind)
    serve: Any
    if inspect.isasyncgenfunction(inner):

        async def serve_all(request: Any, context: Any) -> AsyncIterator[Any]:
            await admit(context)
            async with contextlib.aclosing(inner(request, context)) as replies:
                async for reply in replies:
                    yield reply

        serve = serve_all
    else:

        async def serve_one(request: Any, context: Any) -> Any:
            await admit(context)
            return await inner(request, context)

        serve = serve_one
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    guarded: _Handler = make(serve, handler.request_deserializer, handler.response_serializer)
    return guarded
