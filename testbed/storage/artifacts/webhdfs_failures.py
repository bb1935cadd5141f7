"""Errors of HDFS and of the way to it, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
from hdfs import HdfsError
from urllib3.exceptions import HTTPError

from testbed.errors import PermanentError, TemporaryError

_TEMPORARY: Final = frozenset(
    {
        *("RetriableException", "StandbyException", "SafeModeException", "ConnectException"),
        *("NoRouteToHostException", "SocketTimeoutException", "EOFException", "TimeoutException"),
        *("LeaseExpiredException", "AlreadyBeingCreatedException", "RecoveryInProgressException"),
        *("NotReplicatedYetException", "BlockMissingException", "ServerTooBusyException"),
    }
)
_ABSENT: Final = frozenset({"FileNotFoundException", "ParentNotDirectoryException"})
_NOT_UP: Final = ("safe mode", "There are 0 datanode(s) running", "NameNode still not started")
_NO_NODE: Final = "Failed to find datanode"
_NO_SPACE: Final = ("could only be written to 0 of", "could only be replicated to 0", "No space")


@contextmanager
def absent_is_none() -> Iterator[None]:
    """Go on after the block when what it asked for is not there."""
    try:
        yield
    except HdfsError as error:
        if error.exception not in _ABSENT and "is not a directory" not in str(error):
            raise


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what HDFS says into an error of this toolkit.

    Raises: TemporaryError: it did not answer, or not yet. PermanentError: it said no.
    """
    try:
        yield
    except (requests.RequestException, HTTPError) as error:
        # A transfer that breaks off in the middle is the one that requests does not wrap.
        raise TemporaryError(
            f"{what}: HDFS cannot be reached ({_reason(error)})",
            fix="see that NameNode and DataNodes run and that their hosts and ports are right, "
            "then repeat the command",
        ) from error
    except HdfsError as error:
        kind, said = str(error.exception), str(error).partition("\n")[0]
        if kind in _TEMPORARY or any(sign in said for sign in _NOT_UP):
            raise TemporaryError(
                f"{what}: HDFS is not ready ({said})",
                fix="see `hdfs dfsadmin -report` and repeat the command",
            ) from error
        if _NO_NODE in said:
            # What a NameNode says before its DataNodes have come back, too.
            raise TemporaryError(
                f"{what}: no DataNode takes the file: none is running, or all are full",
                fix="see `hdfs dfsadmin -report`, start one or free some space, then repeat the "
                "command",
            ) from error
        if isinstance(error.message, bytes):
            # A page for people: of a NameNode that is starting, or of something else.
            raise TemporaryError(
                f"{what}: the server there does not speak WebHDFS, or not yet",
                fix="see that the address is that of a NameNode's web server, then repeat the "
                "command",
            ) from error
        seen, fix = _advice(kind, said)
        raise PermanentError(f"{what}: {seen}", fix=fix) from error


def _reason(error: Exception) -> str:
    # The library's text holds its own objects; the last of the chain says what happened.
    reason: BaseException = error
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    return str(reason) or type(reason).__name__


def _advice(kind: str, said: str) -> tuple[str, str]:
    """Return what is wrong and what to do; empty if that is unknown."""
    if "QuotaExceeded" in kind:
        return (
            f"the quota of its folder is used up ({said})",
            "remove artifacts, or as administrator raise it: hdfs dfsadmin -setSpaceQuota SIZE "
            "PATH",
        )
    if any(sign in said for sign in _NO_SPACE):
        return (
            "no space is left on the DataNodes",
            "free some (`hdfs dfsadmin -report` shows it) and repeat the command",
        )
    if kind in ("AccessControlException", "SecurityException", "AuthenticationException"):
        return (
            f"access is denied ({said})",
            "name another user in the URL, or as administrator: hdfs dfs -chown USER PATH",
        )
    return said, ""
