"""Fits the pages of docs/ to a site: what lies outside of docs/ and has a page comes in, links to
source files become plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Pages beside docs/ that the site has too."""

_OUTSIDE: Final = re.compile(r"\[([^\]]*)\]\(\.\./([^)\s#]+)(#[^)\s]*)?\)")
_NAMED: Final = re.compile(r"\[([\w/-]+\.md)\]\((?!\w+:)([\w./-]*\.md)(#[^)]*)?\)")
"""A link that shows the name of a file."""
_INSIDE: Final = re.compile(r"\]\(docs/([^)\s]*)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and examples beside docs/."""
    paths = [*PAGES, *(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.*"))]
    for path in sorted(paths):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to where their aims are on the site, and show titles instead of file names."""
    path = page.file.src_uri

    def titled(match: re.Match[str]) -> str:
        aim = (ROOT / "docs" / path).parent / match[2]
        if path in PAGES or path.startswith("examples/"):
            aim = (ROOT / path).parent / match[2]
        title = re.search(r"^# (.+)$", aim.read_text(), re.MULTILINE)
        return f"[{title[1] if title else match[1]}]({match[2]}{match[3] or ''})"

    markdown = _NAMED.sub(titled, markdown)
    if path in PAGES:
        markdown = _INSIDE.sub(r"](\1)", markdown)
        return re.sub(r"\[([^\]]*)\]\(((?!\w+:)[^)\s#]*\.(?:toml|txt|proto))\)", r"`\1`", markdown)

    def led(match: re.Match[str]) -> str:
        text, aim, anchor = match[1], match[2], match[3] or ""
        up = "../" if aim.startswith("docs/") else ""
        if path.startswith("examples/"):
            return f"[{text}](../{aim.removeprefix('docs/')}{anchor})"
        if aim == "README.md":
            return text
        if files.get_file_from_path(aim) is not None:
            return f"[{text}]({up}{aim}{anchor})"
        return text if text.startswith("`") else f"`{text}`"

    return _OUTSIDE.sub(led, markdown)
