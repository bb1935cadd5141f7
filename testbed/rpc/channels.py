"""Makes every server and every channel: nothing else of the toolkit opens a port or a connection,
but for the HTTP front of nodes that serve requests (``edgenode.serving.front``) and the pages for
browsers (``testbed.ui.server``).

So there is no way past the checks: a server has a ``Gatekeeper`` before its services, a channel
shows who it is, and what goes between machines is encrypted with certificates on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeAlias, cast

import grpc
import grpc.aio

from testbed.errors import PermanentError, Problem, UsageError
from testbed.rpc import addresses, tracebacks
from testbed.rpc.addresses import TcpAddress, UnixAddress
from testbed.rpc.authorization import CommandCheck, CommandStamps, Gatekeeper
from testbed.rpc.credentials import Credentials, PartyCertificate, Secrets, server_name
from testbed.rpc.identity import OPERATOR, Identity

_MEBIBYTE: Final = 1024 * 1024

MESSAGE_LIMIT: Final = 64 * _MEBIBYTE
"""Bytes of the largest message that a node takes (the plan of a large network) or a client does (a
batch of events)."""

REQUEST_LIMIT: Final = 4 * _MEBIBYTE
"""Bytes of the largest message that the controller takes: what nodes and operators ask is short."""

PROBES: Final = 32
PROBE_LIMIT: Final = 4096
"""Probes answered at a time, and the bytes of one."""

STREAMS_PER_CONNECTION: Final = 256
"""Calls that one connection may have open at a time."""

KEEPALIVE_S: Final = 30
"""A connection over which nothing comes is asked for an answer this often, and gets as long for it:
a machine that went away leaves nothing open for ever."""

Options: TypeAlias = Sequence[tuple[str, int | str]]

_COMMON_OPTIONS: Final[Options] = (
    # A peer that was restarted has to be found again within a slot or two, not after minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection of its own for each channel: streams of different links must not queue up
    # behind each other's bytes.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy named in the environment is not for traffic between nodes.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
)

CHANNEL_OPTIONS: Final[Options] = (
    *_COMMON_OPTIONS,
    # Despite its name this is how long one attempt to connect may take: one to a pod that is gone
    # is answered by nobody.
    ("grpc.min_reconnect_backoff_ms", 1000),
)
"""Options of channels between processes of a testbed."""

OPERATOR_OPTIONS: Final[Options] = (
    *_COMMON_OPTIONS,
    ("grpc.min_reconnect_backoff_ms", 10_000),
)
"""Options of channels of people, who may be far away: through an API server, a connection takes
several round trips."""


def new_server(
    me: Credentials,
    *,
    calls: int,
    message_limit: int = MESSAGE_LIMIT,
    commands: CommandCheck | None = None,
) -> grpc.aio.Server:
    """Return a server without services and ports, which lets through what ``authorization`` allows.

    ``calls`` is how many calls it serves at a time; more are refused with RESOURCE_EXHAUSTED.
    """
    tracebacks.bound()
    options: Options = (
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", message_limit),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        # No token or name is longer than this by far.
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 32 * 1024),
        ("grpc.keepalive_time_ms", 1000 * KEEPALIVE_S),
        ("grpc.keepalive_timeout_ms", 1000 * KEEPALIVE_S),
        # Two servers on one port would share its connections between them instead of failing.
        ("grpc.so_reuseport", 0),
    )
    return grpc.aio.server(
        options=options,
        interceptors=[Gatekeeper(me, commands)],
        maximum_concurrent_rpcs=calls,
    )


def listen(server: grpc.aio.Server, bind: str, me: Credentials) -> addresses.Address:
    """Make ``server`` listen at ``bind``; return where, with the port that the system chose.

    Raises: UsageError: ``bind`` is no address, or nothing would be encrypted there.
    PrerequisiteMissing: the folder of the socket is
    open to others. PermanentError: the address cannot be used.
    """
    address = addresses.parse(bind)
    if isinstance(address, UnixAddress):
        addresses.check_private(address.path.parent)
        addresses.free(address)
        _add(server.add_insecure_port, address)
        address.path.chmod(0o600)
        return address
    if isinstance(me, PartyCertificate):
        tls = grpc.ssl_server_credentials(
            [(me.key.encode(), me.certificate.encode())],
            root_certificates=me.authority.encode(),
            require_client_auth=True,
        )
        return TcpAddress(address.host, _add(lambda at: server.add_secure_port(at, tls), address))
    _check_plaintext(me, bind)
    return TcpAddress(address.host, _add(server.add_insecure_port, address))


def _add(add: Callable[[str], int], address: addresses.Address) -> int:
    try:
        return add(str(address))
    except RuntimeError as error:
        raise PermanentError(f"cannot listen on {address}: {error}") from None


def connect(
    address: str,
    me: Credentials,
    server: Identity,
    *,
    options: Options = CHANNEL_OPTIONS,
    stamps: CommandStamps | None = None,
) -> grpc.aio.Channel:
    """Return a channel of ``me`` to ``server``, which is at ``address``; use it as any other.

    ``stamps`` are put on every call, one each: see ``authorization.CommandCheck``.

    Raises: UsageError: this is no address.
    """
    certificate = _certificate(address, me)
    if certificate is not None:
        tls, named = _tls(certificate, server)
        channel = grpc.aio.secure_channel(address, tls, options=(*options, named))
    else:
        channel = grpc.aio.insecure_channel(address, options=options)
    return cast(grpc.aio.Channel, _Bearing(channel, me, server, stamps))


def connect_blocking(
    address: str, me: Credentials, server: Identity, *, options: Options = OPERATOR_OPTIONS
) -> grpc.Channel:
    """Return a channel as ``connect`` does, for programs without an event loop."""
    certificate = _certificate(address, me)
    if certificate is not None:
        tls, named = _tls(certificate, server)
        channel = grpc.secure_channel(address, tls, options=(*options, named))
    else:
        channel = grpc.insecure_channel(address, options=options)
    return cast(grpc.Channel, _Bearing(channel, me, server, None))


def listen_for_probes(health: Callable[[grpc.aio.Server], None], bind: str) -> grpc.aio.Server:
    """Return a server of its own for the health service, which ``health`` adds; open to anybody.

    For probes that show no certificate, as Kubernetes' do. It has to be started and stopped.

    Raises: UsageError, PermanentError: as ``listen``.
    """
    address = addresses.parse(bind)
    server = new_server(Secrets(OPERATOR), calls=PROBES, message_limit=PROBE_LIMIT)
    health(server)
    _add(server.add_insecure_port, address)
    return server


def connect_unknown(address: str) -> grpc.Channel:
    """Return a channel that shows nothing, for what is open to anybody: the health service."""
    addresses.parse(address)
    return grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])


def _certificate(address: str, me: Credentials) -> PartyCertificate | None:
    """Return the encryption of a connection to ``address``; None on one machine or if off."""
    if isinstance(addresses.parse(address), UnixAddress):
        return None
    if isinstance(me, PartyCertificate):
        return me
    _check_plaintext(me, address)
    return None


def _check_plaintext(me: Credentials, address: str) -> None:
    """Return if ``me`` may go over a network as it is.

    Raises: UsageError: others could read it on the way.
    """
    if not isinstance(me, Secrets) or not me.shared:
        raise UsageError(
            "nothing would be encrypted",
            [
                Problem(
                    "address",
                    address,
                    "between machines: credentials with a certificate (`testbed credentials`), or "
                    "--insecure-plaintext with a token; on one machine: unix:/path",
                )
            ],
        )


def _tls(me: PartyCertificate, server: Identity) -> tuple[grpc.ChannelCredentials, tuple[str, str]]:
    # Pods come and go under other addresses: the certificate has to name the party.
    return (
        grpc.ssl_channel_credentials(
            me.authority.encode(), me.key.encode(), me.certificate.encode()
        ),
        ("grpc.ssl_target_name_override", server_name(me.testbed, server)),
    )


class _Method:
    """A method of a stub that shows who calls it."""

    def __init__(
        self, method: Any, mine: Sequence[tuple[str, str]], stamps: CommandStamps | None
    ) -> None:
        self._method = method
        self._mine = mine
        self._stamps = stamps

    def __call__(self, *arguments: Any, metadata: Any = (), **named: Any) -> Any:
        return self._method(*arguments, metadata=self._all(metadata), **named)

    def future(self, *arguments: Any, metadata: Any = (), **named: Any) -> Any:
        return self._method.future(*arguments, metadata=self._all(metadata), **named)

    def _all(self, metadata: Any) -> tuple[Any, ...]:
        stamp = () if self._stamps is None else self._stamps()
        return (*(metadata or ()), *self._mine, *stamp)


class _Bearing:
    """A channel that adds to every call who makes it, and otherwise is the one it wraps.

    Not an interceptor: of these, gRPC wraps whole calls, which costs time for every message.
    """

    def __init__(
        self, channel: Any, me: Credentials, server: Identity, stamps: CommandStamps | None
    ) -> None:
        self._channel = channel
        self._mine = () if isinstance(me, PartyCertificate) else me.metadata(server)
        self._stamps = stamps

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._bearing(self._channel.unary_unary(*arguments, **named))

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._bearing(self._channel.unary_stream(*arguments, **named))

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._bearing(self._channel.stream_unary(*arguments, **named))

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._bearing(self._channel.stream_stream(*arguments, **named))

    def _bearing(self, method: Any) -> Any:
        if not self._mine and self._stamps is None:
            return method
        return _Method(method, self._mine, self._stamps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def __enter__(self) -> Self:
        self._channel.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._channel.__exit__(*error)

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._channel.__aexit__(*error)
