"""Artifacts in HDFS: the contract, and what servers do wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from testbed.errors import PermanentError, TemporaryError
from testbed.storage.artifacts import open_artifact_store
from testbed.storage.artifacts.webhdfs import WebHdfsArtifactStore
from testbed.testing.artifacts import FILES, ArtifactStoreContract, Spoil
from tests.services.hdfs import Hdfs
from tests.services.ports import free_ports

pytestmark = pytest.mark.hdfs


@pytest.fixture
def store(webhdfs_url: str) -> WebHdfsArtifactStore:
    store = open_artifact_store(webhdfs_url)
    assert isinstance(store, WebHdfsArtifactStore)
    return store


@pytest.fixture
def spoil(store: WebHdfsArtifactStore) -> Spoil:
    def spoil(key: str, name: str, data: bytes | None) -> None:
        path = f"{store.place.path}/{key}/{name}"
        if data is None:
            assert store._client.delete(path)
        else:
            store._client.write(path, data=data, overwrite=True)

    return spoil


class WebHdfsArtifactStoreTests(ArtifactStoreContract):
    pass


def names(store: WebHdfsArtifactStore, path: str = "") -> list[str]:
    found: list[str] = store._client.list(f"{store.place.path}/{path}".rstrip("/"))
    return sorted(found)


def test_reading_makes_no_folder(store: WebHdfsArtifactStore) -> None:
    assert store.list() == []
    assert not store.exists("one")
    store.remove("one")
    assert store._client.status(store.place.path, strict=False) is None


def test_nothing_but_artifacts_stays_in_the_store(store: WebHdfsArtifactStore) -> None:
    store.put("policies/one", FILES)
    store.put("policies/two", FILES)
    store.remove("policies/two")
    assert names(store) == [".partial", "policies"]
    assert names(store, ".partial") == []
    assert names(store, "policies") == ["one"]


def test_what_a_killed_writer_left_is_not_an_artifact(store: WebHdfsArtifactStore) -> None:
    store.put("one", FILES)
    for name in ("actor.onnx", "manifest.json"):
        store._client.write(f"{store.place.path}/.partial/.0123/{name}", data=b"half")
    assert store.list() == ["one"]


def test_a_store_without_a_user_in_its_url_is_yours(
    store: WebHdfsArtifactStore, webhdfs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("one", FILES)
    monkeypatch.setenv("HADOOP_USER_NAME", "somebody")
    other = open_artifact_store(webhdfs_url)
    assert other.get("one") == FILES
    with pytest.raises(PermanentError, match=r"access is denied.*user=somebody.*-chown"):
        other.put("two", FILES)
    with pytest.raises(PermanentError, match="access is denied"):
        other.remove("one")
    assert store.list() == ["one"]
    assert names(store, ".partial") == []
    for path in ("", "/one", "/one/curves", "/.partial"):
        assert store._client.status(store.place.path + path)["permission"] == "755"


def test_the_node_that_answers_is_used(webhdfs_url: str) -> None:
    (dead,) = free_ports(1)
    url = webhdfs_url.replace("://", f"://127.0.0.1:{dead},", 1)
    store = open_artifact_store(url)
    store.put("one", FILES)
    assert open_artifact_store(webhdfs_url).get("one") == FILES


def test_servers_that_are_down_are_a_temporary_trouble() -> None:
    one, other = free_ports(2)
    store = WebHdfsArtifactStore(
        f"webhdfs://me@127.0.0.1:{one},127.0.0.1:{other}/store", patience_s=0.3
    )
    calls: list[Callable[[], Any]] = [
        lambda: store.put("one", FILES),
        lambda: store.get("one"),
        lambda: store.exists("one"),
        store.list,
        lambda: store.remove("one"),
    ]
    for call in calls:
        with pytest.raises(TemporaryError, match=r"cannot be reached.*Connection refused"):
            call()


@pytest.mark.parametrize("process", ["namenode", "datanode"])
def test_an_upload_goes_on_when_a_server_comes_back(hadoop: Hdfs, process: str) -> None:
    """Killed between the files of an artifact: nobody sees half of it, and it is stored whole."""
    files = {f"part-{number}": bytes([number]) * 1000 for number in range(10)}
    store = WebHdfsArtifactStore(f"{hadoop.url}/{process}", patience_s=60)
    store.put("before", FILES)
    written, killed = threading.Event(), threading.Event()
    count = 0

    def response(answer: requests.Response, **_: object) -> None:
        nonlocal count
        count += answer.status_code == 201
        if count == 5 and not written.is_set():
            written.set()
            assert killed.wait(30)

    store._client._session.hooks["response"].append(response)
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(store.put, "torn", files)
        try:
            assert written.wait(30)
            assert WebHdfsArtifactStore(f"{hadoop.url}/{process}").list() == ["before"]
            getattr(hadoop, f"kill_{process}")()
        finally:
            killed.set()
        getattr(hadoop, f"start_{process}")()
        putting.result(60)
    assert store.list() == ["before", "torn"]
    assert store.get("torn") == files
    assert store.get("before") == FILES


def test_a_full_quota_leaves_nothing_half(hadoop: Hdfs) -> None:
    store = WebHdfsArtifactStore(f"{hadoop.url}/full")
    store.put("before", FILES)
    set_quota = hadoop.request(
        "PUT", "/shared/full", op="SETQUOTA", namespacequota="-1", storagespacequota="1500000"
    )
    assert set_quota.status_code == 200, set_quota.text
    with pytest.raises(PermanentError, match=r"quota.*remove artifacts"):
        store.put("large", {"first": b"x" * 10, "large": b"x" * 3_000_000})
    assert store.list() == ["before"]
    assert not store.exists("large")
    assert store.get("before") == FILES


def test_full_disks_leave_nothing_half(hadoop: Hdfs) -> None:
    store = WebHdfsArtifactStore(f"{hadoop.url}/no-space", patience_s=0.3)
    store.put("before", FILES)
    hadoop.kill_datanode()
    hadoop.start_datanode(full=True)
    try:
        with pytest.raises(TemporaryError, match=r"none is running, or all are full.*free some"):
            store.put("after", FILES)
        assert store.list() == ["before"]
        assert store.get("before") == FILES
    finally:
        hadoop.kill_datanode()
        hadoop.start_datanode()
    store.put("after", FILES)
    assert store.get("after") == FILES


def test_a_damaged_block_is_not_given_out(hadoop: Hdfs) -> None:
    store = WebHdfsArtifactStore(f"{hadoop.url}/damaged", patience_s=0.5)
    data = b"the bytes of this policy " * 1000
    store.put("one", {"actor.onnx": data})
    (block,) = [
        path
        for path in (hadoop.folder / "data").rglob("blk_*")
        if path.suffix != ".meta" and path.read_bytes() == data
    ]
    block.write_bytes(data[: len(data) // 2])
    with pytest.raises((PermanentError, TemporaryError)):
        store.get("one")
