"""The web server of the pages."""

from __future__ import annotations

import contextlib
import socket
import threading
import webbrowser
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from testbed.errors import UsageError
from testbed.ui.context import Settings
from testbed.ui.guard import LOOPBACK, TOKEN, Guard
from testbed.ui.pages import PAGES
from testbed.ui.shell import register

RECONNECT_S: Final = 60.0
"""Seconds for which a page may be silent, on a busy machine or a bad network, before it is given
up; then the browser loads it again."""

END_S: Final = 2
"""Seconds that open pages may take to notice the end of the server."""


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    open_browser: bool,
    tell: Callable[[str], None],
) -> None:
    """Serve the pages until Ctrl-C.

    Args:
        settings: What the pages are about.
        host: Address to listen on.
        port: Port to listen on; 0: a free one.
        open_browser: Show the pages in the user's browser.
        tell: Gets each address that admits a browser, the first one when the server listens.

    Raises: UsageError: the address cannot be listened on.
    """
    with _listening(host, port) as listener:
        place = _address(host, listener.getsockname()[1])
        app = FastAPI(openapi_url=None)
        guard = Guard(app, LOOPBACK if is_loopback(host) else (), lambda: tell(address()))

        def address() -> str:
            return f"{place}/?{TOKEN}={guard.token}"

        register(PAGES, settings)
        ui.run_with(
            app,
            title="testbed",
            # Styles are few, and stand in the pages' own sheet.
            tailwind=False,
            show_welcome_message=False,
            reconnect_timeout=RECONNECT_S,
            # Nothing is bound; pages are told what has changed.
            binding_refresh_interval=None,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                guard,
                log_level="warning",
                access_log=False,
                server_header=False,
                # Nothing goes over a network, or over a tunnel that compresses.
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=END_S,
            )
        )
        tell(address())
        if open_browser:
            # A browser that has to be started first may keep its caller waiting.
            threading.Thread(target=webbrowser.open, args=(address(),), daemon=True).start()
        # It ends by Ctrl-C, which is raised again once all is closed.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is this machine's own."""
    if host in LOOPBACK:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # It listens at once, so that whoever gets the address can connect.
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}", fix="choose another --host or --port"
        ) from None


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
