"""Artifacts in a folder: the contract, and what only folders can do wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.errors import PermanentError, UsageError
from testbed.storage.artifacts import FolderArtifactStore, open_artifact_store
from testbed.storage.artifacts.base import MANIFEST
from testbed.testing.artifacts import FILES, ArtifactStoreContract, Spoil


@pytest.fixture
def store(tmp_path: Path) -> FolderArtifactStore:
    return FolderArtifactStore(tmp_path / "not yet" / "there")


@pytest.fixture
def spoil(store: FolderArtifactStore) -> Spoil:
    def spoil(key: str, name: str, data: bytes | None) -> None:
        path = store.root / key / name
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    return spoil


class FolderArtifactStoreTests(ArtifactStoreContract):
    pass


def test_reading_makes_no_folder(store: FolderArtifactStore) -> None:
    assert store.list() == []
    assert not store.exists("one")
    store.remove("one")
    assert not store.root.exists()


def test_nothing_but_artifacts_stays_in_the_store(store: FolderArtifactStore) -> None:
    store.put("policies/one", FILES)
    store.put("policies/two", FILES)
    store.remove("policies/two")
    assert list((store.root / ".partial").iterdir()) == []
    assert sorted(os.listdir(store.root)) == [".partial", "policies"]
    assert os.listdir(store.root / "policies") == ["one"]


def test_what_a_killed_writer_left_is_not_an_artifact(store: FolderArtifactStore) -> None:
    store.put("one", FILES)
    aside = store.root / ".partial" / "0123"
    aside.mkdir()
    for name in os.listdir(store.root / "one"):
        if (store.root / "one" / name).is_file():
            (aside / name).write_bytes((store.root / "one" / name).read_bytes())
    assert store.list() == ["one"]


def test_a_store_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PermanentError, match="artifact store"):
        FolderArtifactStore(tmp_path / "file").put("one", FILES)


def test_a_path_and_a_url_name_the_same_store(tmp_path: Path) -> None:
    open_artifact_store(tmp_path / "a b").put("one", FILES)
    assert open_artifact_store(f"file://{tmp_path}/a%20b").get("one") == FILES
    assert open_artifact_store(str(tmp_path / "a b")).exists("one")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "an empty name"),
        ("s3://bucket", "unknown scheme s3://; a path, or file://"),
        ("file://elsewhere/path", "no folder of this machine"),
        ("file://", "no folder of this machine"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        open_artifact_store(url)


def test_a_file_of_another_size_is_not_read(store: FolderArtifactStore) -> None:
    store.put("one", {"file": b"12"})
    path = store.root / "one" / "file"
    # A terabyte, of which nothing is on the disk.
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PermanentError, match=f"one: file has {1 << 40} bytes instead of 2"):
        store.get("one")
    with (store.root / "one" / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PermanentError, match=r"manifest.json has more than"):
        store.get("one")


def test_what_is_no_plain_file_is_not_waited_for(store: FolderArtifactStore) -> None:
    store.put("one", {"file": b"12"})
    for name in ("file", MANIFEST):
        path = store.root / "one" / name
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(PermanentError, match=f"{name} is not a regular file"):
            store.get("one")


def test_a_link_leads_to_no_artifact(store: FolderArtifactStore, tmp_path: Path) -> None:
    other = FolderArtifactStore(tmp_path / "other")
    for each in (store, other):
        each.put("policies/one", {"file": b"12"})
    (store.root / "policies" / "two").symlink_to(other.root / "policies" / "one")
    with pytest.raises(PermanentError, match="policies/two: its folder is a link"):
        store.get("policies/two")
    file = store.root / "policies" / "one" / "file"
    file.unlink()
    file.symlink_to(other.root / "policies" / "one" / "file")
    with pytest.raises(PermanentError, match="file is a link"):
        store.get("policies/one")
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(PermanentError):
        store.get("policies/one")
    whole = tmp_path / "linked"
    whole.symlink_to(other.root)
    assert FolderArtifactStore(whole).get("policies/one") == {"file": b"12"}
