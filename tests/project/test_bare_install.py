"""What a user gets from the wheel alone: the base dependencies, no extras, no checkout.

The environment made here holds the built wheel and exactly the distributions its metadata asks
for without extras, taken from the environment the tests run in; so a module that imports more
than the package declares fails here, and nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("testbed", "controller", "edgenode", "trainer")
MANIFESTS = ("__init__.py", "base", "components", "overlays", "rbac")
"""What the wheel has of manifests/; images are built from a checkout."""

pytestmark = pytest.mark.timeout(300)


def closure_without_extras(requirements: list[str]) -> set[str]:
    """Names of all distributions that ``requirements`` ask for, directly or not."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in found:
            continue
        found.add(key)
        for text in metadata.requires(requirement.name) or []:
            below = Requirement(text)
            asked = requirement.extras or {""}
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in asked):
                waiting.append(below)
    return {name for name, _ in found}


def base_requirements(wheel: Path) -> list[str]:
    """What the wheel's own metadata asks for where no extra is named."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        message = metadata.PathDistribution(zipfile.Path(archive, name.rpartition("/")[0] + "/"))
        wanted = message.requires or []
    requirements = [Requirement(text) for text in wanted]
    return [str(r) for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]


def link_distribution(name: str, site_packages: Path) -> None:
    """Make the files of one installed distribution visible below ``site_packages``."""
    distribution = metadata.distribution(name)
    for file in distribution.files or []:
        if ".." in file.parts:  # a script or shared data, outside of site-packages
            continue
        target = site_packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(Path(str(distribution.locate_file(file))).resolve())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: setuptools would otherwise leave build/ behind, and put what an older
    # build left there into the next wheel.
    source = tmp_path_factory.mktemp("source")
    for package in (*PACKAGES, "manifests"):
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*build, "--no-build-isolation", "--wheel-dir", str(folder), str(source)],
        check=True,
        timeout=120,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and its base dependencies."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, symlinks=True, with_pip=False)
    programs = home / "bin"
    (site_packages,) = home.glob("lib/python*/site-packages")
    for name in closure_without_extras(base_requirements(wheel)):
        link_distribution(name, site_packages)
    install = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    subprocess.run(
        [*install, "--quiet", "--no-index", "--no-deps", str(wheel)], check=True, timeout=120
    )
    return programs


def run_bare(
    bare: Path, *argv: str, cwd: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        **({} if path is None else {"PYTHONPATH": str(path)}),
        "PATH": f"{bare}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(cwd),
        "LANG": "C.UTF-8",
    }
    return subprocess.run(
        [str(bare / argv[0]), *argv[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    files = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    manifests = {
        str(path.relative_to(ROOT))
        for part in MANIFESTS
        for path in [ROOT / "manifests" / part, *(ROOT / "manifests" / part).rglob("*")]
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())

    assert files - shipped == set()
    assert "manifests/overlays/kind/kustomization.yaml" in manifests
    assert {name for name in shipped if name.startswith("manifests/")} == manifests
    assert any(name.endswith("/licenses/LICENSE") for name in shipped)


def test_base_dependencies_agree_with_each_other(bare: Path, tmp_path: Path) -> None:
    check = [sys.executable, "-m", "pip", "--python", str(bare / "python"), "check"]

    run = subprocess.run(check, capture_output=True, text=True, timeout=250)

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("absent", ["ray", "torch", "kubernetes", "pytest"])
def test_extras_are_not_there(bare: Path, absent: str, tmp_path: Path) -> None:
    run = run_bare(bare, "python", "-c", f"import {absent}", cwd=tmp_path)

    assert "ModuleNotFoundError" in run.stderr


def test_help(bare: Path, tmp_path: Path) -> None:
    run = run_bare(bare, "testbed", "--help", cwd=tmp_path)

    assert run.returncode == 0, run.stderr
    assert "Usage" in run.stdout


def test_a_simulated_episode(bare: Path, tmp_path: Path) -> None:
    run = run_bare(bare, "testbed", "sim", "quickstart", "--episodes", "1", cwd=tmp_path)

    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_every_module_of_a_node_can_be_imported(bare: Path, tmp_path: Path) -> None:
    program = (
        "import importlib, pkgutil\n"
        "for name in ('testbed', 'controller', 'edgenode'):\n"
        "    package = importlib.import_module(name)\n"
        "    for module in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "        if module.name.startswith(('testbed.testing', 'testbed.ui')):\n"
        "            continue\n"
        "        if '__main__' in module.name:\n"
        "            continue\n"
        "        importlib.import_module(module.name)\n"
    )

    run = run_bare(bare, "python", "-c", program, cwd=tmp_path)

    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("o2o", "quickstart", "--simulate", "--online-episodes", "10"),
        ("learn", "quickstart", "--simulate"),
        ("reproduce", "fig3", "--quick", "--out", "figures"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_learns_names_the_extra_it_needs(
    bare: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    run = run_bare(bare, "testbed", *command, cwd=tmp_path)

    assert run.returncode == 3, run.stderr
    assert "train" in run.stderr
    assert "Traceback" not in run.stderr


HIDING = ("trainer", "controller", "manifests", "edgenode", "random", "grpc", "testbed")
"""Names of files that a user's folder may hold, of modules that the toolkit imports."""


@pytest.fixture
def folder_of_a_user(tmp_path: Path) -> Path:
    """A folder with files named like modules, each of which ends a process that imports it."""
    for name in HIDING:
        (tmp_path / f"{name}.py").write_text('raise SystemExit("imported a file of the folder")\n')
    return tmp_path


def test_files_in_the_folder_hide_no_module(bare: Path, folder_of_a_user: Path) -> None:
    def testbed(*argv: str) -> str:
        run = run_bare(bare, "testbed", *argv, cwd=folder_of_a_user)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "imported a file" not in run.stdout + run.stderr
        return run.stdout

    small = ("--set", "nodes.count=2", "--set", "slots.count=5")
    try:
        testbed("up", "quickstart", *small)
        assert '"state": "up"' in testbed("ps", "--json")
        assert '"tasks"' in testbed("run", "-s", "random", "-e", "1", "--json")
        assert "controller" in testbed("logs")
    finally:
        testbed("teardown")
    testbed("sim", "quickstart", *small, "-e", "1")
    testbed("compare", "--help")
    # What learns needs an extra, and says so instead of importing the folder's file.
    run = run_bare(bare, "testbed", "o2o", "quickstart", "--simulate", cwd=folder_of_a_user)
    assert run.returncode == 3, run.stderr
    assert "train" in run.stderr


@pytest.mark.parametrize("name", ["trainer", "controller", "manifests"])
def test_a_package_of_another_distribution_is_named(
    bare: Path, tmp_path: Path, wheel: Path, name: str
) -> None:
    """It lies before ours on PYTHONPATH, with the metadata of an installed distribution."""
    other = tmp_path / "other"
    (other / name).mkdir(parents=True)
    (other / name / "__init__.py").touch()
    told = other / "Their_Thing-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: their-thing\nVersion: 1.0\n")
    (told / "top_level.txt").write_text(f"{name}\n")
    (told / "RECORD").write_text(f"{name}/__init__.py,,\n")
    command = {
        "trainer": ("o2o", "quickstart", "--simulate"),
        "controller": ("up", "quickstart"),
        "manifests": ("doctor",),
    }[name]

    doctor = run_bare(bare, "testbed", "doctor", cwd=tmp_path, path=other)
    # Without the extra, what learns does not get as far as the trainer.
    programs = Path(sys.executable).parent if name == "trainer" else bare
    failing = run_bare(programs, "testbed", *command, cwd=tmp_path, path=other)

    assert "their-thing" in doctor.stdout + doctor.stderr
    assert f"'{name}'" in doctor.stdout
    assert failing.returncode in (1, 3), failing.stderr
    assert "their-thing" in failing.stdout + failing.stderr
    assert "This is a defect" not in failing.stderr
    run_bare(bare, "testbed", "teardown", cwd=tmp_path)


def test_the_wheel_holds_no_tests_and_no_stand_in_for_a_cluster(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*PACKAGES, "manifests"}
    assert [name for name in names if "api_server" in name or "apiserver" in name] == []


def test_the_classifiers_name_releases_that_the_package_allows(bare: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    named = [int(c.removeprefix(prefix)) for c in project["classifiers"] if c.startswith(prefix)]

    assert min(named) == int(project["requires-python"].removeprefix(">=3."))
    assert named == list(range(min(named), max(named) + 1))
