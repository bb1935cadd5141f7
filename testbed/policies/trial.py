"""Tries a policy in a process of its own before a process of the testbed loads it.

A graph may take all memory or time there is, or end the process that loads it. So each is loaded
and run once in a separate process, with bounds on processor time, memory and time. The verdict is
kept per machine and user, by the sha256 of the actor: the nodes of a host and its controller pay
once together. Policies that ship with the package are not tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testbed.errors import PermanentError, Problem, UsageError
from testbed.files import try_lock
from testbed.policies.artifact import SHIPPED_PREFIX, Policy
from testbed.version import __version__

_logger: Final = logging.getLogger(__name__)

CPU_S: Final = 2
"""Processor time for loading and running a graph a few times; a policy needs a few hundredths."""

MEMORY_BYTES: Final = 512 * 1024 * 1024
"""Memory beyond what ONNX Runtime has taken before it sees the graph."""

WALL_S: Final = 25.0
"""Everything together, Python and imports included; below the time a node has to answer."""

WAIT_S: Final = 10.0
"""Of that, the wait for another process that is trying the same policy."""

_RETRY_S: Final = 0.05

LARGEST_ANSWER: Final = 64 * 1024
SOURCE: Final = "actor.onnx"


def tried(policy: Policy) -> None:
    """Return once the policy has been tried well on this machine; may take a second.

    Raises: UsageError: it fails, gives no distribution, or goes beyond its bounds.
    """
    if policy.reference.startswith(SHIPPED_PREFIX):
        return
    try:
        version = importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        # Loading it raises the error.
        return
    card = policy.card
    what = (card.sha256, card.kind, card.encoder, card.nodes, version, __version__, MEMORY_BYTES)
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    began = time.monotonic()
    with _verdict(key) as kept:
        verdict = _read(kept)
        if verdict is None:
            alone = kept is not None and _held_alone(kept, began + WAIT_S, policy)
            # Another process may have come to its verdict meanwhile.
            verdict = _read(kept)
        if verdict is None:
            verdict, lasting = _try(policy, began + WALL_S - time.monotonic())
            if kept is not None and alone and lasting:
                with contextlib.suppress(OSError):
                    os.ftruncate(kept, 0)
                    os.pwrite(kept, json.dumps(verdict).encode(), 0)
    if verdict:
        problems = [Problem(*each) for each in verdict]
        raise UsageError(f"policy {card.id} cannot be used", problems)


def _try(policy: Policy, within_s: float) -> tuple[list[list[str]], bool]:
    """Return the problems found, and whether they will be found again."""
    # Found where this process found it; last, so that what lies beside it hides nothing.
    root = str(Path(__file__).parents[2])
    program = (
        f"import sys; sys.path.append({root!r}); from testbed.policies import trial_process as t"
    )
    command = [sys.executable, "-P", "-c", f"{program}; t.main()"]
    header = json.dumps({"card": policy.card.to_json()}).encode()
    try:
        done = subprocess.run(
            command,
            input=header + b"\n" + policy.actor,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        seen = f"was not loaded and run within {within_s:.0f} s"
        return [[SOURCE, seen, "a smaller graph, or a machine that is less busy"]], False
    except OSError as error:
        raise PermanentError(f"no process can be started to try a policy: {error}") from error
    ended = -done.returncode
    if ended in (signal.SIGXCPU, signal.SIGKILL):
        seen = f"took more than {CPU_S} s of processor time, or was ended from outside"
        return [[SOURCE, seen, f"a graph that runs within {CPU_S} s"]], ended == signal.SIGXCPU
    try:
        answer = json.loads(done.stdout[:LARGEST_ANSWER])
        return [[str(part) for part in each][:3] for each in answer["problems"]], True
    except (ValueError, KeyError, TypeError):
        how = f"by signal {ended}" if ended > 0 else f"with exit code {done.returncode}"
        return [[SOURCE, f"ended the process that loaded it, {how}", "a graph that runs"]], True


@contextmanager
def _verdict(key: str) -> Iterator[int | None]:
    """Give the file that keeps a verdict; None where nothing can be kept."""
    folder = Path(tempfile.gettempdir()) / f"edge-testbed-{os.getuid()}-policies"
    file = None
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if _is_own(folder.lstat()):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(folder / key, flags, 0o600)
    except OSError:
        pass
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def _held_alone(file: int, until: float, policy: Policy) -> bool:
    """Return whether this process is now the only one that keeps a verdict in ``file``.

    Waits for another one until ``until``, which may be stopped or hang: then it is not waited for.
    """
    while True:
        try:
            if try_lock(file):
                return True
        except OSError:
            return False
        if time.monotonic() >= until:
            _logger.warning(
                "policy %s is tried without keeping the verdict: another process has held %s "
                "for %.0f s",
                policy.card.id,
                os.readlink(f"/proc/self/fd/{file}"),
                WAIT_S,
            )
            return False
        time.sleep(_RETRY_S)


def _is_own(found: os.stat_result) -> bool:
    """Return whether only this user owns the folder and may write there."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _read(file: int | None) -> list[list[str]] | None:
    """Return the verdict that was kept; None if there is none."""
    if file is None:
        return None
    try:
        kept = json.loads(os.pread(file, LARGEST_ANSWER, 0))
    except (OSError, ValueError):
        return None
    fine = isinstance(kept, list) and all(isinstance(e, list) and len(e) == 3 for e in kept)
    return kept if fine else None
