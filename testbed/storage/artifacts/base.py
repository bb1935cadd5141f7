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
from testbed.storage.documents import read_object

MANIFEST: Final = "manifest.json"
"""The file beside an artifact's files that holds size and sha256 of each."""

MANIFEST_VERSION: Final = 1

LARGEST_MANIFEST: Final = 1_000_000
MOST_FILES: Final = 1_000
LARGEST_ARTIFACT: Final = 64 * 1024 * 1024
"""Bytes of all files of an artifact together; it is held in memory when it is fetched."""

Content: TypeAlias = "os.PathLike[str] | Mapping[str, bytes]"
"""A folder, or bytes by path in the artifact."""

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}(/[a-z0-9][a-z0-9._-]{0,99}){0,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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
        """Return the files of an artifact by their path in it, verified against its manifest.

        Raises: UsageError: there is none; names keys that there are. PermanentError: a file is
        missing, truncated or altered.
        """
        ...

    def exists(self, key: str) -> bool:
        """Return whether there is a complete artifact of this key."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """Return the keys below ``prefix`` (whole parts of the key), in order; all without one."""
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
            "invalid artifact key",
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
    """Return all files of ``content`` by their path in it.

    Raises:
        UsageError: there are none, a name is not allowed, or something is not a regular file.
    """
    problems: list[Problem] = []
    files: dict[str, bytes] = {}
    if isinstance(content, Mapping):
        files = {name: bytes(data) for name, data in sorted(content.items())}
    else:
        folder = Path(content)
        if not folder.is_dir():
            problems.append(Problem(str(folder), "is not a folder", "a folder, or bytes by name"))
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                problems.append(Problem(name, "is not a regular file", "only files and folders"))
            elif path.is_file():
                files[name] = path.read_bytes()
    allowed = f"up to four parts of letters, digits, . _ - separated by /, not {MANIFEST}"
    problems += [
        Problem(repr(name), "is not a valid name for a file of an artifact", allowed)
        for name in files
        if not _NAME.fullmatch(name) or ".." in name or name == MANIFEST
    ]
    total = sum(map(len, files.values()))
    if total > LARGEST_ARTIFACT or len(files) > MOST_FILES:
        seen = f"has {len(files)} files with {total} bytes"
        allowed_size = f"at most {MOST_FILES} files with {LARGEST_ARTIFACT} bytes together"
        problems.append(Problem("content", seen, allowed_size))
    if not files and not problems:
        problems.append(Problem("content", "has no files", "at least one"))
    if problems:
        raise UsageError("the artifact cannot be stored", problems)
    return files


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """Return the manifest of these files; equal files have equal manifests."""
    described = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }
    text = json.dumps({"version": MANIFEST_VERSION, "files": described}, indent=1, sort_keys=True)
    return text.encode() + b"\n"


def read_manifest(key: str, manifest: bytes) -> dict[str, Any]:
    """Size and sha256 by file, as the manifest says: ``{"bytes": int, "sha256": str}`` for each.

    Raises:
        PermanentError: it is no manifest; says which entry is wrong and what is expected.
    """
    where = f"artifact {key}: its manifest is damaged: {MANIFEST}"
    advice = "store the artifact again under another key"
    try:
        read = read_object(manifest, LARGEST_MANIFEST)
    except ValueError as error:
        raise PermanentError(f"{where} {error}", fix=advice) from None
    version, files = read.get("version"), read.get("files")
    if type(version) is not int or version != MANIFEST_VERSION:
        raise PermanentError(
            f"artifact {key}: its manifest is of another version: {MANIFEST}: version: "
            f"{_shown(version)}; this toolkit reads version {MANIFEST_VERSION}",
            fix=advice,
        )
    if not isinstance(files, dict) or not files or len(files) > MOST_FILES:
        allowed = f"an object of 1 to {MOST_FILES} files by name"
        raise PermanentError(f"{where}: files: {_shown(files)}; it has to be {allowed}", fix=advice)
    for name, described in files.items():
        wrong = _wrong_entry(name, described)
        if wrong:
            raise PermanentError(f"{where}: files: {_shown(name)}: {wrong}", fix=advice)
    total = sum(described["bytes"] for described in files.values())
    if total > LARGEST_ARTIFACT:
        raise PermanentError(
            f"artifact {key}: its {MANIFEST} says {total} bytes; an artifact may have at most "
            f"{LARGEST_ARTIFACT}"
        )
    return files


def _wrong_entry(name: str, described: object) -> str:
    """Return what is wrong with one file of a manifest; empty if nothing is."""
    if not _NAME.fullmatch(name) or ".." in name or name == MANIFEST:
        return "is not a valid name for a file of an artifact"
    if not isinstance(described, dict):
        return f"{_shown(described)}; it has to be an object with bytes and sha256"
    size, digest = described.get("bytes"), described.get("sha256")
    if type(size) is not int or size < 0:
        return f"bytes: {_shown(size)}; it has to be a number of bytes"
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        return f"sha256: {_shown(digest)}; it has to be 64 hexadecimal digits"
    return ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    raise wrong_file(key, name, str(wrong))


def wrong_file(key: str, name: str, wrong: str) -> PermanentError:
    """Return the error for a file that is not what the manifest says."""
    return PermanentError(
        f"artifact {key}: {name} {wrong}",
        fix="do not use it, store the artifact again under another key",
    )


def unknown_key(key: str, known: list[str]) -> UsageError:
    """Return the error for a key that holds nothing."""
    shown = ", ".join(known[-5:]) or "none yet"
    return UsageError(
        "no such artifact", [Problem("key", repr(key), f"there are {len(known)}: {shown}")]
    )


def taken_key(key: str) -> UsageError:
    """Return the error for a key that holds other content."""
    return UsageError(
        "the artifact cannot be stored",
        [Problem("key", f"{key} holds other content", "artifacts never change: use another key")],
    )
