"""What a URL of a store in HDFS means, and which ones mean nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from testbed.errors import PrerequisiteMissing, TemporaryError, UsageError
from testbed.storage.artifacts import open_artifact_store
from testbed.storage.artifacts.webhdfs import HdfsFolder, WebHdfsArtifactStore


def test_a_url_names_nodes_path_and_user() -> None:
    place = HdfsFolder.of("webhdfs://me@nn1:9870,nn2/edge/test%20bed")
    assert place == HdfsFolder(("http://nn1:9870", "http://nn2:9870"), "/edge/test bed", "me")
    assert str(place) == "webhdfs://me@nn1:9870,nn2:9870/edge/test bed"
    assert HdfsFolder.of("swebhdfs://me@nn1/edge").nodes == ("https://nn1:9871",)
    assert HdfsFolder.of("webhdfs://me@[::1]:50070/edge/").nodes == ("http://[::1]:50070",)
    assert HdfsFolder.of("webhdfs://me@nn/edge?auth=kerberos").kerberos


def test_the_user_comes_from_where_hadoop_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "hadoop's")
    assert HdfsFolder.of("webhdfs://nn/edge").user == "hadoop's"
    assert HdfsFolder.of("webhdfs://me@nn/edge").user == "me"
    monkeypatch.delenv("HADOOP_USER_NAME")
    monkeypatch.setenv("LOGNAME", "mine")
    assert HdfsFolder.of("webhdfs://nn/edge").user == "mine"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("webhdfs:///path", "names no NameNode"),
        ("webhdfs://me@/path", "names no NameNode"),
        ("webhdfs://nn1:x/path", "names no NameNode"),
        ("webhdfs://nn1", "names no folder"),
        ("webhdfs://nn1/", "names no folder"),
        ("webhdfs://nn1/a/../b", "names no folder"),
        ("webhdfs://nn1/a?replication=3", "an option that is not known"),
        ("webhdfs://nn1/a?auth=ntlm", "an option that is not known"),
        ("webhdfs://me:secret@nn1/a", "written with a password"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        open_artifact_store(url)
    assert "webhdfs://USER@HOST:PORT/PATH" in str(caught.value)
    assert "secret" not in str(caught.value)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_something_that_is_no_hdfs_is_explained() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.01)
        try:
            store = WebHdfsArtifactStore(
                f"webhdfs://me@127.0.0.1:{server.server_port}/store", patience_s=0.1
            )
            with pytest.raises(TemporaryError, match="does not speak WebHDFS, or not yet"):
                store.list()
        finally:
            server.shutdown()


def test_kerberos_needs_its_package() -> None:
    with pytest.raises(PrerequisiteMissing, match=r"hdfs\[kerberos\]"):
        open_artifact_store("webhdfs://me@nn1/a?auth=kerberos")
