"""The artifact store as a seam: small sets of files under keys, written once and never changed.

Trained policies travel through it. Implementations pass
``testbed.testing.artifacts.ArtifactStoreContract``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from testbed.errors import PermanentError, Problem, UsageError

MANIFEST: Final = "manifest.json"
"""The file beside an artifact's files that holds size and sha256 of each."""

MANIFEST_VERSION: Final = 1

Content: TypeAlias = "os.PathLike[str] | Mapping[str, bytes]"
"""A folder, or bytes by path in the artifact."""

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}(/[a-z0-9][a-z0-9._-]{0,99}){0,3}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}")


class ArtifactStore(Protocol):
    """Artifacts by key, such as ``policies/4f1d0c``.

    A key is one to four parts separated by ``/``, each of lower-case letters, digits, ``.``, ``_``
    and ``-``, beginning with a letter or digit. No key is part of another's path: where
    ``policies/a`` is an artifact, ``policies/a/b`` cannot be.

    Raises (every call): UsageError: no valid key. PermanentError: the store is damaged or denies
    access. TemporaryError: it did not answer.
    """

    def put(self, key: str, content: Content) -> None:
        """Store ``content`` under ``key``: all or nothing, seen by readers only when complete.

        The same content again is a no-op, also when two do it at once.

        Raises: UsageError: ``key`` holds something else, or ``content`` has no files or a name
        that is not allowed.
        """
        ...

    def get(self, key: str) -> dict[str, bytes]:
        """The files of an artifact by their path in it, verified against its manifest.

        Raises: UsageError: there is none; names keys that there are. PermanentError: a file is
        missing, truncated or altered.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a complete artifact of this key."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """The keys below ``prefix`` (whole parts of the key), in order; all without one."""
        ...

    def remove(self, key: str) -> None:
        """Remove the artifact; no-op if there is none."""
        ...


def check_key(key: str) -> str:
    """``key``, if it is one.

    Raises:
        UsageError: it is not.
    """
    if not _KEY.fullmatch(key) or ".." in key:
        raise UsageError(
            "no valid key of an artifact",
            [
                Problem(
                    "key",
                    repr(key),
                    "one to four parts of a-z 0-9 . _ - separated by /, such as policies/4f1d0c",
                )
            ],
        )
    return key


def files_of(content: Content) -> dict[str, bytes]:
    """All files of ``content`` by their path in it.

    Raises:
        UsageError: there are none, a name is not allowed, or something is no plain file.
    """
    problems: list[Problem] = []
    files: dict[str, bytes] = {}
    if isinstance(content, Mapping):
        files = {name: bytes(data) for name, data in sorted(content.items())}
    else:
        folder = Path(content)
        if not folder.is_dir():
            problems.append(Problem(str(folder), "is no folder", "a folder, or bytes by name"))
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                problems.append(Problem(name, "is no plain file", "only files and folders"))
            elif path.is_file():
                files[name] = path.read_bytes()
    allowed = f"up to four parts of letters, digits, . _ - separated by /, not {MANIFEST}"
    problems += [
        Problem(repr(name), "is no name for a file of an artifact", allowed)
        for name in files
        if not _NAME.fullmatch(name) or ".." in name or name == MANIFEST
    ]
    if not files and not problems:
        problems.append(Problem("content", "has no files", "at least one"))
    if problems:
        raise UsageError("the artifact cannot be stored", problems)
    return files


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """The manifest of these files; equal files have equal manifests."""
    described = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }
    text = json.dumps({"version": MANIFEST_VERSION, "files": described}, indent=1, sort_keys=True)
    return text.encode() + b"\n"


def read_manifest(key: str, manifest: bytes) -> dict[str, Any]:
    """Size and sha256 by file, as the manifest says.

    Raises:
        PermanentError: it cannot be understood.
    """
    try:
        read = json.loads(manifest)
        files = read["files"]
        if read["version"] == MANIFEST_VERSION and all(
            _NAME.fullmatch(name) and ".." not in name for name in files
        ):
            return dict(files)
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            f"artifact {key}: its manifest is damaged ({error}); store the artifact again under "
            "another key"
        ) from error
    raise PermanentError(
        f"artifact {key}: its manifest is of version {read['version']!r} or names files it may "
        f"not; this toolkit reads version {MANIFEST_VERSION}"
    )


def verify(key: str, name: str, data: bytes | None, expected: Mapping[str, Any]) -> bytes:
    """``data``, if it is what the manifest says of file ``name``.

    Raises:
        PermanentError: it is missing, truncated or altered.
    """
    wrong = None
    if data is None:
        wrong = "is missing"
    elif len(data) != expected["bytes"]:
        wrong = f"has {len(data)} bytes instead of {expected['bytes']}"
    elif hashlib.sha256(data).hexdigest() != expected["sha256"]:
        wrong = "was altered"
    if wrong is None and data is not None:
        return data
    raise PermanentError(
        f"artifact {key}: {name} {wrong}; do not use it, store the artifact again under another key"
    )


def unknown_key(key: str, known: list[str]) -> UsageError:
    """The error for a key that holds nothing."""
    shown = ", ".join(known[-5:]) or "none yet"
    return UsageError(
        "no such artifact", [Problem("key", repr(key), f"there are {len(known)}: {shown}")]
    )


def taken_key(key: str) -> UsageError:
    """The error for a key that holds other content."""
    return UsageError(
        "the artifact cannot be stored",
        [Problem("key", f"{key} holds other content", "artifacts never change: use another key")],
    )
