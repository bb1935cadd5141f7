"""The pages a reader is sent to exist, and say nothing that is not so."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import testbed

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that a renderer makes from the headings of a page."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+\s+(.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path) if path else page
        if not aim.exists() or (anchor and aim.suffix == ".md" and anchor not in anchors(aim)):
            broken.append(target)

    assert broken == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}

    missing = [
        names(page) for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in linked
    ]
    assert [name for name in missing if name != "docs/README.md"] == []


def test_the_readme_names_the_two_commands_of_a_fresh_clone() -> None:
    readme = (ROOT / "README.md").read_text()

    assert "make demo" in readme
    assert "make test" in readme


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    rules = [
        (ROOT / "Makefile").read_text(),
        *(p.read_text() for p in (ROOT / "manifests").rglob("*.mk")),
    ]
    targets = set(re.findall(r"^([a-z][a-z-]*):", "\n".join(rules), re.MULTILINE))

    text = page.read_text()
    code = [*FENCE.findall(text), *re.findall(r"`[^`\n]+`", FENCE.sub("", text))]
    named = set(re.findall(r"^[`$ ]*make ([a-z][a-z-]*)", "\n".join(code), re.MULTILINE))

    assert named <= targets


def test_the_changelog_has_a_place_for_the_next_release_and_knows_this_one() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert "## [Unreleased]" in changelog
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert not released or released[0] == testbed.__version__


def test_constraints_name_releases_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]

    assert [e for e in entries if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", e)] == []


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pinned = {
        _canonical(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }

    direct = {_canonical(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in wanted}
    # An extra that includes another one.
    direct.discard(project["name"])
    # setuptools comes with the environment; its release changes nothing that is tested.
    assert direct - pinned == {"setuptools"}


def test_constraints_serve_the_first_python_that_the_project_names() -> None:
    """A release that needs a later 3.11 stops `make install` where Debian has 3.11.2."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first = f"{named.removeprefix('>=')}.0"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_canonical(line.partition("==")[0]) for line in lines if "==" in line}
    installed = {
        each.name: SpecifierSet(each.metadata["Requires-Python"] or "")
        for each in metadata.distributions()
        if _canonical(each.name) in pinned
    }

    assert len(installed) > 100
    assert [name for name, pythons in installed.items() if not pythons.contains(first)] == []


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
