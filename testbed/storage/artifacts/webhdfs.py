"""Artifacts in HDFS over WebHDFS: one folder per artifact, written aside and renamed into place.

The layout is that of the store in a folder, so ``hdfs dfs -get`` brings a store to a disk.
"""

from __future__ import annotations

import builtins
import getpass
import logging
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from testbed.errors import PrerequisiteMissing, Problem, TemporaryError, UsageError
from testbed.scenario.secrets import split_password
from testbed.storage.artifacts.base import (
    LARGEST_ARTIFACT,
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
from testbed.storage.artifacts.webhdfs_failures import absent_is_none, explained
from testbed.storage.documents import check_size

if TYPE_CHECKING:
    from hdfs import Client

FORM: Final = "webhdfs://USER@HOST:PORT/PATH, several NameNodes as HOST:PORT,HOST:PORT"
USER_VARIABLE: Final = "HADOOP_USER_NAME"

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 30.0
PATIENCE_S: Final = 30.0
"""Seconds that a call waits for a NameNode or DataNode that is being restarted."""

CHUNK_BYTES: Final = 64 * 1024

_ASIDE: Final = ".partial"
"""Folder in the store for what is being written or removed; no key begins with a dot."""

_SCHEMES: Final = {"webhdfs": ("http", 9870), "swebhdfs": ("https", 9871)}

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class HdfsFolder:
    """Where a store is: ``nodes`` are the URLs of NameNodes, ``path`` is from the root of HDFS."""

    nodes: tuple[str, ...]
    path: str
    user: str
    kerberos: bool = False
    via: tuple[tuple[str, str], ...] = ()
    """DataNodes (host:port) and how they are reached from here, as through a forwarded port."""

    @classmethod
    def of(cls, url: str) -> HdfsFolder:
        """Return the place of ``url``; the user is the URL's, else HADOOP_USER_NAME, else yours.

        Raises: UsageError: it names no NameNode or no path, or holds what it may not.
        """
        shown, password = split_password(url)
        if password is not None:
            raise _impossible(shown, "is written with a password, which WebHDFS does not know")
        parts = urlsplit(shown)
        scheme, port = _SCHEMES[parts.scheme]
        user, _, hosts = parts.netloc.rpartition("@")
        names = [host for host in hosts.split(",") if host]
        path = "/" + unquote(parts.path).strip("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        kerberos = options.pop("auth", "simple")
        via = tuple(
            (name, reached)
            for name, _, reached in (
                pair.partition("=") for pair in options.pop("via", "").split(",") if pair
            )
        )
        if not names or any(not re.fullmatch(r"(\[[^]]+\]|[^:]+)(:\d+)?", name) for name in names):
            raise _impossible(shown, "names no NameNode")
        if path == "/" or any(part in ("", ".", "..") for part in path[1:].split("/")):
            raise _impossible(shown, "names no folder in HDFS")
        if options or kerberos not in ("simple", "kerberos"):
            raise _impossible(shown, "has an option that is not known; there are auth and via")
        if any(not name or not reached for name, reached in via):
            raise _impossible(shown, "has a via that is not HOST:PORT=HOST:PORT,...")
        return cls(
            tuple(
                f"{scheme}://{name if re.search(r':[0-9]+$', name) else f'{name}:{port}'}"
                for name in names
            ),
            path,
            unquote(user) or os.environ.get(USER_VARIABLE) or getpass.getuser(),
            kerberos == "kerberos",
            via,
        )

    def __str__(self) -> str:
        hosts = ",".join(node.partition("://")[2] for node in self.nodes)
        scheme = "webhdfs" if self.nodes[0].startswith("http://") else "swebhdfs"
        return f"{scheme}://{self.user}@{hosts}{self.path}"

    def client(self) -> Client:
        """Return a client; opens no connection yet. Raises: PrerequisiteMissing: for Kerberos."""
        # It tells the log of every error that it also raises.
        logging.getLogger("hdfs").setLevel(logging.CRITICAL)
        common = {"url": ";".join(self.nodes), "timeout": (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)}
        session = _Session(dict(self.via)) if self.via else requests.Session()
        if self.kerberos:
            try:
                from hdfs.ext.kerberos import KerberosClient
            except ImportError:
                raise PrerequisiteMissing(
                    f"artifact store {self}: the package for Kerberos is not installed",
                    "pip install 'hdfs[kerberos]', then kinit",
                ) from None
            return KerberosClient(session=session, **common)
        from hdfs import InsecureClient

        # Proxies and ~/.netrc are for the world outside.
        session.trust_env = False
        return InsecureClient(user=self.user, session=session, **common)


class _Session(requests.Session):
    """Goes to some hosts by another way, also where a NameNode sends it on to a DataNode."""

    def __init__(self, via: Mapping[str, str]) -> None:
        super().__init__()
        self._via = via

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        parts = urlsplit(request.url or "")
        if (reached := self._via.get(parts.netloc)) is not None:
            request.headers["Host"] = parts.netloc
            request.url = urlunsplit(parts._replace(netloc=reached))
        return super().send(request, **options)


class WebHdfsArtifactStore:
    """An ``ArtifactStore`` in HDFS, in a folder that is made when something is put.

    A call that meets a temporary trouble is repeated for up to ``patience_s`` seconds; every call
    may be. Of several NameNodes, the one that answers and is active is used.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self.place = HdfsFolder.of(url)
        from hdfs import HdfsError

        self._refused = HdfsError
        self._root = self.place.path
        self._client = self.place.client()
        self._patience_s = patience_s

    def put(self, key: str, content: Content) -> None:
        """See ``ArtifactStore``."""
        check_key(key)
        files = files_of(content)
        self._patiently(key, lambda: self._put(key, files, manifest_of(files)))

    def _put(self, key: str, files: dict[str, bytes], manifest: bytes) -> None:
        # Repeated after a lost answer it finds its own artifact, and is done.
        if self._is_taken(key, manifest):
            return
        target, aside = self._path(key), self._aside()
        try:
            # Folders that come into being with a file are open to everybody.
            below = {f"{aside}/{name}".rpartition("/")[0] for name in files}
            for folder in (*sorted({aside} | below), target.rpartition("/")[0]):
                self._client.makedirs(folder)
            for name, data in {**files, MANIFEST: manifest}.items():
                self._client.write(f"{aside}/{name}", data=data)
            self._move(aside, target)
        except BaseException:
            self._forget(aside)
            # Somebody else put it in the meantime: the same, or not.
            if not self._is_taken(key, manifest):
                raise
        else:
            if not self._is_taken(key, manifest):
                raise TemporaryError(
                    f"artifact store {self.place}, {key}: it was removed while it was stored"
                )

    def _is_taken(self, key: str, manifest: bytes) -> bool:
        """Return whether ``key`` holds this content. Raises: UsageError: it holds another."""
        parts = key.split("/")
        for count in range(1, len(parts)):
            above = "/".join(parts[:count])
            if self._status(f"{self._path(above)}/{MANIFEST}") is not None:
                raise taken_key(above)
        held = self._read(f"{self._path(key)}/{MANIFEST}", LARGEST_MANIFEST)
        if held is None:
            if self._entries(self._path(key)):
                # Other artifacts are below it.
                raise taken_key(key)
            return False
        if held != manifest:
            raise taken_key(key)
        return True

    def get(self, key: str) -> dict[str, bytes]:
        """See ``ArtifactStore``."""
        return self._patiently(check_key(key), lambda: self._get(key))

    def _get(self, key: str) -> dict[str, bytes]:
        folder = self._path(key)
        held = self._read(f"{folder}/{MANIFEST}", LARGEST_MANIFEST)
        if held is None:
            raise unknown_key(key, sorted(self._keys("")))
        files = {}
        for name, expected in read_manifest(key, held).items():
            data = None
            status = self._status(f"{folder}/{name}")
            if status is not None:
                try:
                    check_size(int(status.get("length", 0)), LARGEST_ARTIFACT, expected["bytes"])
                except ValueError as error:
                    raise wrong_file(key, name, str(error)) from None
                data = self._read(f"{folder}/{name}", expected["bytes"])
            files[name] = verify(key, name, data, expected)
        return files

    def exists(self, key: str) -> bool:
        """See ``ArtifactStore``."""
        path = f"{self._path(check_key(key))}/{MANIFEST}"
        return self._patiently(key, lambda: self._status(path) is not None)

    def list(self, prefix: str = "") -> builtins.list[str]:
        """See ``ArtifactStore``."""
        if prefix:
            check_key(prefix)
        return self._patiently(prefix or "list", lambda: sorted(self._keys(prefix)))

    def remove(self, key: str) -> None:
        """See ``ArtifactStore``."""
        self._patiently(check_key(key), lambda: self._remove(key))

    def _remove(self, key: str) -> None:
        folder = self._path(key)
        if self._status(f"{folder}/{MANIFEST}") is None:
            return
        # Renamed first: no reader finds half of it.
        aside = self._aside()
        self._client.makedirs(aside.rpartition("/")[0])
        try:
            self._move(folder, aside)
        except self._refused:
            # Somebody else removed it.
            if self._status(f"{folder}/{MANIFEST}") is not None:
                raise
        self._forget(aside)

    # --- HDFS -------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _aside(self) -> str:
        return f"{self._root}/{_ASIDE}/.{secrets.token_hex(8)}"

    def _keys(self, prefix: str) -> Sequence[str]:
        found: builtins.list[str] = []
        waiting = [prefix]
        while waiting:
            key = waiting.pop()
            entries = self._entries(self._path(key))
            if any(name == MANIFEST and not folder for name, folder in entries):
                found.append(key)
                continue
            below = [name for name, folder in entries if folder and not name.startswith(".")]
            waiting += [f"{key}/{name}" if key else name for name in below]
        return found

    def _entries(self, path: str) -> Sequence[tuple[str, bool]]:
        """Return the entries of a folder and which are folders; none if it is absent."""
        with absent_is_none():
            listed = self._client.list(path, status=True)
            return [(name, status["type"] == "DIRECTORY") for name, status in listed]
        return []

    def _status(self, path: str) -> dict[str, Any] | None:
        with absent_is_none():
            return dict(self._client.status(path))
        return None

    def _read(self, path: str, largest: int) -> bytes | None:
        """Return the bytes of a file; of one longer than ``largest``, one byte more than that."""
        with (
            absent_is_none(),
            self._client.read(path, length=largest + 1, chunk_size=CHUNK_BYTES) as chunks,
        ):
            data = bytearray()
            # A server may send more than it was asked for.
            for chunk in chunks:
                data += chunk[: largest + 1 - len(data)]
                if len(data) > largest:
                    break
            return bytes(data)
        return None

    def _move(self, source: str, target: str) -> None:
        """Rename; an empty folder, left when artifacts below it were removed, is replaced."""
        if self._status(target) is not None:
            self._client.delete(target)
        # With an option named, the server refuses a target that is there; without, it would move
        # the source into it. The library's public call cannot name one.
        self._client._rename(source, destination=target, renameoptions="NONE")

    def _forget(self, path: str) -> None:
        """Remove what is left over; what cannot be removed now is in nobody's way."""
        with suppress(self._refused, requests.RequestException):
            self._client.delete(path, recursive=True)

    def _patiently(self, what: str, call: Callable[[], _Result]) -> _Result:
        waiting = Retrying(
            retry=retry_if_exception_type(TemporaryError),
            stop=stop_after_delay(self._patience_s),
            wait=wait_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        )

        def attempt() -> _Result:
            with explained(f"artifact store {self.place}, {what}"):
                return call()

        return waiting(attempt)


def _impossible(url: str, seen: str) -> UsageError:
    return UsageError(
        "the artifact store cannot be opened", [Problem("artifacts", f"{url} {seen}", FORM)]
    )
