"""What is on the disk: full, removed, scribbled on."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from pathlib import Path

import psutil

from testbed.errors import TestbedError
from tests.campaign.checks import FINE, Expected
from tests.campaign.network import NAME
from tests.campaign.processes import rest
from tests.campaign.scene import Scene, fault

FAILED = frozenset({"failed"})
SAYS_NO = frozenset({0, 5})


@fault("disk-full")
def disk_full(scene: Scene) -> Expected:
    """No byte more: for the whole home, or (where it is no file system of its own) the controller.

    A run that could not store what happened fails and says why.
    """
    home = scene.network.home
    on_server = scene.network.store is not None
    if scene.network.mounted:
        filler = home / "filler"
        scene.repairs.append(lambda: filler.unlink(missing_ok=True))
        fill(filler)
        note = "file system"
    else:
        process = scene.network.process("controller")
        if process is not None:
            size = (home / "tasklog.sqlite").stat().st_size if not on_server else 1
            process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        note = "controller"
    if on_server:
        return Expected(note=note)
    return Expected(states=FINE | FAILED, exits=SAYS_NO, reason="full|space|write|i/o", note=note)


def fill(filler: Path) -> None:
    """Take every free byte of the file system."""
    file = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 20, 1 << 12, 1):
            # A write may fall short before one fails.
            with contextlib.suppress(OSError):
                while os.write(file, b"x" * size) == size:
                    pass
    finally:
        os.close(file)


@fault("log-removed")
def log_removed(scene: Scene) -> Expected:
    """The file of the task log goes while a run writes to it: the run has to notice and fail."""
    if scene.network.store is not None:
        return Expected(note="on a server")
    for path in scene.network.home.glob("tasklog.sqlite*"):
        path.unlink()
    return Expected(states=FAILED, exits=frozenset({5}), damaged=True, reason="log")


@fault("log-scribbled")
def log_scribbled(scene: Scene) -> Expected:
    """Random bytes over a part of the task log: failed, or unhurt; readers say it is damaged."""
    if scene.network.store is not None:
        return Expected(note="on a server")
    path = scene.network.home / "tasklog.sqlite"
    how = scene.draws.choice(("header", "middle", "truncated"))
    size = path.stat().st_size
    with path.open("r+b") as file:
        if how == "truncated":
            file.truncate(size // 2)
        else:
            file.seek(0 if how == "header" else size // 2)
            file.write(scene.draws.randbytes(4096))
    scene.repairs.append(lambda: _set_aside(scene))
    return Expected(states=FINE | FAILED, exits=SAYS_NO, damaged=True, reason="log", note=how)


def _set_aside(scene: Scene) -> None:
    """What a user does with a damaged log: a reader must have said what is wrong with it."""
    done = scene.network.do_plain("runs", "list", "--json")
    if done.code not in (0, 3, 5):
        raise TestbedError(f"`runs list` on a damaged log ended with {done.code}: {done.err}")
    for path in scene.network.home.glob("tasklog.sqlite*"):
        path.unlink()


@fault("spool-removed")
def spool_removed(scene: Scene) -> Expected:
    """Nodes hold in memory what is not acknowledged; a spool that goes costs nothing meanwhile."""
    spool = scene.network.home / NAME / "spool"
    node = scene.draws.choice(scene.nodes)
    whole = scene.draws.random() < 0.5
    shutil.rmtree(spool if whole else spool / f"node-{node}", ignore_errors=True)
    return Expected(note="all of it" if whole else f"node {node}")


@fault("spool-scribbled")
def spool_scribbled(scene: Scene) -> Expected:
    files = sorted((scene.network.home / NAME / "spool").rglob("*.spool"))
    for path in files:
        how = scene.draws.choice(("cut", "garbage", "garbage at the end"))
        with path.open("r+b") as file:
            if how == "cut":
                file.truncate(path.stat().st_size // 2)
            else:
                file.seek(0, os.SEEK_END if how == "garbage at the end" else os.SEEK_SET)
                file.write(scene.draws.randbytes(300))
    return Expected(note=f"{len(files)} files")


@fault("directory-removed")
def directory_removed(scene: Scene) -> Expected:
    """The run directory goes; its processes are found by their environment all the same."""
    shutil.rmtree(scene.network.home / NAME, ignore_errors=True)
    return Expected(states=FINE | {"degraded"})


@fault("directory-scribbled")
def directory_scribbled(scene: Scene) -> Expected:
    """Garbage in the small files that commands find a testbed by."""
    folder = scene.network.home / NAME
    hit = []
    for path in sorted(folder.glob("*.json")) + sorted((folder / "processes").glob("*.json")):
        if scene.draws.random() < 0.5:
            how = scene.draws.choice((b"", b"{", b"[]", b"null", b"{}", b"\xff\x00\xfe", b'"x"'))
            path.write_bytes(how)
            hit.append(path.name)
    return Expected(note=" ".join(hit))


@fault("directory-blocked")
def files_replaced(scene: Scene) -> Expected:
    """Folders where files should be: nothing can be written under these names."""
    folder = scene.network.home / NAME
    hit = []
    for name in ("active-run.json", "policies.json", "controller.json"):
        path: Path = folder / name
        if scene.draws.random() < 0.6:
            path.unlink(missing_ok=True)
            path.mkdir()
            hit.append(path)
    rest(0.2)

    def put_right() -> None:
        for path in hit:
            shutil.rmtree(path, ignore_errors=True)

    scene.repairs.append(put_right)
    return Expected(note=" ".join(path.name for path in hit))
