"""API servers that say nothing: refused, silent, endless, or of a name that cannot be looked up."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed.errors import PrerequisiteMissing
from testbed.runtime.kubernetes import api
from testbed.runtime.kubernetes.api import Cluster
from tests.cli.conftest import Command, home, testbed
from tests.runtime.kubernetes.test_kubeconfig import config, write

__all__ = ["home", "testbed"]

SLACK_S = 5.0
"""For a loaded machine."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the waiting."""
    for name in ("FIRST_CONTACT_S", "FIRST_PATIENCE_S", "FIRST_CONNECT_S", "FIRST_READ_S"):
        monkeypatch.setattr(api, name, getattr(api, name) / 10)
    monkeypatch.setattr(api, "_TELL_EVERY_S", 0.2)


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does ``answer`` with every connection, and keeps it open; its port."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                held.append(connection)
                threading.Thread(target=quietly, args=(connection,), daemon=True).start()

        def quietly(connection: socket.socket) -> None:
            try:
                answer(connection)
            except OSError:
                # The client has gone.
                return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()


def certificate(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + made.public_bytes(serialization.Encoding.PEM)
    (folder / "server.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def silent(connection: socket.socket) -> None:
    """Say nothing."""


def endless(connection: socket.socket) -> None:
    """Begin an answer, and send a byte of it now and then."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def behind_tls(folder: Path) -> Callable[[socket.socket], None]:
    context = certificate(folder)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            while secure.recv(4096):
                pass

    return answer


def cluster_at(url: str, folder: Path, told: list[str]) -> Cluster:
    unchecked = {"insecure-skip-tls-verify": True} if url.startswith("https") else {}
    return Cluster(write(folder / "config", config(url, cluster=unchecked)), tell=told.append)


def refused(cluster: Cluster) -> tuple[str, float]:
    begun = time.monotonic()
    with pytest.raises(PrerequisiteMissing) as caught:
        cluster.version()
    return str(caught.value), time.monotonic() - begun


def test_the_limits_add_up_to_ten_seconds() -> None:
    assert api.FIRST_CONTACT_S < 10
    assert api.FIRST_PATIENCE_S < api.FIRST_CONTACT_S
    assert api.FIRST_READ_S < api.FIRST_CONTACT_S


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["silent", "silent before TLS", "silent after TLS", "endless"])
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_server_that_accepts_and_does_not_answer(tmp_path: Path, how: str) -> None:
    answers = {"endless": endless, "silent after TLS": behind_tls(tmp_path)}
    told: list[str] = []
    with serving(answers.get(how, silent)) as port:
        url = f"{'https' if 'TLS' in how else 'http'}://127.0.0.1:{port}"
        said, seconds = refused(cluster_at(url, tmp_path, told))
    assert f"the API server at {url} does not answer" in said
    assert str(tmp_path / "config") in said
    assert seconds < api.FIRST_CONTACT_S + SLACK_S
    assert told
    assert all(url in line for line in told)


@pytest.mark.usefixtures("impatient")
def test_one_that_refuses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    told: list[str] = []
    said, seconds = refused(cluster_at(url, tmp_path, told))
    assert f"the API server at {url} does not answer (Connection refused)" in said.replace(
        "[Errno 111] ", ""
    )
    assert seconds < api.FIRST_CONTACT_S + SLACK_S
    assert told


@pytest.mark.usefixtures("impatient")
def test_a_name_whose_look_up_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def blocking(*arguments: Any, **options: Any) -> list[Any]:
        over.wait(60)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", blocking)
    told: list[str] = []
    said, seconds = refused(cluster_at("https://api.example:6443", tmp_path, told))
    over.set()
    assert "the API server at https://api.example:6443 does not answer (nothing for" in said
    assert seconds < api.FIRST_CONTACT_S + SLACK_S
    assert told[0].startswith("waiting for the API server at https://api.example:6443, for")


@pytest.mark.usefixtures("impatient")
def test_a_name_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: Any, **options: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said, seconds = refused(cluster_at("https://api.example:6443", tmp_path, []))
    assert "https://api.example:6443 does not answer" in said
    assert "Name or service not known" in said
    assert seconds < api.FIRST_CONTACT_S + SLACK_S


def test_the_command_says_so_within_ten_seconds(testbed: Command, tmp_path: Path) -> None:
    with serving(silent) as port:
        file = write(tmp_path / "config", config(f"https://127.0.0.1:{port}"))
        begun = time.monotonic()
        said = testbed("status", "--runtime", "cluster", "--kubeconfig", file)
        seconds = time.monotonic() - begun
    assert said.code == 3
    assert f"https://127.0.0.1:{port} does not answer" in said.err
    assert f"waiting for the API server at https://127.0.0.1:{port}" in said.err
    assert seconds < 10 + SLACK_S
