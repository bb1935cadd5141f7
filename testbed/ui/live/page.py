"""The live page."""

from __future__ import annotations

from testbed.ui.context import Context
from testbed.ui.elements import heading


def live(context: Context) -> None:
    """Show the testbed."""
    heading(context.settings.name)
