"""Lines for people who wait: progress, and warnings.

Both go to stderr unless ``use`` has set other functions, as the command line does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _warning(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")


_said: dict[str, Say] = {"note": _progress, "warn": _warning}


def use(*, note: Say, warn: Say) -> None:
    """Send progress to ``note`` and warnings to ``warn`` from now on."""
    _said.update(note=note, warn=warn)


def note(text: str) -> None:
    """Report one line of progress."""
    _said["note"](text)


def warn(text: str) -> None:
    """Report one line that the user has to see."""
    _said["warn"](text)
