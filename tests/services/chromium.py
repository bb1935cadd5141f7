"""A real browser, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, sync_playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


def lacking() -> str | None:
    """What to install so that ``browser`` works here; None if nothing."""
    return None if _path() else "install chromium"


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window, which the block may open pages in."""
    path = _path()
    assert path is not None
    # Its own sandbox cannot be had by root.
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path,
            headless=True,
            args=[*arguments, "--disable-gpu", "--disable-dev-shm-usage"],
        )
        try:
            yield found
        finally:
            found.close()


def _path() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)
