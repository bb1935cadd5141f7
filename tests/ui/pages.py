"""``testbed ui`` as a process, and a browser that has been let in."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.cli.conftest import environment, program

PATIENCE_S = 60.0


@dataclass
class Served:
    """A server that runs; ``address`` has a token that nobody has used."""

    process: subprocess.Popen[str]
    address: str

    @property
    def place(self) -> str:
        """The address without the token."""
        return self.address.partition("/?")[0]

    def next_address(self) -> str:
        """Wait for the address that is printed when a token was used."""
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        return self.address

    def interrupt(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def served(home: Path, *arguments: str, **variables: str) -> Iterator[Served]:
    """Run ``testbed ui`` for the block, with more variables of the environment."""
    process = subprocess.Popen(
        program("ui", "--no-browser", *arguments),
        env=environment(home, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, process.stderr.read() if process.stderr else ""
        yield Served(process, address)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def opened(
    browser: Browser, address: str, *, width: int = 1600, height: int = 1000, dark: bool = False
) -> Iterator[Page]:
    """Open an address in a window of its own; fails if the page's scripts have failed."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    try:
        page.goto(address)
        yield page
        assert problems == []
    finally:
        context.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture of the whole page where ``TESTBED_TEST_PICTURES`` names a folder."""
    folder = os.environ.get("TESTBED_TEST_PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
