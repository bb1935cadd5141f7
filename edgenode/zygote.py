"""Many nodes from one start of the interpreter: ``python -m edgenode.zygote``.

A node needs the same modules as all others, and loading them is most of the work of its start. The
zygote loads them once, waits until it is told where the nodes find their controller, forks one
process for each node and ends. Nodes share the memory that was loaded before they came apart. For
everybody else each of them is a process as if it had been started alone: in a session of its own,
with its own log, and with its own name and arguments in the process table.

Nothing of gRPC runs before the nodes come apart: its threads and descriptors do not survive a fork.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

import edgenode.process
from testbed.environment import PROCESS_NAME

ORDER_LIMIT: Final = 65536
"""Largest order, in bytes."""

_ALIVE: Final = 3
"""Descriptor that a node keeps open as long as it lives."""


def main() -> int:
    """Make the nodes that are ordered; the exit code of the zygote, or of a node.

    Standard input is a socket that keeps messages apart (SOCK_SEQPACKET). An order is one message,
    JSON with ``name``, ``arguments`` and ``log`` of a node, and a descriptor that the node keeps
    open as long as it lives; the answer is the id of its process, in decimals. When the other end
    is closed the zygote ends.
    """
    # Read when NumPy is first imported; see ``edgenode.__main__``.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    orders = socket.socket(fileno=sys.stdin.fileno())
    # What is loaded stays, and is shared as long as no collector writes into it.
    gc.collect()
    gc.freeze()
    while True:
        message, (*alive,), _, _ = socket.recv_fds(orders, ORDER_LIMIT, 1)
        if not message:
            return 0
        node = json.loads(message)
        pid = os.fork()
        if pid == 0:
            orders.detach()
            _become(node, alive[0])
            return edgenode.process.main(node["arguments"])
        os.close(alive[0])
        orders.send(str(pid).encode())


def _become(node: dict[str, Any], alive: int) -> None:
    """Turn a fork of the zygote into a process as if it had been started for ``node`` alone."""
    os.setsid()
    log = os.open(node["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2), (alive, _ALIVE)):
        os.dup2(source, target)
    for descriptor in {nothing, log, alive} - {_ALIVE}:
        os.close(descriptor)
    os.environ[PROCESS_NAME] = node["name"]
    _show(node["name"], [sys.executable, "-m", "edgenode", *node["arguments"]])


def _show(name: str, arguments: list[str]) -> None:
    """Write the name and the arguments of this process where the system shows them.

    They stand in the memory of the process, in the place that was given to it when it was started:
    proc(5), ``arg_start`` to ``env_end`` of /proc/PID/stat. The zygote was started with enough of
    it. Where the system has no such place, the nodes keep what the zygote was started with.
    """
    try:
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        begin, end, environment, environment_end = (int(field) for field in fields[45:49])
    except (OSError, ValueError):
        return
    if not 0 < begin < end <= environment < environment_end:
        return
    shown = b"\0".join(os.fsencode(argument) for argument in arguments)
    ctypes.memmove(begin, shown[: end - begin - 1].ljust(end - begin, b"\0"), end - begin)
    entries = ctypes.string_at(environment, environment_end - environment)
    variable = f"{PROCESS_NAME}=".encode()
    found = (b"\0" + entries).find(b"\0" + variable)
    room = entries.find(b"\0", found) - found - len(variable)
    value = name.encode() + b"\0"
    if found >= 0 and room >= len(value):
        place = environment + found + len(variable)
        ctypes.memmove(place, value.ljust(room, b"-"), room)


if __name__ == "__main__":
    sys.exit(main())
