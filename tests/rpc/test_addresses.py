"""Addresses, and the folders and sockets behind them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from testbed.rpc import addresses
from testbed.rpc.addresses import LONGEST_PATH, UnixAddress


@pytest.mark.parametrize(
    "text",
    ["unix:/run/x.sock", "127.0.0.1:0", "[::1]:7440", "controller:7440", "edge-node-3.edge-nodes:1",
     "[fe80::1%eth0]:80", "0.0.0.0:65535", "namenode.localhost.:7"],
)  # fmt: skip
def test_an_address_is_what_it_says(text: str) -> None:
    assert str(addresses.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "x", ":1", "x:", "x:65536", "x:-1", "x:1:2", "dns:///evil:1", "unix:relative", "unix:",
     "unix-abstract:x", "unix:/a\0b", "ipv4:1.2.3.4:5", "http://x:1", "x:٣", "a b:1", "x/y:1",
     "unix:/" + "x" * LONGEST_PATH, "x" * 10_000],
)  # fmt: skip
def test_everything_else_is_none(text: str) -> None:
    with pytest.raises(UsageError) as error:
        addresses.parse(text)
    assert len(str(error.value)) < 1000


def test_a_folder_for_sockets_is_short_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = addresses.new_socket_folder()
    assert len(os.fsencode(folder / "node-99999.sock")) <= LONGEST_PATH
    addresses.make_private(folder)
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(PrerequisiteMissing, match="cannot be made"):
            addresses.make_private(folder)
    finally:
        addresses.remove_sockets(folder)
    assert not folder.exists()
    # Gone already.
    addresses.remove_sockets(folder)


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    for mode in (0o755, 0o711, 0o770):
        folder.chmod(mode)
        with pytest.raises(PrerequisiteMissing, match="chmod 700"):
            addresses.check_private(folder)
    folder.chmod(0o700)
    addresses.check_private(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(PrerequisiteMissing):
        addresses.check_private(tmp_path / "link")
    with pytest.raises(PrerequisiteMissing):
        addresses.check_private(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "edge-testbed-run-0"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(PrerequisiteMissing, match="belongs to user 65534"):
        addresses.check_private(folder)
    addresses.remove_sockets(folder)
    assert folder.is_dir()


def test_only_folders_for_sockets_are_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    addresses.remove_sockets(precious)
    assert precious.is_dir()


def test_a_socket_that_was_left_is_removed_and_one_that_is_used_is_not(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "x.sock")
    addresses.free(address)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address.path))
        listening.listen(1)
        with pytest.raises(PermanentError, match="another process listens"):
            addresses.free(address)
        assert address.path.exists()
    addresses.free(address)
    assert not address.path.exists()
    address.path.write_text("precious")
    with pytest.raises(PermanentError, match="is not a socket"):
        addresses.free(address)
    assert address.path.read_text() == "precious"
