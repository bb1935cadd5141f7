"""Controllers and nodes as processes of their own, followed by what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TOKEN = "secret"


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m COMMAND`` with the token of all; killed at the end if it still runs."""
    started = subprocess.Popen(
        [sys.executable, "-m", *command, "--insecure-plaintext"],
        env={**os.environ, "TESTBED_PROCESS_TOKEN": TOKEN, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def until_said(process: subprocess.Popen[str], words: str) -> None:
    """Return when a line with these words has come; fail if the process ends before."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"ended without {words!r}: {''.join(said)}")
