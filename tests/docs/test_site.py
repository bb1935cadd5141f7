"""The site is built without a warning, from all pages, and loads nothing from other hosts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert build.returncode == 0, build.stderr
    return folder


def test_every_page_is_there_and_can_be_searched(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}

    wanted = {"index.html", "CONTRIBUTING.html", *(f"{page}.html" for page in pages)}
    assert wanted - {path.name for path in site.glob("*.html")} == set()
    assert wanted - {"index.html"} <= found


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    loading = re.compile(
        r"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc|"""
        r"""<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|icon)[^>]*\bhref)=["']?(?:https?:)?//"""
    )
    pages = [*site.rglob("*.html")]

    assert len(pages) > 30
    assert [str(page) for page in pages if loading.search(page.read_text())] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\s]*", styles) == []


def test_the_front_page_shows_the_pictures(site: Path) -> None:
    page = (site / "index.html").read_text()

    for name in ("success", "outcomes", "latency", "topology"):
        assert f"pictures/{name}.png" in page
        assert (site / "pictures" / f"{name}.png").stat().st_size < 100_000


def test_the_reference_has_every_public_name(site: Path) -> None:
    import testbed as tb

    page = (site / "api.html").read_text()

    missing = [name for name in tb.__all__ if not re.search(rf'id="[\w.]*\.{name}"', page)]
    assert missing == ["__version__"]
    assert "Seed of all draws" in page
