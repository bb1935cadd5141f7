"""Who gets past the guard of the pages, and who does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from testbed.ui.guard import LOOPBACK, Guard

HOST = "127.0.0.1:8080"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Pages that say what they were asked."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


class Asked:
    """The answer to one request."""

    def __init__(
        self,
        guard: Guard,
        path: str = "/",
        query: str = "",
        *,
        kind: str = "http",
        method: str = "GET",
        **headers: str,
    ) -> None:
        given = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        self.messages: list[Any] = []

        async def send(message: Any) -> None:
            self.messages.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing is read")

        asyncio.run(guard(scope, receive, send))

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def cookie(self) -> str:
        """The cookie that is set, as a browser sends it back."""
        return self.headers["set-cookie"].partition(";")[0]


@pytest.fixture
def guard() -> Guard:
    return Guard(app, LOOPBACK)


def admitted(guard: Guard) -> str:
    """Use the token, and return the cookie."""
    return Asked(guard, query=f"token={guard.token}").cookie


def test_without_anything_nobody_gets_in(guard: Guard) -> None:
    answer = Asked(guard)

    assert answer.status == 403
    assert b"testbed ui" in answer.messages[1]["body"]


@pytest.mark.parametrize("given", ["", "x", "token=", "token=wrong", "Token=%s", "token=%s0"])
def test_another_token_is_refused(guard: Guard, given: str) -> None:
    assert Asked(guard, query=given.replace("%s", guard.token)).status == 403


def test_the_token_is_exchanged_for_a_cookie(guard: Guard) -> None:
    answer = Asked(guard, "/runs", query=f"a=1&token={guard.token}&b=%26")

    assert answer.status == 303
    assert answer.headers["location"] == "/runs?a=1&b=%26"
    attributes = answer.headers["set-cookie"].split("; ")[1:]
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert guard.token not in answer.headers["set-cookie"]
    assert Asked(guard, cookie=answer.cookie).status == 200


def test_the_location_is_on_this_host(guard: Guard) -> None:
    answer = Asked(guard, "//other.example/", query=f"token={guard.token}")

    assert answer.headers["location"] == "/other.example/"


def test_a_token_is_for_one_use(guard: Guard) -> None:
    used = guard.token
    told: list[str] = []
    guard._admitted = lambda: told.append(guard.token)

    admitted(guard)

    assert Asked(guard, query=f"token={used}").status == 403
    assert told == [guard.token]
    assert told != [used]
    assert Asked(guard, query=f"token={guard.token}").status == 303


def test_who_is_in_may_come_with_a_used_token(guard: Guard) -> None:
    used = guard.token
    cookie = admitted(guard)

    again = Asked(guard, query=f"token={used}", cookie=cookie)

    assert (again.status, again.headers["location"]) == (303, "/")
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("cookie", ["", "a=b", "%s0", "x%s", "=", "\x00", 'a="b'])
def test_another_cookie_is_refused(guard: Guard, cookie: str) -> None:
    assert Asked(guard, cookie=cookie.replace("%s", admitted(guard))).status == 403


def test_a_cookie_among_others(guard: Guard) -> None:
    assert Asked(guard, cookie=f"look=dark; {admitted(guard)}; z=1").status == 200


def test_two_servers_have_cookies_of_different_names(guard: Guard) -> None:
    other = Guard(app, LOOPBACK)

    assert admitted(guard).partition("=")[0] != admitted(other).partition("=")[0]


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_the_token_is_taken_from_addresses_that_are_opened_only(guard: Guard, method: str) -> None:
    assert Asked(guard, query=f"token={guard.token}", method=method).status == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "localhost:8080", "LOCALHOST", "[::1]:80"]
)
def test_names_of_this_machine(guard: Guard, host: str) -> None:
    assert Asked(guard, cookie=admitted(guard), host=host).status == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", "a@b:c"]
)
def test_another_host_is_refused_even_with_the_cookie(guard: Guard, host: str) -> None:
    assert Asked(guard, cookie=admitted(guard), host=host).status == 403
    assert Asked(guard, query=f"token={guard.token}", host=host).status == 403


def test_any_host_where_others_are_let_in() -> None:
    guard = Guard(app, ())

    assert Asked(guard, cookie=admitted(guard), host="lab.example").status == 200
    assert Asked(guard, host="lab.example").status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9", "x"])
def test_a_page_of_another_origin_may_not_ask(guard: Guard, origin: str) -> None:
    cookie = admitted(guard)

    assert Asked(guard, cookie=cookie, origin=origin).status == 403
    socket = Asked(guard, kind="websocket", cookie=cookie, origin=origin)
    assert [message["type"] for message in socket.messages] == ["websocket.close"]


def test_a_websocket_needs_the_cookie(guard: Guard) -> None:
    refused = Asked(guard, kind="websocket", query=f"token={guard.token}")
    taken = Asked(guard, kind="websocket", cookie=admitted(guard), origin=f"http://{HOST}")

    assert [message["type"] for message in refused.messages] == ["websocket.close"]
    assert [message["type"] for message in taken.messages] == ["websocket.accept"]


def test_every_answer_keeps_the_page_to_itself(guard: Guard) -> None:
    for answer in (
        Asked(guard),
        Asked(guard, query=f"token={guard.token}"),
        Asked(guard, cookie=admitted(guard)),
    ):
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
