"""The layers between packages: complete, and not walked round at run time.

That imports keep to them is checked by import-linter (``make lint``); here stands what it cannot
see: packages that no contract names, and what is loaded when a program starts.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOYABLES = ("controller", "edgenode", "trainer")


def contracts() -> dict[str, dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract for contract in settings["contracts"]}


def modules_at_the_top() -> set[str]:
    """Direct children of ``testbed`` and the deployables: each of them is one layer."""
    children = {
        f"testbed.{path.stem}"
        for path in (ROOT / "testbed").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return (children | set(DEPLOYABLES)) - {"testbed.__init__"}


def test_every_package_stands_in_one_layer() -> None:
    named = [
        module.strip() for layer in contracts()["layers"]["layers"] for module in layer.split("|")
    ]

    assert sorted(named) == sorted(modules_at_the_top())


def test_every_package_that_runs_on_a_node_is_kept_from_the_learning_libraries() -> None:
    above_the_nodes = {
        *("testbed.api", "testbed.cli", "testbed.experiment", "testbed.testing", "testbed.ui"),
        "trainer",
    }
    kept_away = set(contracts()["nodes-run-without-the-trainer"]["source_modules"])

    assert kept_away == modules_at_the_top() - above_the_nodes - {"testbed.errors"}


@pytest.mark.parametrize("module", ["testbed.cli.main", "controller", "edgenode"])
def test_starting_loads_no_learning_library(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "heavy = {'ray', 'torch', 'gymnasium', 'kubernetes', 'trainer'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert run.returncode == 0, run.stderr


def test_no_module_imports_itself_through_others() -> None:
    """No circle, also none behind TYPE_CHECKING, inside a function or through a package."""
    graph = grimp.build_graph(
        "testbed", *DEPLOYABLES, exclude_type_checking_imports=False, cache_dir=None
    )
    order = TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    order.prepare()  # raises CycleError with the circle
