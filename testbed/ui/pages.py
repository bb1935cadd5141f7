"""The table of all pages, in the order of their links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from testbed.ui.context import Page
from testbed.ui.live.page import live

PAGES: Final[Sequence[Page]] = (Page("/", "Live", live),)
