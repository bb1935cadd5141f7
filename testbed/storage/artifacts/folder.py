"""Artifacts in a folder: one folder per artifact, written aside and renamed into its place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testbed.errors import PermanentError
from testbed.storage.artifacts.base import (
    LARGEST_MANIFEST,
    MANIFEST,
    Content,
    check_key,
    files_of,
    manifest_of,
    read_manifest,
    taken_key,
    unknown_key,
    verify,
    wrong_file,
)
from testbed.storage.documents import read_file
from testbed.storage.folders import as_open_as

_ASIDE: Final = ".partial"
"""Folder in the store for what is being written or removed; no key begins with a dot."""


class FolderArtifactStore:
    """An ``ArtifactStore`` in the folder ``root``, which is made when something is put."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def put(self, key: str, content: Content) -> None:
        """See ``ArtifactStore``."""
        files = files_of(content)
        target = self._folder(key)
        manifest = manifest_of(files)
        with self._explained(key), as_open_as(self.root):
            if self._is_taken(key, target, manifest):
                return
            aside = self._aside()
            try:
                for name, data in {**files, MANIFEST: manifest}.items():
                    path = aside / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("xb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    aside.rename(target)
                except OSError as error:
                    # Somebody else put it in the meantime: the same, or not.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if not self._is_taken(key, target, manifest):
                        raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _is_taken(self, key: str, target: Path, manifest: bytes) -> bool:
        """Return whether ``key`` holds this content. Raises: UsageError: it holds another."""
        for part in target.parents:
            if part == self.root:
                break
            if (part / MANIFEST).exists():
                raise taken_key(part.relative_to(self.root).as_posix())
        try:
            held = read_file(target / MANIFEST, LARGEST_MANIFEST)
        except ValueError:
            raise taken_key(key) from None
        except FileNotFoundError:
            if target.exists() and any(target.iterdir()):
                # Other artifacts are below it.
                raise taken_key(key) from None
            return False
        if held != manifest:
            raise taken_key(key)
        return True

    def get(self, key: str) -> dict[str, bytes]:
        """See ``ArtifactStore``."""
        folder = self._folder(key)
        with self._explained(key):
            self._check_place(key, folder)
            try:
                held = read_file(folder / MANIFEST, LARGEST_MANIFEST)
            except (FileNotFoundError, NotADirectoryError):
                raise unknown_key(key, self.list()) from None
            except ValueError as error:
                raise wrong_file(key, MANIFEST, str(error)) from None
            files: dict[str, bytes] = {}
            for name, expected in read_manifest(key, held).items():
                data = self._read(key, folder, name, expected["bytes"])
                files[name] = verify(key, name, data, expected)
            return files

    def _read(self, key: str, folder: Path, name: str, size: int) -> bytes | None:
        """Return the bytes of one file, of which nothing is read unless it has this size."""
        path = folder / name
        try:
            # Nothing that lies elsewhere belongs to an artifact.
            if os.path.realpath(path) != os.path.join(os.path.realpath(folder), name):
                raise ValueError("is a link")
            return read_file(path, size, exactly=size)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise wrong_file(key, name, str(error)) from None

    def _check_place(self, key: str, folder: Path) -> None:
        """Raise PermanentError if a link leads from the key to a folder elsewhere."""
        if os.path.realpath(folder) != os.path.join(os.path.realpath(self.root), key):
            raise PermanentError(
                f"artifact {key}: its folder is a link; only the store's own folders are read"
            )

    def exists(self, key: str) -> bool:
        """See ``ArtifactStore``."""
        return (self._folder(key) / MANIFEST).is_file()

    def list(self, prefix: str = "") -> list[str]:
        """See ``ArtifactStore``."""
        below = self._folder(prefix) if prefix else self.root
        with self._explained(prefix or "list"):
            return sorted(
                manifest.parent.relative_to(self.root).as_posix()
                for manifest in below.rglob(MANIFEST)
                if _ASIDE not in manifest.relative_to(self.root).parts
            )

    def remove(self, key: str) -> None:
        """See ``ArtifactStore``."""
        folder = self._folder(key)
        with self._explained(key):
            if not (folder / MANIFEST).exists():
                return
            # Renamed first: no reader finds half of it.
            aside = self._aside()
            try:
                folder.rename(aside / "removed")
            except FileNotFoundError:
                # Somebody else removed it.
                pass
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self.root / check_key(key)

    def _aside(self) -> Path:
        aside = self.root / _ASIDE / secrets.token_hex(8)
        aside.mkdir(parents=True)
        return aside

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                seen, fix = "no space is left on its disk", "free some and repeat the command"
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                seen = "access is denied"
                fix = "make the folder readable and writable, or name another"
            else:
                seen, fix = str(error), ""
            raise PermanentError(f"artifact store {self.root}, {what}: {seen}", fix=fix) from error
