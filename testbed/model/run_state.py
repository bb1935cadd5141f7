"""The states of a run, for controller, task log and all who read either."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """State of a run: unfinished, or how it ended and whether it can be trusted."""

    RUNNING = "running"
    """Begun and not ended."""
    COMPLETED = "completed"
    DEGRADED = "degraded"
    """Completed although a node died or tasks were lost."""
    INVALID = "invalid"
    """Completed outside the limits of fidelity; the certificate names them."""
    STOPPED = "stopped"
    """Ended early on request."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Its controller ended without ending it; set by the next controller, never by its own."""
