"""Commands on the pages about clusters are ones that there are, with options that they take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from testbed.cli.main import _hoisted, app

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    *("kind-policy.md", "kind.md", "kubernetes.md", "kubernetes-manifests.md"),
    *("kubernetes-troubleshooting.md", "air-gapped.md", "learn.md"),
)


def commands(page: str) -> list[str]:
    """The lines of the page's blocks of code that call ``testbed``, continued lines as one."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("testbed ")]


def parse(words: list[str]) -> None:
    """Raises what a wrong option raises; calls nothing."""
    command: Any = get_command(app)
    context = command.make_context("testbed", _hoisted(words))
    while isinstance(command, TyperGroup):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_can_be_typed(page: str) -> None:
    found = commands(page)
    assert found
    for line in found:
        # What comes after a pipe or a comment is not ours.
        words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)[1:]
        try:
            parse(words)
        except Exception as error:
            raise AssertionError(f"{page}: {line}") from error


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["trainer", "start", "--steps", "100"])
