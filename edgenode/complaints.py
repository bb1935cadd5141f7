"""Logs what a user's own code does wrong: the same thing once per run, with its traceback."""

from __future__ import annotations

import logging
from typing import Final

_logger: Final = logging.getLogger(__name__)

MOST: Final = 20
"""Different complaints of a run that are logged; every one is counted by its task's record."""


class Complaints:
    """Complaints that were logged in the current run."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def begin(self) -> None:
        """Forget what was logged: another run begins."""
        self._known.clear()

    def add(self, message: str, reason: str, error: BaseException) -> None:
        """Log ``message`` with the traceback of ``error``, unless ``reason`` was logged before."""
        if reason in self._known or len(self._known) >= MOST:
            return
        self._known.add(reason)
        _logger.error("%s; the same is not logged again in this run", message, exc_info=error)
