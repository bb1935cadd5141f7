"""The command lines that do what a page does, as one would type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from testbed.api import home
from testbed.api.filters import Filter
from testbed.scenario.secrets import without_password
from testbed.ui.context import Settings


def plain(settings: Settings, *words: str) -> str:
    """Return ``testbed WORDS`` for the home of the pages."""
    return " ".join(each for each in (shlex.join(["testbed", *words]), settings.options) if each)


def on_log(settings: Settings, *words: str) -> str:
    """Return ``testbed WORDS`` for the task log of the pages, without its password."""
    usual = settings.task_log == home.choose_task_log(None)
    named = () if usual else ("--storage", without_password(settings.task_log))
    return plain(settings, *words, *named)


def on_store(settings: Settings, *words: str) -> str:
    """Return ``testbed WORDS`` for the artifact store of the pages."""
    usual = settings.artifacts == home.artifacts_url(None)
    named = () if usual else ("--artifacts", without_password(settings.artifacts))
    return plain(settings, *words, *named)


def listing(settings: Settings, only: Filter, limit: int) -> str:
    """Return the command that lists these runs."""
    options = [word for name, value in only.given.items() for word in (f"--{name}", value)]
    return on_log(settings, "runs", "list", *options, "--limit", str(limit))


def comparing(settings: Settings, runs: Sequence[str], by: str | None) -> str:
    """Return the command that compares these runs."""
    return on_log(settings, "compare", *runs, *(["--by", by] if by else []))
