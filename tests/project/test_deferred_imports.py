"""A function imports only what its module does not load: all else stands at the top."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("testbed", "controller", "edgenode", "trainer")


def deferred(source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The modules of this toolkit that functions import, with the names they take from each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if not isinstance(inner, ast.ImportFrom) or inner.module is None:
                    continue
                if inner.module.partition(".")[0] in PACKAGES:
                    yield inner.module, tuple(name.name for name in inner.names)


def loaded_with(module: str) -> set[str]:
    """What importing a module loads, in a process of its own."""
    look = f"import sys, json, {module}; print(json.dumps(list(sys.modules)))"
    said = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(said.stdout.splitlines()[-1]))


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def test_what_a_function_imports_is_not_loaded_anyway() -> None:
    needless = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            imports = set(deferred(path.read_text()))
            if not imports:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            loaded = loaded_with(".".join(parts).removesuffix(".__init__"))
            for module, names in imports:
                modules = [each for name in names if is_module(each := f"{module}.{name}")]
                if loaded.issuperset([module, *modules]):
                    needless.append(f"{path.relative_to(ROOT)}: {module}")
    assert not needless
