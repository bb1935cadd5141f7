"""From a URL to the artifact store there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from testbed.errors import Problem, UsageError
from testbed.plugins import Plugins
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


GROUP: Final = "edge_testbed.artifact_stores"
"""The entry point group in which other packages name what makes the store of a URL scheme."""

_OWN: Final[dict[str, Callable[[str], ArtifactStore]]] = {
    "file": _folder,
    "webhdfs": _webhdfs,
    "swebhdfs": _webhdfs,
}
_OTHERS: Final = Plugins(GROUP, "artifact store", {})


def open_artifact_store(url: str | os.PathLike[str]) -> ArtifactStore:
    """Return the store at ``url``: a path, or a URL of a known scheme. Opens no connection yet.

    Another package names a function of the URL as an entry point of ``GROUP``, under the scheme.

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
    if scheme in _OWN:
        return _OWN[scheme](text)
    if scheme in _OTHERS.names():
        made: ArtifactStore = _OTHERS.find(scheme)(text)
        return made
    known = ", ".join(f"{name}://" for name in (*_OWN, *_OTHERS.names()))
    raise UsageError(
        "the artifact store cannot be opened",
        [Problem("artifacts", f"unknown scheme {scheme}://", f"a path, or {known}")],
    )
