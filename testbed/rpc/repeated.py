"""Runs and deploys of a command that may be cut off at any time, and is repeated until it is done.

Such a command works in a folder that no other process works in. The labels of its runs end with the
mark of that folder, by which it knows a run that it has left under way.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from testbed.errors import TemporaryError, TestbedError, UsageError
from testbed.model.run_state import RunState
from testbed.rpc.operator import OperatorClient, Progress, RunStatus


def mark_of(folder: Path) -> str:
    """Return the mark of the command that works in ``folder``: eight hexadecimal digits."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]


def start(client: OperatorClient, **order: Any) -> str:
    """Start a run and return its id, as ``OperatorClient.start_run``; stop it if interrupted."""
    run, interruptions = "", list[int]()
    try:
        with _kept_back(interruptions):
            # Cut off here, the controller would start it all the same.
            run = client.start_run(**order)
        return run
    finally:
        if interruptions:
            if run:
                with suppress(TestbedError):
                    client.stop_run(run)
            signal.raise_signal(interruptions[0])


@contextmanager
def _kept_back(interruptions: list[int]) -> Iterator[None]:
    """Enter SIGINT and SIGTERM into ``interruptions``; otherwise they have no effect in the block.

    They interrupt the main thread only, so nothing is done in others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, _: interruptions.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_marked(
    client: OperatorClient, mark: str, label: str, warn: Callable[[str], None], **order: Any
) -> str:
    """Start a run labelled ``LABEL [MARK]``; one of this mark that is under way is stopped before.

    Raises:
        UsageError: as ``OperatorClient.start_run``, also where a run of another mark is under way.
        TemporaryError: a node is not healthy, such as one that is being replaced.
    """
    ending = f" [{mark}]"
    order["label"] = label + ending
    try:
        return _started(client, order)
    except UsageError:
        left = client.status().run
        if left is None or not left.label.endswith(ending):
            raise
        if _under_way(left):
            warn(f"run {left.progress.run} was left under way, so it is stopped")
            client.stop_run(left.progress.run)
    return _started(client, order)


def _started(client: OperatorClient, order: dict[str, Any]) -> str:
    try:
        return start(client, **order)
    except UsageError as error:
        status = client.status()
        if status.healthy or _under_way(status.run):
            raise
        raise TemporaryError(str(error)) from None


def _under_way(run: RunStatus | None) -> bool:
    return run is not None and run.progress.state == RunState.RUNNING


def wait_for_end(
    client: OperatorClient,
    run: str,
    following: Iterable[Progress],
    tell: Callable[[Progress], None],
) -> str:
    """Wait for the end of a run and return what was wrong with it; stop it if interrupted.

    ``following`` yields the progress of ``run`` to its end, and ``tell`` is called with each.
    """
    reason = ""
    try:
        for progress in following:
            tell(progress)
            reason = "; ".join(
                filter(None, dict.fromkeys((progress.reason, *progress.invalid_because)))
            )
    except BaseException:
        with suppress(TestbedError):
            client.stop_run(run)
        raise
    return reason


def deploy_to_all(client: OperatorClient, policy: str) -> None:
    """Deploy ``policy`` (a key) to all nodes, each of which acknowledges.

    Raises:
        UsageError: as ``OperatorClient.deploy_policy``.
        TemporaryError: not every node has it, such as one that is being replaced; then all go on as
            before.
    """
    done = client.deploy_policy(policy)
    if not done.complete:
        said = "; ".join(f"node {each.node}: {each.reason}" for each in done.failures)
        raise TemporaryError(
            f"policy {policy} did not reach all nodes: {said}; see `testbed status`, and "
            "repeat the command, which goes on from here"
        )
