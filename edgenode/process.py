"""One edge node as a process: its arguments, its log, its event loop, its signals, its end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import math
import os
import re
import selectors
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edgenode.node import FAREWELL, EdgeNode
from edgenode.registration import stay_registered
from edgenode.watch import CodeWatch, watch_tasks
from testbed import logs
from testbed.errors import TestbedError
from testbed.rpc.identity import node_identity
from testbed.rpc.token import PLAINTEXT, add_access_arguments, find_credentials

_logger: Final = logging.getLogger("edgenode")

LEAVE: Final = 0.2
"""Seconds the calls of a stopped server get to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node until it is stopped; its exit code."""
    arguments = _parser().parse_args(argv)
    # Whatever it writes is for its user alone.
    os.umask(0o077)
    logs.configure(
        logging.Formatter(
            f"%(asctime)s %(levelname)-7s node {arguments.node} %(name)s: %(message)s"
        ),
        arguments.log_level.upper(),
    )
    try:
        with (
            CodeWatch() as watch,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            return runner.run(_run(arguments, watch))
    except (TestbedError, OSError) as error:
        _logger.error("%s", error)
        return error.exit_code if isinstance(error, TestbedError) else 1


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers ring within a fraction of a millisecond.

    The default selector rounds timeouts up to whole milliseconds; ``select`` does not, and the few
    descriptors that asyncio itself watches here (gRPC watches its own) are well within its limit.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _run(arguments: argparse.Namespace, watch: CodeWatch) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)
    me = find_credentials(
        node_identity(arguments.node), arguments.credentials, plaintext=arguments.insecure_plaintext
    )
    if arguments.insecure_plaintext:
        _logger.warning("%s", PLAINTEXT)
    node = EdgeNode(arguments.node, Path(arguments.spool), me, watch)
    watch_tasks(watch, loop)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, node.stop, signal.Signals(number).name)
    await node.start(arguments.bind, arguments.advertise, arguments.probes)
    # What is loaded now stays: a collector that visits it again would hold up timers for
    # milliseconds.
    gc.freeze()
    registration = asyncio.create_task(
        stay_registered(node, arguments.controller, arguments.orphan_timeout or None)
    )
    stopped = asyncio.create_task(node.stopped.wait())
    try:
        await asyncio.wait((registration, stopped), return_when=asyncio.FIRST_COMPLETED)
        if registration.done():
            registration.result()  # raises what ended it
        # Still registered: a controller hangs up on a node that beats no more.
        await node.leave(FAREWELL if node.dismissed else arguments.farewell)
        return 0
    finally:
        registration.cancel()
        stopped.cancel()
        await asyncio.gather(registration, stopped, return_exceptions=True)
        await node.close()
        # gRPC ends the calls of a stopped server a little later; cut short, it prints tracebacks.
        if calls := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(calls, timeout=LEAVE)


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _logger.error("%s", context.get("message"), exc_info=context.get("exception"))


def _index(text: str) -> int:
    """Return the index that ``text`` is, or ends in after a hyphen."""
    found = re.fullmatch(r"(?:.+-)?([0-9]+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an index nor a name like node-3")
    return int(found[1])


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgenode", description="One node of an emulated edge network."
    )
    parser.add_argument(
        "--node",
        type=_index,
        required=True,
        help="index of this node, from 0, or a name that ends in it: edge-node-3",
    )
    parser.add_argument(
        "--controller", required=True, help="where the controller listens: host:port, or unix:/path"
    )
    parser.add_argument("--spool", required=True, help="folder for events not yet stored")
    parser.add_argument(
        "--bind", default="127.0.0.1:0", help="where to listen: host:port, or unix:/path"
    )
    parser.add_argument("--advertise", help="host to name to others, if not that of --bind")
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
        "--log-level", default="info", choices=("debug", "info", "warning", "error")
    )
    return parser
