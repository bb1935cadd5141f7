"""Who may see the pages: whoever opened the address with the token, and nobody else.

The token is for one use: it is exchanged for a cookie that scripts cannot read and that no other
site makes a browser send. A request is answered only if its ``Host`` is a name under which the
pages are served, so that a name of somebody else's that leads to this machine shows nothing, and
only if its ``Origin``, where it has one, is the same place.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that lead to nowhere else."""

TOKEN: Final = "token"
"""Parameter of the address that has the token."""

HEADERS: Final = (
    # NiceGUI compiles its templates in the browser.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        b"connect-src 'self' ws: wss:; frame-ancestors 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # The address may have the token.
    (b"referrer-policy", b"no-referrer"),
)

REFUSED: Final = (
    "403 Forbidden: open the address that `testbed ui` has printed. Each one admits one browser; "
    "the next address is printed when one was used.\n"
)
FOREIGN_HOST: Final = "403 Forbidden: these pages are not served under this name.\n"
FOREIGN_ORIGIN: Final = "403 Forbidden: a page of another site may not ask this one.\n"


class Guard:
    """Lets requests through to ``app`` that show the cookie.

    Args:
        app: The pages.
        names: Host names under which they are served; empty: any.
        admitted: Called when a token was used, after the next one is known.
    """

    def __init__(
        self, app: ASGIApp, names: tuple[str, ...], admitted: Callable[[], None] = lambda: None
    ) -> None:
        self.app = app
        self._names = names
        self._admitted = admitted
        self._session = secrets.token_urlsafe(32)
        # Browsers send a cookie to all ports of a host.
        self._cookie = f"testbed_{secrets.token_hex(4)}"
        self.token = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if self._names and _name(host) not in self._names:
            await _refuse(scope, send, FOREIGN_HOST)
        elif not _same_place(headers.get(b"origin", b"").decode("latin-1"), host):
            await _refuse(scope, send, FOREIGN_ORIGIN)
        elif self._knows(headers.get(b"cookie", b"").decode("latin-1")):
            await self._let_in(scope, receive, send)
        elif scope["type"] == "http" and self._takes(scope):
            await self._exchange(scope, send)
        else:
            await _refuse(scope, send, REFUSED)

    def _knows(self, cookies: str) -> bool:
        """Return whether the cookies of a request show that it may pass."""
        try:
            shown = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return False
        return shown is not None and _equal(shown.value, self._session)

    def _takes(self, scope: Scope) -> bool:
        """Return whether the address of a request has the token."""
        given = dict(_query(scope)).get(TOKEN, "")
        return scope["method"] == "GET" and _equal(given, self.token)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and TOKEN in dict(_query(scope)):
            await _respond(send, 303, "", [(b"location", _without_token(scope))])
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        await self.app(scope, receive, with_headers)

    async def _exchange(self, scope: Scope, send: Send) -> None:
        """Give the cookie for the token, which is then of no use any more."""
        self.token = secrets.token_urlsafe(32)
        cookie = f"{self._cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", _without_token(scope)), (b"set-cookie", cookie.encode())]
        await _respond(send, 303, "", headers)
        self._admitted()


def _equal(given: str, wanted: str) -> bool:
    """Return whether two secrets are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def _name(host: str) -> str:
    """Return the name in a ``Host`` header, without its port and in lower case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_place(origin: str, host: str) -> bool:
    """Return whether a request comes from a page of ``host``, or from no page."""
    return not origin or urlsplit(origin).netloc == host


def _query(scope: Scope) -> list[tuple[str, str]]:
    text = str(scope.get("query_string", b""), "latin-1")
    return parse_qsl(text, keep_blank_values=True)


def _without_token(scope: Scope) -> bytes:
    """Return the path of a request with its other parameters."""
    rest = urlencode([(name, value) for name, value in _query(scope) if name != TOKEN])
    # Two slashes at the beginning would name another host.
    path = "/" + str(scope.get("raw_path", b"/"), "latin-1").lstrip("/")
    return (path + (f"?{rest}" if rest else "")).encode("latin-1")


async def _refuse(scope: Scope, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted, this answers with 403.
        await send({"type": "websocket.close", "code": 1008})
        return
    await _respond(send, 403, why, [(b"content-type", b"text/plain; charset=utf-8")])


async def _respond(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = text.encode()
    size = (b"content-length", str(len(body)).encode())
    private = (b"cache-control", b"no-store")
    everything = [*headers, size, private, *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": everything})
    await send({"type": "http.response.body", "body": body})
