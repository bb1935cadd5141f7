"""Running ``docker`` and ``kind``: bounded in time, and never left behind.

They run in a session of their own, so Ctrl-C reaches this process alone, which then ends them with
all they have started.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from testbed.errors import PermanentError, PrerequisiteMissing, TemporaryError

DOCKER_FIX: Final = (
    "install Docker Engine (docker.io or docker-ce) or Docker Desktop; docs/kind.md says how"
)
OLDEST_KIND: Final = (0, 27)
"""Before, kind cannot load images into nodes with containerd 2 (kubernetes-sigs/kind#3853)."""
PINNED_KIND: Final = (0, 33)
"""The kind that the default node image was made for."""

KIND_FIX: Final = (
    f"install kind {PINNED_KIND[0]}.{PINNED_KIND[1]} or newer, for example "
    f"go install sigs.k8s.io/kind@v{PINNED_KIND[0]}.{PINNED_KIND[1]}.0 or brew install kind; "
    "docs/kind.md says how"
)
_FIXES: Final = {"docker": DOCKER_FIX, "kind": KIND_FIX}

END_S: Final = 5.0
"""Time that a program gets to end when asked to, before it is killed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a program; ``said`` is its last output, for messages."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def run(*argv: str, timeout: float, stdin: str | None = None) -> Ran:
    """Run to the end, whatever the exit code.

    Raises:
        PrerequisiteMissing: the program is not installed.
        TemporaryError: it took longer than ``timeout`` seconds.
    """
    with _start(argv, stdin is not None, separate=True) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise _late(argv, timeout) from None
        except BaseException:
            _end(process)
            raise
    return Ran(process.returncode, stdout, stderr)


def stream(
    *argv: str,
    timeout: float,
    heard: Callable[[str], None],
    started: Callable[[int], None] = lambda pid: None,
    inherited: Sequence[int] = (),
) -> int:
    """Run to the end, telling ``heard`` every line at once; the exit code.

    ``started`` gets the process id. The descriptors ``inherited`` stay open in the program.

    Raises: as ``run``.
    """
    until = time.monotonic() + timeout
    with _start(argv, False, separate=False, inherited=inherited) as process:
        try:
            started(process.pid)
            assert process.stdout is not None
            output = process.stdout.fileno()
            rest = b""
            with selectors.DefaultSelector() as selector:
                selector.register(output, selectors.EVENT_READ)
                while True:
                    if not selector.select(max(0.0, until - time.monotonic())):
                        raise _late(argv, timeout)
                    piece = os.read(output, 65536)
                    if not piece:
                        break
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        heard(line.decode(errors="replace").rstrip())
            if rest:
                heard(rest.decode(errors="replace").rstrip())
            try:
                return process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise _late(argv, timeout) from None
        except BaseException:
            _end(process)
            raise


def _start(
    argv: Sequence[str], stdin: bool, *, separate: bool, inherited: Sequence[int] = ()
) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    # Which engine kind uses is not to depend on what else is installed.
    environment["KIND_EXPERIMENTAL_PROVIDER"] = "docker"
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if separate else subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,
            pass_fds=inherited,
        )
    except FileNotFoundError:
        raise PrerequisiteMissing(
            f"{argv[0]} is not installed", _FIXES.get(argv[0], f"install {argv[0]}")
        ) from None
    except PermissionError:
        raise PrerequisiteMissing(
            f"{argv[0]} cannot be executed", _FIXES.get(argv[0], f"install {argv[0]}")
        ) from None
    except OSError as error:
        raise PermanentError(f"{argv[0]} cannot be started: {error}") from error


def _end(process: subprocess.Popen[str]) -> None:
    """End the program and what it has started; returns when it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            break
    # Whatever of its children did not listen.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _late(argv: Sequence[str], timeout: float) -> TemporaryError:
    shown = " ".join(argv[:3])
    return TemporaryError(
        f"`{shown}` has not ended within {timeout:g} s",
        fix="check whether `docker info` answers, and "
        "restart the engine if it does not: sudo systemctl restart docker",
    )
