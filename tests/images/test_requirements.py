"""What the images install is what the project declares, and the node's part is small."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testbed.version import __version__

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "manifests" / "images"


def required(image: str) -> set[str]:
    lines = (IMAGES / image / "requirements.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def declared(extra: str | None = None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    given = project["optional-dependencies"][extra] if extra else project["dependencies"]
    found = [Requirement(text) for text in given]
    return {each.name + (f"[{','.join(each.extras)}]" if each.extras else "") for each in found}


@pytest.mark.parametrize("image", ["edgenode", "controller"])
def test_an_image_installs_a_part_of_the_dependencies(image: str) -> None:
    assert required(image) < declared()


def test_the_trainer_installs_all_of_them() -> None:
    assert required("trainer") == declared() | declared("train")


@pytest.mark.parametrize("image", ["edgenode", "controller", "trainer", "hdfs"])
def test_base_images_are_pinned_build_arguments(image: str) -> None:
    lines = (IMAGES / image / "Dockerfile").read_text().splitlines()
    bases = [
        line.split("=", 1)[1] for line in lines if line.startswith("ARG ") and "_IMAGE=" in line
    ]

    assert bases
    assert all(base.partition(":")[2][0].isdigit() for base in bases)
    assert all(line.split()[1].startswith("${") for line in lines if line.startswith("FROM "))


def test_images_are_tagged_with_the_release() -> None:
    said = subprocess.run(
        ["make", "--dry-run", "images", "IMAGES=edgenode controller hdfs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    tags = {word for word in said.split() if word.startswith("edge-testbed/")}
    assert tags == {
        f"edge-testbed/{name}:{__version__}" for name in ("edgenode", "controller", "hdfs")
    }


@pytest.mark.parametrize("image", ["edgenode", "controller"])
def test_an_image_has_what_its_package_imports(image: str) -> None:
    ours = {"controller", "edgenode", "testbed", "trainer"}
    distributions = packages_distributions()
    imported = {
        top
        for file in (ROOT / image).rglob("*.py")
        for top in imports(ast.parse(file.read_text()))
        if top not in ours | sys.stdlib_module_names
    }

    direct = {canonicalize_name(Requirement(line).name) for line in required(image)}
    installed = direct | {
        canonicalize_name(Requirement(text).name)
        for name in direct
        for text in requires(name) or ()
    }
    lacking = {
        top
        for top in imported
        if not installed & {canonicalize_name(name) for name in distributions.get(top, [top])}
    }
    assert imported
    assert not lacking


def imports(tree: ast.AST) -> Iterator[str]:
    """The packages that a module imports when it runs, in functions too."""
    for each in ast.iter_child_nodes(tree):
        if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING":
            continue
        if isinstance(each, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in each.names)
        elif isinstance(each, ast.ImportFrom) and each.level == 0:
            yield (each.module or "").partition(".")[0]
        yield from imports(each)
