"""``version``: which release this is."""

from __future__ import annotations

from testbed.cli import console
from testbed.version import __version__


def version() -> None:
    """Print the version."""
    console.out(__version__)
