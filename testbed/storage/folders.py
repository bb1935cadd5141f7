"""Folders that appear complete or not at all, and what proves that they are unchanged.

Exports, data sets and artifacts are such folders: written under a temporary name beside their
place, then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from testbed.errors import PermanentError, Problem, UsageError

METADATA: Final = "metadata.json"
"""The file that says what a folder is; a folder without it was not made here."""

PARTIAL: Final = ".partial-"
"""In the name of a folder that is being written; one that stays behind may be deleted."""


@contextmanager
def new_folder(path: Path, kind: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to write into, which becomes ``path`` when the block ends well.

    ``kind`` is what the metadata of such a folder calls it. With ``overwrite`` a folder of this
    kind is replaced, and nothing else ever is. After an error nothing is left behind.

    Raises:
        UsageError: ``path`` is taken.
        PermanentError: it cannot be written: no right, no space.
    """
    path = path.absolute()
    _check_free(path, kind, overwrite)
    mark = secrets.token_hex(4)
    partial = path.with_name(f".{path.name}{PARTIAL}{mark}")
    old = path.with_name(f".{path.name}{PARTIAL}{mark}-old")
    try:
        # What holds logs is not more open than what it lies in, for instance a home.
        with as_open_as(_existing(path.parent)):
            partial.mkdir(parents=True)
            yield partial
        # Checked again: somebody may have been faster.
        _check_free(path, kind, overwrite)
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except OSError as error:
        raise PermanentError(f"{path}: cannot be written, {_reason(error)}") from error
    finally:
        if old.exists() and not path.exists():
            with contextlib.suppress(OSError):
                old.rename(path)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _existing(folder: Path) -> Path:
    """Return the innermost folder above ``folder``, or it, that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


@contextmanager
def as_open_as(folder: Path) -> Iterator[None]:
    """Make files in the block no more open than ``folder``, whatever the umask.

    A folder that is not there yet is its owner's alone. The umask is one of the whole process.
    """
    try:
        mode = folder.stat().st_mode
    except OSError:
        mode = 0
    closed = (0 if mode & 0o070 else 0o070) | (0 if mode & 0o007 else 0o007)
    before = os.umask(0o077)
    os.umask(before | closed)
    try:
        yield
    finally:
        os.umask(before)


def _check_free(path: Path, kind: str, overwrite: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    problem = None
    if not path.is_dir():
        problem = Problem(str(path), "there is a file of this name", "name another folder")
    elif not overwrite:
        problem = Problem(str(path), "exists", "name another folder, or use --force")
    else:
        try:
            found = read_metadata(path, kind)
        except UsageError:
            found = None
        if found is None:
            problem = Problem(
                str(path), f"exists and is not a {kind}", "name another folder; this one is kept"
            )
    if problem is not None:
        raise UsageError(f"the {kind} cannot be written", [problem])


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space is left on its disk; free some and repeat the command"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "you may not write there; name another folder"
    return str(error)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file in ``folder`` by its path in it; metadata is left out."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / METADATA
    }


def altered_files(folder: Path, described: Mapping[str, Any]) -> list[Problem]:
    """Return how the files of ``folder`` differ from what ``describe_files`` said of them.

    ``described`` is what a file said, so anything that JSON can hold may be in it.
    """
    return [
        Problem(name, wrong, "restore the folder or create it again")
        for name, expected in described.items()
        if (wrong := _wrong_with(folder, name, expected))
    ]


def _wrong_with(folder: Path, name: str, expected: object) -> str:
    """Return what is wrong with one file; empty if nothing is."""
    if not isinstance(expected, Mapping) or not expected.keys() >= {"bytes", "sha256"}:
        return f"is described as {expected!r:.60} instead of by its bytes and sha256"
    # A name is a path in the folder: what lies elsewhere is not opened.
    if "\0" in name or not {*Path(name).parts}.isdisjoint({"..", "/"}):
        return "is not the name of a file in the folder"
    path = folder / name
    try:
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            return "is missing"
        if size != expected["bytes"]:
            return f"{size} bytes instead of {expected['bytes']!r:.60}"
        return "" if sha256_of(path) == expected["sha256"] else "was altered"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write ``metadata`` as the folder's metadata file."""
    text = json.dumps(metadata, indent=2, ensure_ascii=False)
    with (folder / METADATA).open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metadata(folder: Path, kind: str) -> dict[str, Any]:
    """Return the metadata of a folder of this ``kind``.

    Raises:
        UsageError: there is no such folder, it is of another kind, or its metadata is damaged.
    """
    allowed = f"a folder with a {kind}"
    if not folder.is_dir():
        raise UsageError(f"no {kind}", [Problem(str(folder), "there is no such folder", allowed)])
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"no {kind}", [Problem(str(folder), f"has no {METADATA}", allowed)]
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"no {kind}", [Problem(str(folder / METADATA), f"cannot be read: {error}", allowed)]
        ) from error
    found = metadata.get("kind") if isinstance(metadata, dict) else None
    if found != kind:
        seen = "is something else" if found is None else f"is a {found}"
        raise UsageError(f"no {kind}", [Problem(str(folder), seen, allowed)])
    assert isinstance(metadata, dict)
    return metadata
