"""docs/cli.md from the commands themselves: ``python -m testbed.cli.reference > docs/cli.md``.

A test compares the page with what this makes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from testbed import environment
from testbed.cli.exit_codes import MEANINGS
from testbed.cli.main import app

_INTRODUCTION = """\
# Commands

Made by `python -m testbed.cli.reference > docs/cli.md`; change the commands, not this page.

* Results go to stdout; progress, warnings, errors and the next useful command go to stderr. So \
`testbed runs list --json | jq` works, also with progress on the screen.
* Every command that reads something takes `--json`.
* `--quiet`, `--debug`, `--home`, `--controller`, `--runtime`, `--context`, `--kubeconfig` and \
`--namespace` may stand before or after the command.
* A testbed is found by its `--name` from any shell; without one it is called `default`. The home \
notes which were brought up on a cluster, and where.
* All testbeds and simulations of a home write into one task log, `tasklog.sqlite` in the home, \
unless the scenario or `--storage` names another. `teardown` leaves it alone; the runs of a task \
log that is part of a testbed on a cluster are copied into it first.
* `run`, `compare` and `report` give the mean success rate over episodes, with its interval; \
`status` and `runs list` the share of all tasks that succeeded. The two can differ by a few tenths \
of a point.
"""


def reference() -> str:
    """Return the page."""
    root: Any = typer.main.get_command(app)
    commands = list(walk(root, "testbed"))
    lines = [_INTRODUCTION, "| command | does |", "|---|---|"]
    for path, command in commands:
        anchor = path.replace(" ", "-")
        lines.append(f"| [`{path}`](#{anchor}) | {_first_line(command)} |")
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in sorted(MEANINGS.items())]
    lines += ["", "## Environment", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in environment.MEANINGS.items()]
    lines += ["", "## Options of every command", "", *_options(root)]
    for path, command in commands:
        lines += ["", f"## {path}", "", *_section(path, command)]
    return "\n".join(lines).rstrip() + "\n"


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that can be called, with its path; no groups, no hidden ones."""
    if not isinstance(command, TyperGroup):
        yield path, command
        return
    context = command.make_context(path, [], resilient_parsing=True)
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        if each is not None and not each.hidden:
            yield from walk(each, f"{path} {name}")


def _section(path: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join([path, "[OPTIONS]", *(_argument(each) for each in arguments)])
    yield from ("```", usage, "```", "", *inspect.cleandoc(command.help or "").splitlines())
    described = [f"* `{_argument(each)}`: {_about(each)}" for each in arguments if each.help]
    if described:
        yield from ("", *described)
    options = list(_options(command))
    if options:
        yield from ("", *options)


def _options(command: Any) -> Iterator[str]:
    options = [
        each
        for each in command.params
        if each.param_type_name == "option" and not each.hidden and "completion" not in each.name
    ]
    if not options:
        return
    yield from ("| option | meaning |", "|---|---|")
    for each in options:
        names = ", ".join(f"`{name}`" for name in each.opts)
        value = "" if each.is_flag else f" `{_metavar(each)}`".replace("|", "\\|")
        yield f"| {names}{value} | {_about(each)} |"


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _metavar(option: Any) -> str:
    return str(option.metavar or "VALUE")


def _about(parameter: Any) -> str:
    text = parameter.help or ""
    default = parameter.default
    if default not in (None, "", False, (), []) and "Default" not in text:
        text += f" Default: `{default}`."
    return text


def _first_line(command: Any) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0]


if __name__ == "__main__":
    sys.stdout.write(reference())
