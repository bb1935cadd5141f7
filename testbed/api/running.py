"""Runs on a testbed that is up: started, followed and stopped, and their schedulers changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from testbed.api import notices
from testbed.errors import PermanentError, Problem, TemporaryError, TestbedError, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.rpc.operator import Acknowledgement, OperatorClient, Progress
    from testbed.runtime.base import Runtime, Testbed

RECONNECT_S: Final = 120.0
RETRY_S: Final = 1.0


def client_of(testbed: Testbed, *, timeout: float = 10.0) -> OperatorClient:
    """Return a client for the controller of ``testbed``; each call is given ``timeout`` seconds."""
    from testbed.rpc.operator import OperatorClient

    return OperatorClient(
        testbed.address, testbed.token, timeout=timeout, plaintext=testbed.plaintext
    )


def _patience(place: Runtime) -> float:
    """Return for how many seconds the connection may be lost while a run goes on."""
    # On this machine nothing is in between: a controller that does not answer is gone.
    return 0.0 if place.on_this_machine else RECONNECT_S


def follow(client: OperatorClient, run_id: str, place: Runtime) -> Iterator[Progress]:
    """Yield the progress of a run to its end, also when the connection breaks for a while."""
    patience = _patience(place)
    broken: float | None = None
    while True:
        try:
            for progress in client.watch_run(run_id):
                broken = None
                yield progress
        except TemporaryError:
            now = time.monotonic()
            if broken is None:
                broken = now
                if patience:
                    notices.note("the connection is lost; the run goes on, trying again")
            if now - broken >= patience:
                raise
            time.sleep(RETRY_S)
        else:
            return


@contextmanager
def stopped_by_interrupt(client: OperatorClient) -> Iterator[None]:
    """End the run that is begun in the block when Ctrl-C interrupts the block."""
    before = set(client.status().runs)
    try:
        yield
    except KeyboardInterrupt:
        _stop(client, before)
        raise


def _stop(client: OperatorClient, before: set[str]) -> None:
    """End the run that was begun since ``before``, if one was; waits a bounded time."""
    notices.note("stopping the run; what is under way may end, for at most 20 s")
    try:
        current = client.status().run
        if current is None or current.progress.run in before:
            return
        client.stop_run(current.progress.run)
        ended = client.status().run or current
    except TestbedError as error:
        notices.warn(f"the run may still go on: {error}")
    else:
        over = ended.progress
        notices.note(
            f"stopped after {over.completed} of {counted(over.episodes, 'episode')}: run "
            f"{over.run} has stopped; what happened is in the task log"
        )


def complaints(last: Progress) -> Iterator[str]:
    """Yield what was wrong with a run that has ended, a line each."""
    yield from last.absences
    if last.lost and last.state != "failed":
        yield f"{last.lost} {last.work} were lost"
    yield from last.code_failures
    if last.state == "failed":
        # How faithful its beginning was does not matter any more.
        return
    if not last.generated:
        one = last.work.removesuffix("s")
        yield f"no {one} arrived in run {last.run}, so there is nothing to show or compare"
    for reason in last.invalid_because:
        yield f"not faithful: {reason}"
    if last.state in ("degraded", "invalid"):
        yield f"run {last.run} is {last.state}: comparisons warn, and data sets leave it out"
    if last.state == "stopped":
        yield f"run {last.run} was stopped before its end"


def refuse_failed(last: Progress) -> None:
    """Raise PermanentError if the run failed."""
    if last.state == "failed":
        raise PermanentError(f"run {last.run} failed: {last.reason or 'see its log'}")


def set_scheduler(
    testbed: Testbed, scheduler: str, nodes: Sequence[int], options: Mapping[str, Any]
) -> tuple[Acknowledgement, ...]:
    """Change the scheduler of ``nodes`` (none: all), and return what every node answered.

    Raises: UsageError: a node refused; then nothing has changed.
    """
    with client_of(testbed) as client:
        answers = client.change_scheduler(scheduler, nodes=nodes, options=options)
    refusals: dict[str, list[int]] = {}
    for answer in answers:
        if not answer.accepted:
            refusals.setdefault(answer.reason or "refused", []).append(answer.node)
    if refusals:
        raise UsageError(
            "nothing was changed; every node keeps its scheduler",
            [Problem(_numbered(nodes), reason, "") for reason, nodes in refusals.items()],
        )
    return answers


def _numbered(nodes: list[int]) -> str:
    return f"node{'' if len(nodes) == 1 else 's'} {', '.join(map(str, nodes))}"
