"""Health of an HDFS: finds what would stop an artifact from being stored there."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

import requests
from hdfs import Client, HdfsError

from testbed.errors import PermanentError
from testbed.storage.artifacts.webhdfs import HdfsFolder
from testbed.storage.artifacts.webhdfs_failures import explained

_NO_QUOTA: Final = -1


@dataclass(frozen=True, slots=True)
class HdfsHealth:
    """Result of the examination.

    ``version`` and ``free_bytes`` are None where the server does not tell, as gateways do.
    ``clock_ahead_s`` is how far the NameNode's clock is ahead of this machine's, with an error of
    at most ``clock_error_s``; None where nothing can be written. ``refused`` is the reason;
    None if it can.
    """

    where: str
    version: str | None
    data_nodes: int | None
    free_bytes: int | None
    clock_ahead_s: float | None
    clock_error_s: float
    refused: PermanentError | None


def examine(url: str) -> HdfsHealth:
    """Ask the HDFS of ``url``; what is written for it is gone afterwards.

    Raises: TemporaryError: it does not answer. UsageError, PrerequisiteMissing: the URL.
    """
    place = HdfsFolder.of(url)
    client = place.client()
    what = f"artifact store {place}"
    with explained(what):
        client.status("/")
    info, state = _bean(client, "NameNodeInfo"), _bean(client, "FSNamesystemState")
    ahead, error = None, 0.0
    refused: PermanentError | None = None
    try:
        with explained(what):
            ahead, error = _written(client, place.path)
    except PermanentError as problem:
        refused = problem
    return HdfsHealth(
        where=str(place),
        version=info.get("SoftwareVersion"),
        data_nodes=state.get("NumLiveDataNodes"),
        free_bytes=_free(client, place.path, state.get("CapacityRemaining")),
        clock_ahead_s=ahead,
        clock_error_s=error,
        refused=refused,
    )


def _bean(client: Client, name: str) -> dict[str, Any]:
    """Return a bean of the NameNode that answers; empty if it has none."""
    query = {"qry": f"Hadoop:service=NameNode,name={name}"}
    try:
        answer = client._session.get(f"{client._urls[0]}/jmx", params=query, timeout=5)
        beans = answer.json().get("beans") or [{}]
    except (requests.RequestException, ValueError):
        return {}
    return dict(beans[0])


def _written(client: Client, root: str) -> tuple[float, float]:
    """Write a small file through a DataNode; the NameNode's clock against ours, and its error."""
    above = [root]
    while above[-1] != "/":
        above.append(above[-1].rpartition("/")[0] or "/")
    absent = [each for each in above if client.status(each, strict=False) is None]
    probe = f"{root}/.{secrets.token_hex(8)}"
    client.makedirs(probe)
    try:
        client.write(f"{probe}/bytes", data=b"0" * 1024)
        before = time.time()
        client.makedirs(f"{probe}/now")
        after = time.time()
        at = client.status(f"{probe}/now")["modificationTime"] / 1000
    finally:
        client.delete(probe, recursive=True)
        for each in absent:
            client.delete(each)
    # The server counts whole milliseconds.
    return at - (before + after) / 2, (after - before) / 2 + 0.001


def _free(client: Client, root: str, remaining: int | None) -> int | None:
    """Return the bytes that can still be written: space on the DataNodes, or less by a quota."""
    try:
        summary = client.content(root, strict=False) or {}
    except (HdfsError, requests.RequestException):
        return remaining
    quota = summary.get("spaceQuota", _NO_QUOTA)
    if quota == _NO_QUOTA:
        return remaining
    left = int(quota) - int(summary["spaceConsumed"])
    return left if remaining is None else min(left, remaining)
