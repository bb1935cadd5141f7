"""Passwords in URLs: taken out before a URL is shown, logged or stored."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

# Up to the last @ before a query, so that no piece of an unquoted password is left. What follows a
# colon and is a number up to a slash, a comma or the end is a port.
_LOGIN: Final = re.compile(
    r"(?P<before>[A-Za-z][\w+.-]*://[^:/@?#]*):(?!\d+(?:[/,?]|$))(?P<password>[^?]*)(?P<after>@.*)",
    re.DOTALL,
)
_OPTION: Final = re.compile(r"(?<=[?&])(?:password|passwd)=(?P<password>[^&]*)(?:&|$)")


def split_password(url: str) -> tuple[str, str | None]:
    """``url`` without its password, and the password; None if it has none.

    A password stands before the host (``scheme://user:password@host``) or is the option
    ``password`` or ``passwd``. What is no URL has none.
    """
    password = None
    if "://" not in url:
        return url, None
    if found := _LOGIN.fullmatch(url):
        url = found["before"] + found["after"]
        password = unquote(found["password"])
    if option := _OPTION.search(url):
        url = _OPTION.sub("", url).rstrip("?&")
        password = unquote(option["password"])
    return url, password


def without_password(url: str) -> str:
    """``url`` as it may be shown, logged and stored."""
    return split_password(url)[0]
