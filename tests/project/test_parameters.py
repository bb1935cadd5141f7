"""Functions take few parameters: what belongs together is one value."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from testbed.cli.main import app
from testbed.cli.reference import walk

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("testbed", "controller", "edgenode", "trainer")
MOST = 9


def functions() -> Iterator[tuple[str, int]]:
    """Every function by its full name, with the number of its parameters."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "generated" not in path.parts:
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield from _functions(ast.parse(path.read_text(encoding="utf-8")), module)


def _functions(node: ast.AST, within: str) -> Iterator[tuple[str, int]]:
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{within}.{each.name}"
            given = each.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            own = names[1:] if names[:1] in (["self"], ["cls"]) else names
            yield name, len(own) + bool(given.vararg) + bool(given.kwarg)
            yield from _functions(each, name)
        elif isinstance(each, ast.ClassDef):
            yield from _functions(each, f"{within}.{each.name}")
        else:
            yield from _functions(each, within)


def commands() -> set[str]:
    """The functions whose parameters are the options of a command."""
    root: Any = typer.main.get_command(app)
    callbacks = [root.callback, *(command.callback for _, command in walk(root, ""))]
    return {f"{each.__module__}.{each.__name__}" for each in callbacks}


def test_no_function_has_more_than_nine_parameters() -> None:
    found = {name for name, count in functions() if count > MOST}
    assert found <= commands()
