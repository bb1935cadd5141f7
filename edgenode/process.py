"""The process of one or several nodes: its arguments, logs, event loop, signals, and its end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import math
import os
import re
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgenode.host import Host, Transport
from edgenode.node import FAREWELL, EdgeNode
from edgenode.registration import stay_registered
from edgenode.slices import ask_for_short_slices
from edgenode.speaking import LogPerNode, formatter
from edgenode.watch import CodeWatch, watch_tasks
from testbed import logs
from testbed.errors import TestbedError
from testbed.rpc.identity import node_identity
from testbed.rpc.loop import new_event_loop
from testbed.rpc.token import PLAINTEXT, add_access_arguments, find_credentials

if TYPE_CHECKING:
    from testbed.rpc.metrics import MetricsServer

_logger: Final = logging.getLogger("edgenode")

NODE: Final = "{node}"
"""Stands for the index of a node in arguments."""

COLLECT: Final = (2_000, 1_000, 1_000)
"""Thresholds of the garbage collector. It looks at what is new about once in a slot, which takes a
millisecond, and at everything, which takes tens of them, only between episodes (``Host.rest``)."""

T = TypeVar("T")

LEAVE: Final = 0.2
"""Seconds the calls of a stopped server get to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one node, or several, until all have stopped; the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    nodes = _nodes(parser, arguments)
    # Whatever it writes is for its user alone.
    os.umask(0o077)
    ask_for_short_slices()
    who = f"node {arguments.node}" if arguments.nodes is None else "nodes"
    logs.configure(formatter(who), arguments.log_level.upper())
    if arguments.log:
        root = logging.getLogger()
        files = {node: Path(_of(arguments.log, node)) for node in nodes}
        root.handlers[:] = [LogPerNode(files, root.handlers[0])]
    try:
        with (
            CodeWatch() as watch,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            return runner.run(_run(arguments, nodes, watch))
    except (TestbedError, OSError) as error:
        _logger.error("%s", error)
        return error.exit_code if isinstance(error, TestbedError) else 1


async def _run(arguments: argparse.Namespace, nodes: Sequence[int], watch: CodeWatch) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)
    if arguments.insecure_plaintext:
        _logger.warning("%s", PLAINTEXT)
    metrics: MetricsServer | None = None
    host = Host(len(nodes), Transport(arguments.transport))
    members = [_member(arguments, index, watch, host) for index in nodes]
    watch_tasks(watch, loop)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, _stop, members, signal.Signals(number).name)
    if arguments.trunk:
        host.listen(arguments.trunk)
    try:
        await asyncio.gather(*(_as(node, _start(node, arguments)) for node in members))
        if arguments.metrics:
            # Loaded where it is used: it would cost every node memory.
            from edgenode.metrics import serve

            metrics = serve(arguments.metrics, members)
            _logger.info("metrics at %s", metrics.address)
        # What is loaded now stays: a collector that visits it again would hold up timers for
        # milliseconds.
        gc.freeze()
        gc.set_threshold(*COLLECT)
        ends = await asyncio.gather(*(_as(node, _live(node, arguments)) for node in members))
        return max(ends)
    finally:
        if metrics is not None:
            metrics.close()
        host.close()
        for node in members:
            await node.close()
        # gRPC ends the calls of a stopped server a little later; cut short, it prints tracebacks.
        if calls := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(calls, timeout=LEAVE)


def _member(arguments: argparse.Namespace, index: int, watch: CodeWatch, host: Host) -> EdgeNode:
    credentials = arguments.credentials
    me = find_credentials(
        node_identity(index),
        None if credentials is None else Path(_of(str(credentials), index)),
        plaintext=arguments.insecure_plaintext,
    )
    return EdgeNode(index, Path(_of(arguments.spool, index)), me, watch, host)


def _stop(nodes: Sequence[EdgeNode], why: str) -> None:
    for node in nodes:
        node.context.copy().run(node.stop, why)


def _as(node: EdgeNode, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin ``work`` in the context of a node."""
    loop = asyncio.get_running_loop()
    return asyncio.Task(work, loop=loop, context=node.context.copy())


async def _start(node: EdgeNode, arguments: argparse.Namespace) -> None:
    await node.start(
        _of(arguments.bind, node.index),
        arguments.advertise,
        arguments.probes,
        _http(arguments.http, node.index),
    )


async def _live(node: EdgeNode, arguments: argparse.Namespace) -> int:
    """Keep a node registered until it is stopped; its exit code. Others live on."""
    registration = asyncio.create_task(
        stay_registered(node, arguments.controller, arguments.orphan_timeout or None)
    )
    stopped = asyncio.create_task(node.stopped.wait())
    try:
        await asyncio.wait((registration, stopped), return_when=asyncio.FIRST_COMPLETED)
        if registration.done():
            registration.result()  # raises what ended it
        if not node.killed:
            # Still registered: a controller hangs up on a node that beats no more.
            await node.leave(FAREWELL if node.dismissed else arguments.farewell)
        return 0
    except TestbedError as error:
        _logger.error("%s", error)
        return error.exit_code
    finally:
        registration.cancel()
        stopped.cancel()
        await asyncio.gather(registration, stopped, return_exceptions=True)
        await node.close()


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _logger.error("%s", context.get("message"), exc_info=context.get("exception"))


def _index(text: str) -> int:
    """Return the index that ``text`` is, or ends in after a hyphen."""
    found = re.fullmatch(r"(?:.+-)?([0-9]+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an index nor a name like node-3")
    return int(found[1])


def _range(text: str) -> range:
    """Return the indices that ``FIRST-LAST`` names."""
    found = re.fullmatch(r"([0-9]+)-([0-9]+)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST")
    return range(int(found[1]), int(found[2]) + 1)


def _of(text: str, node: int) -> str:
    """Return an argument of all nodes for one of them."""
    return text.replace(NODE, str(node))


def _http(text: str, node: int) -> str:
    """Return where a node takes HTTP requests: ``HOST:FIRST+`` is the port FIRST plus its index."""
    text = _of(text, node)
    if not text.endswith("+"):
        return text
    host, _, first = text[:-1].rpartition(":")
    return f"{host}:{int(first) + node}" if first.isdecimal() else text


def _nodes(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Sequence[int]:
    """Return the nodes of this process; ends it with a message if their arguments are the same."""
    if arguments.nodes is None:
        return (arguments.node,)
    own = ("bind", "spool", "credentials", "log")
    if len(arguments.nodes) > 1:
        for name in own:
            given = getattr(arguments, name)
            port_0 = name == "bind" and str(given).endswith(":0")
            if given and NODE not in str(given) and not port_0:
                parser.error(f"--{name} needs {NODE} in it, for each of several nodes has its own")
    return tuple(arguments.nodes)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgenode", description="Nodes of an emulated edge network: one, or several."
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--node",
        type=_index,
        help="index of this node, from 0, or a name that ends in it: edge-node-3",
    )
    who.add_argument(
        "--nodes",
        type=_range,
        metavar="FIRST-LAST",
        help=f"several nodes in this process; {NODE} in --bind, --spool, --credentials and --log "
        "stands for the index of each",
    )
    parser.add_argument(
        "--controller", required=True, help="where the controller listens: host:port, or unix:/path"
    )
    parser.add_argument("--spool", required=True, help="folder for events not yet stored")
    parser.add_argument(
        "--bind", default="127.0.0.1:0", help="where to listen: host:port, or unix:/path"
    )
    parser.add_argument(
        "--http",
        default="",
        metavar="HOST:PORT",
        help="where to take HTTP requests of users, for scenarios that serve them; HOST:FIRST+: at "
        "the port FIRST plus the index of the node",
    )
    parser.add_argument(
        "--advertise", help="host to name to others, if not those of --bind and --http"
    )
    add_access_arguments(parser, "this node")
    parser.add_argument(
        "--orphan-timeout",
        type=float,
        default=10.0,
        help="seconds without the controller after which the node stops; 0: never",
    )
    parser.add_argument(
        "--farewell",
        type=_seconds,
        default=FAREWELL,
        metavar="SECONDS",
        help="how long a node that is stopped waits for the controller to store what it has logged",
    )
    parser.add_argument(
        "--log", default="", help="file for the log of a node; else it goes to standard error"
    )
    parser.add_argument(
        "--trunk",
        default="",
        metavar="unix:/PATH",
        help="where other processes of this machine connect trunks; without it there are none",
    )
    parser.add_argument(
        "--transport",
        default=Transport.AUTO.value,
        choices=[each.value for each in Transport],
        help="what carries messages between nodes",
    )
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error")
    )
    return parser
