"""From a URL to the artifact store there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from testbed.errors import Problem, UsageError
from testbed.storage.artifacts.base import ArtifactStore
from testbed.storage.artifacts.folder import FolderArtifactStore


def _folder(url: str) -> ArtifactStore:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError(
            "the artifact store cannot be opened",
            [Problem("artifacts", f"{url!r} names no folder of this machine", "file:///PATH")],
        )
    return FolderArtifactStore(Path(unquote(parts.path)))


def _webhdfs(url: str) -> ArtifactStore:
    # Imported where it is asked for: a node without HDFS starts without its client.
    from testbed.storage.artifacts.webhdfs import WebHdfsArtifactStore

    return WebHdfsArtifactStore(url)


STORES: Final[dict[str, Callable[[str], ArtifactStore]]] = {
    "file": _folder,
    "webhdfs": _webhdfs,
    "swebhdfs": _webhdfs,
}
"""What makes the store of a URL, by its scheme."""


def open_artifact_store(url: str | os.PathLike[str]) -> ArtifactStore:
    """The artifact store at ``url``: a path, or a URL of a known scheme. Opens no connection yet.

    Raises:
        UsageError: the scheme is unknown, or the URL names nothing.
    """
    text = os.fspath(url)
    if not text:
        raise UsageError(
            "the artifact store cannot be opened",
            [Problem("artifacts", "an empty name", "a path, or file:///PATH")],
        )
    if "://" not in text:
        return FolderArtifactStore(Path(text))
    scheme = urlsplit(text).scheme
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise UsageError(
            "the artifact store cannot be opened",
            [Problem("artifacts", f"unknown scheme {scheme}://", f"a path, or {known}")],
        )
    return STORES[scheme](text)
