"""Calls every method of every service with inputs nobody would send, as several identities."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from testbed.rpc.channels import connect
from testbed.rpc.credentials import Credentials, Secrets
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import Identity
from tests.fuzz.messages import Messages

CALL_S: Final = 5.0
STREAM_S: Final = 1.0
"""Most seconds that a call may take: some are answered only when a run is over."""

AT_ONCE: Final = 8
"""Calls at a time."""

PER_STREAM: Final = 25
READABLE: Final = 0.8
"""Share of the streams in which every message can be read."""

WRONG: Final = 0.15
"""Share of the inputs that come from somebody who may not call."""

SERVED: Final = {
    grpc.StatusCode.OK,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.DATA_LOSS,
}
"""Answers of a service. Beside a refusal, a call that still writes may see a broken stream."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method by its path, the name of its input's type, and which ends of it are streams."""

    path: str
    kind: str
    sends_many: bool
    answers_many: bool


def methods(service: str, *, without: Sequence[str] = ()) -> list[Method]:
    """The methods of a service of the protocol."""
    described = pb.DESCRIPTOR.services_by_name[service]
    return [
        Method(
            f"/{described.full_name}/{each.name}",
            each.input_type.name,
            each.client_streaming,
            each.server_streaming,
        )
        for each in described.methods
        if each.name not in without
    ]


@dataclass(slots=True)
class Found:
    """What came of it: inputs sent, answers by status, and what must not have been let in."""

    inputs: int
    statuses: Counter[str]
    let_in: list[str]


class Fuzzer:
    """Sends inputs to the service at ``address`` as ``me``, and as those ``others`` who may not."""

    def __init__(
        self,
        address: str,
        server: Identity,
        me: Credentials,
        others: Sequence[Credentials],
        messages: Messages,
        stamps: Any = None,
    ) -> None:
        self._messages = messages
        self._right = connect(address, me, server, stamps=stamps)
        self._wrong = [connect(address, each, server) for each in others]
        self.found = Found(0, Counter(), [])

    async def send(self, methods: Sequence[Method], inputs: int) -> Found:
        """Send so many inputs, spread over the methods."""
        turn = asyncio.Semaphore(AT_ONCE)
        share = inputs // len(methods) + 1
        order = []
        for method in methods:
            batch = PER_STREAM if method.sends_many else 1
            order += [(method, batch)] * (share // batch + 1)
        self._messages.draws.shuffle(order)
        # All drawn before the first is sent: how long a call takes changes no input.
        calls = [(method, *self._drawn(method, batch)) for method, batch in order]

        async def one(method: Method, who: int, given: list[bytes]) -> None:
            async with turn:
                await self._call(method, who, given)

        await asyncio.gather(*(one(*each) for each in calls))
        return self.found

    async def close(self) -> None:
        """Close all connections."""
        for channel in (self._right, *self._wrong):
            await channel.close(None)

    def _drawn(self, method: Method, batch: int) -> tuple[int, list[bytes]]:
        """Who calls (an index into those who may not, -1 for who may) with which inputs."""
        draws = self._messages.draws
        wrong = bool(self._wrong) and draws.random() < WRONG
        # A message that cannot be read ends its stream; what comes behind it is not tried.
        readable = method.sends_many and draws.random() < READABLE
        return draws.randrange(len(self._wrong)) if wrong else -1, [
            self._messages.bytes_of(method.kind, readable=readable) for _ in range(batch)
        ]

    async def _call(self, method: Method, who: int, inputs: list[bytes]) -> None:
        wrong = who >= 0
        channel = self._wrong[who] if wrong else self._right
        self.found.inputs += len(inputs)
        status = await self._status(channel, method, inputs)
        self.found.statuses[f"{method.path.rpartition('/')[2]} {status.name}"] += 1
        if wrong and status in SERVED:
            self.found.let_in.append(f"{method.path}: {status.name}")

    async def _status(
        self, channel: grpc.aio.Channel, method: Method, inputs: list[bytes]
    ) -> grpc.StatusCode:
        shape = f"{'stream' if method.sends_many else 'unary'}_" + (
            "stream" if method.answers_many else "unary"
        )
        make: Callable[..., Any] = getattr(channel, shape)

        async def all_of_them() -> AsyncIterator[bytes]:
            for each in inputs:
                yield each

        given = all_of_them() if method.sends_many else inputs[0]
        limit = STREAM_S if method.answers_many or method.sends_many else CALL_S
        call = make(method.path)(given, timeout=limit)
        try:
            if method.answers_many:
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            pass
        with contextlib.suppress(grpc.aio.AioRpcError):
            return grpc.StatusCode(await call.code())
        return grpc.StatusCode.UNKNOWN


def nobody(server: Identity) -> list[Credentials]:
    """Credentials that are wrong in ways of their own: none, and tokens that are no tokens."""
    strange = ("", "x", "x" * 3000, "Bearer", "%00")
    made: list[Credentials] = [Secrets(Identity.parse("node-0"))]
    made += [
        Secrets(Identity.parse(who), tokens={str(server): token})
        for token in strange
        for who in ("operator", "controller", "node-0", "node-99")
    ]
    return made
