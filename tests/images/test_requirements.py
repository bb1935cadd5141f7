"""What the images install is what the project declares, and the node's part is small."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
