"""Kubeconfigs of several files, damaged ones, plugins that fail, and servers that are none."""

from __future__ import annotations

import datetime
import http.server
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.errors import PrerequisiteMissing
from testbed.runtime.kubernetes import credentials
from testbed.runtime.kubernetes.api import Cluster
from testbed.runtime.kubernetes.credentials import from_plugin
from testbed.runtime.kubernetes.kubeconfig import choose, current_context, read


def config(
    server: str = "http://127.0.0.1:1",
    *,
    name: str = "lab",
    current: str | None = "lab",
    user: dict[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    return document if current is None else {**document, "current-context": current}


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes KUBECONFIG name these files, in this order; None is one that does not exist."""

    def make(*documents: object) -> None:
        names = [tmp_path / f"m{index}" / "config" for index, _ in enumerate(documents, start=1)]
        for name, document in zip(names, documents, strict=True):
            if document is not None:
                write(name, document)
        monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, names)))

    return make


@pytest.mark.parametrize(
    ("documents", "context", "server"),
    [
        # The first file that sets the current context, and not the last.
        ([config("http://a", name="a", current="a"), config("http://b", name="b", current="b")],
         "a", "http://a"),
        # One without a current context does not count.
        ([config("http://a", name="a", current=None), config("http://b", name="b", current="b")],
         "b", "http://b"),
        ([config("http://a", name="a", current=""), config("http://b", name="b", current="b")],
         "b", "http://b"),
        # The same name in both: the first file's, whole.
        ([config("http://a", current=None), config("http://b", current="lab")], "lab", "http://a"),
        # Files that do not exist, are empty, or hold a part only.
        ([None, config("http://b")], "lab", "http://b"),
        (["", config("http://b")], "lab", "http://b"),
        ([{"current-context": "lab"}, config("http://b", current="other")], "lab", "http://b"),
        # A cluster may stand in another file than the context that names it.
        ([{"clusters": [{"name": "lab", "cluster": {"server": "http://first"}}]},
          config("http://b")], "lab", "http://first"),
    ],
)  # fmt: skip
def test_several_files_are_merged_as_kubectl_does(
    several: Callable[..., None], documents: list[object], context: str, server: str
) -> None:
    several(*documents)
    chosen = choose(read(None), None)
    assert (chosen.name, chosen.server) == (context, server)
    assert current_context(None) == context
    cluster = Cluster()
    assert cluster.server == server
    assert cluster.described == f"context '{context}', API server {server}"
    assert cluster.client.configuration.host == server


def test_paths_start_at_the_file_they_stand_in(
    several: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "m2").mkdir()
    (tmp_path / "m2" / "token").write_text("from-m2")
    several(config(current=None, name="x"), config(user={"tokenFile": "token"}))
    settings = Cluster().client.configuration
    assert settings.api_key["BearerToken"] == "Bearer from-m2"


NO_CA = {"certificate-authority": "/nowhere/ca"}
NO_BASE64 = {"certificate-authority-data": "abcde"}
DAMAGED: list[tuple[str, object, str]] = [
    ("not YAML", "clusters: [\nusers: }", "is not YAML, line 2"),
    ("bytes", "\x00\x01\x02", "is not YAML"),
    ("a page", "<!DOCTYPE html><html><body>Log in</body></html>", "no mapping"),
    ("text", "hello", "no mapping"),
    ("a list", "- 1", "no mapping"),
    ("no entries", "apiVersion: v1\ncurrent-context: lab", "no context 'lab'"),
    ("empty", "", "no current context"),
    ("a text of clusters", {"clusters": "lab", "current-context": "lab"}, "clusters is no list"),
    ("no names", {"users": [{"user": {}}]}, "entry without a name"),
    ("a text as a user", {"users": [{"name": "a", "user": "b"}]}, "'a' is no mapping"),
    ("a number as context", {"current-context": 3}, "current-context is no text"),
    ("no cluster", {**config(), "clusters": []}, "cluster 'lab', which is not there"),
    ("no user", {**config(), "users": []}, "user 'lab', who is not there"),
    ("no server", config(""), "no server that is a URL"),
    ("gcp", config(user={"auth-provider": {"name": "gcp"}}), "auth provider 'gcp'"),
    ("azure", config(user={"auth-provider": {"name": "azure", "config": {}}}), "kubelogin"),
    ("oidc", config(user={"auth-provider": {"name": "oidc"}}), "auth provider 'oidc'"),
    ("text as provider", config(user={"auth-provider": "gcp"}), "auth provider 'gcp'"),
    ("no token file", config(user={"tokenFile": "/nowhere/token"}), "/nowhere/token"),
    ("no authority", config("https://a", cluster=NO_CA), "/nowhere/ca"),
    ("bad base64", config("https://a", cluster=NO_BASE64), "cannot be used"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "reason"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED]
)
def test_a_damaged_kubeconfig_is_named_with_the_reason(
    tmp_path: Path, document: object, reason: str
) -> None:
    file = write(tmp_path / "config", document)
    with pytest.raises(PrerequisiteMissing) as caught:
        Cluster(file).client  # noqa: B018
    assert reason in str(caught.value)
    assert str(file) in str(caught.value)
    assert_kubectl_is_of_the_file(str(caught.value), file)


def assert_kubectl_is_of_the_file(said: str, file: Path) -> None:
    """A bare kubectl would ask the cluster of the user's own kubeconfig."""
    assert said.count("`kubectl ") == said.count(f"`kubectl --kubeconfig {file} ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="does not exist"):
        Cluster(tmp_path / "absent").version()


# --- plugins ------------------------------------------------------------------------------------

GIVES = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}


def plugin(folder: Path, script: str, **more: Any) -> Path:
    """A kubeconfig whose user gets credentials from a program with this text."""
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    body = {"apiVersion": GIVES["apiVersion"], "command": "./plugin", "args": ["get"], **more}
    return write(folder / "config", config(user={"exec": body}))


def printing(document: object) -> str:
    return f"cat <<'END'\n{json.dumps(document)}\nEND"


FAILING = [
    ("fails", "echo 'session expired, log in' >&2; exit 3", "exit code 3:\nsession expired"),
    ("says nothing and fails", "exit 1", "wrote nothing to standard error"),
    ("prints nothing", "true", "printed nothing"),
    ("prints text", "echo hello; echo oops >&2", "not JSON:\noops"),
    ("prints a page", "echo '<html>'", "not JSON"),
    ("prints a list", "echo '[]'", "no ExecCredential"),
    ("prints another kind", printing({**GIVES, "kind": "Pod"}), "no ExecCredential"),
    ("prints another API", printing({**GIVES, "apiVersion": "v9"}), "another API"),
    ("has no status", printing(GIVES), "without a status"),
    ("has no token", printing({**GIVES, "status": {}}), "neither a token"),
    ("has no key", printing({**GIVES, "status": {"clientCertificateData": "x"}}), "neither"),
    ("has a number", printing({**GIVES, "status": {"token": 3}}), "no text"),
    (
        "expires never",
        printing({**GIVES, "status": {"token": "t", "expirationTimestamp": "soon"}}),
        "which is no time",
    ),
]


@pytest.mark.parametrize(
    ("script", "reason"), [f[1:] for f in FAILING], ids=[f[0] for f in FAILING]
)
def test_a_plugin_that_gives_nothing_is_named_with_what_it_said(
    tmp_path: Path, script: str, reason: str
) -> None:
    with pytest.raises(PrerequisiteMissing) as caught:
        Cluster(plugin(tmp_path, script)).version()
    assert reason in str(caught.value)
    assert f"(`{tmp_path}/plugin get`)" in str(caught.value)
    assert str(tmp_path / "config") in str(caught.value)
    assert f"`kubectl --kubeconfig {tmp_path / 'config'} auth whoami`" in str(caught.value)


def test_hints_name_the_context_that_was_asked_for(several: Callable[..., None]) -> None:
    several(config(user={"auth-provider": {"name": "gcp"}}))
    with pytest.raises(PrerequisiteMissing, match="`kubectl --context lab auth whoami` answers"):
        Cluster(context="lab").version()


def test_a_plugin_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    file = plugin(tmp_path, "echo 'opening your browser' >&2; sleep 600 & wait")
    begun = time.monotonic()
    with pytest.raises(PrerequisiteMissing, match="within 1 s:\nopening your browser"):
        from_plugin(choose(read(file), None), patience_s=1.0)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"command": "no-such-program-here"}, "is not there"),
        ({"command": "no-such-program-here", "installHint": "get it from the admin"}, "the admin"),
        ({"command": "/"}, "cannot be run"),
        ({"command": None}, r"has no command\s+fix: see `kubectl --kubeconfig \S+ config view`"),
    ],
)
def test_a_plugin_that_cannot_be_started_is_named(
    tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PrerequisiteMissing, match=reason):
        Cluster(plugin(tmp_path, "true", **more)).version()


def test_a_plugin_is_told_what_it_is_asked_for_and_is_asked_again_in_time(tmp_path: Path) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    given = {**GIVES, "status": {"token": "t$count", "expirationTimestamp": soon.isoformat()}}
    text = json.dumps(given).replace('"', '\\"')
    script = (
        f'cd {tmp_path}; echo x >> asked; echo "$KUBERNETES_EXEC_INFO $WHO" > info\n'
        f'count=$(wc -l < asked); echo "{text}"'
    )
    file = plugin(tmp_path, script, env=[{"name": "WHO", "value": "me"}], provideClusterInfo=True)
    settings = Cluster(file).client.configuration
    first, second = (settings.get_api_key_with_prefix("BearerToken") for _ in range(2))
    assert (first, second) == ("Bearer t2", "Bearer t3")
    told, _, who = (tmp_path / "info").read_text().strip().rpartition(" ")
    assert who == "me"
    assert json.loads(told)["spec"]["cluster"]["server"] == "http://127.0.0.1:1"
    assert credentials.PLUGIN_S <= 60


# --- servers that are none ----------------------------------------------------------------------


@contextmanager
def answering(status: int, body: str, **headers: str) -> Iterator[str]:
    """A server of one answer; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_PATCH = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PAGE = "<html><head><title>Campus network: log in</title></head></html>"


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason"),
    [
        (200, PAGE, {"Content_Type": "text/html"}, "Campus network: log in"),
        (200, PAGE, {}, "a web page"),
        (200, "OK", {"Content_Type": "text/plain"}, "not JSON"),
        (200, "", {}, "not JSON"),
        (200, "[]", {}, "no object of the API"),
        (200, '{"hello": 1}', {}, "no version"),
        (302, "", {"Location": "https://login.example/"}, "a redirection to https://login.example/"),
        (401, PAGE, {"Content_Type": "text/html"}, "a web page"),
        (403, PAGE, {"Content_Type": "text/html; charset=utf-8"}, "a web page"),
        (404, PAGE, {"Content_Type": "text/html"}, "a web page"),
    ],
)  # fmt: skip
def test_what_is_no_api_server_is_named_by_its_url(
    tmp_path: Path, status: int, body: str, headers: dict[str, str], reason: str
) -> None:
    with answering(status, body, **headers) as url:
        cluster = Cluster(write(tmp_path / "config", config(url)))
        with pytest.raises(PrerequisiteMissing) as caught:
            cluster.version()
        if status == 200 and body.startswith("{"):
            with pytest.raises(PrerequisiteMissing, match="no list"):
                cluster.find_all("Pod", "here")
    assert reason in str(caught.value)
    assert url in str(caught.value)
    assert f"`kubectl --kubeconfig {tmp_path / 'config'} version` answers" in str(caught.value)


def test_a_server_that_refuses_is_said_within_seconds_and_told_of_before(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told: list[str] = []
    file = write(tmp_path / "config", config(f"https://127.0.0.1:{port}"))
    cluster = Cluster(file, tell=told.append)
    begun = time.monotonic()
    with pytest.raises(PrerequisiteMissing, match="does not answer"):
        cluster.version()
    # Six seconds of patience; a loaded machine may add to that, but not the 45 s of one that is up.
    assert time.monotonic() - begun < 30
    assert len(told) >= 2
    assert f"127.0.0.1:{port}" in told[0]
    assert any("trying for another" in line for line in told)


def test_a_certificate_that_is_not_trusted_is_said_at_once(tmp_path: Path) -> None:
    with answering(200, "{}") as url:
        # A server without TLS is as wrong as one with another authority.
        cluster = Cluster(write(tmp_path / "config", config(url.replace("http:", "https:"))))
        with pytest.raises(PrerequisiteMissing, match="no secure connection"):
            cluster.version()
