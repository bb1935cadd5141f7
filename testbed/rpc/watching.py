"""Runs that are waited for to their end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from testbed.errors import TestbedError
from testbed.rpc.operator import OperatorClient, Progress


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
