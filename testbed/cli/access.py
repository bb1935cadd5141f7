"""Checks of ``doctor`` on access: who else can read what is kept, which certificates expire."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from testbed import environment
from testbed.cli.findings import Finding, Surroundings
from testbed.errors import TestbedError

_SOON_DAYS: Final = 7
_SHOWN: Final = 3


def access(around: Surroundings) -> Iterator[Finding]:
    """Check that only this user can reach the files and sockets of this home's testbeds."""
    open_to_others = [each for each in _private(around.home) if _is_open(each)]
    if open_to_others:
        more = len(open_to_others) - _SHOWN
        listed = ", ".join(map(str, open_to_others[:_SHOWN])) + (f" and {more}" if more > 0 else "")
        yield Finding(
            "access",
            "warning",
            f"others can use {listed}",
            f"chmod go-rwx {' '.join(map(str, open_to_others[:_SHOWN]))}",
        )
    else:
        yield Finding("access", "ok", "home, run directories and sockets are private to their user")
    yield from _certificate()


def _private(home: Path) -> Iterator[Path]:
    """Return the existing files and folders that only their owner should be able to use."""
    from testbed.runtime import directory
    from testbed.runtime.directory import RunDirectory

    if home.is_dir():
        yield home
    for name in directory.names(home):
        place = RunDirectory(home, name)
        yield place.path
        yield from sorted((place.path / "credentials").glob("*"))
        sockets = (place.description() or {}).get("sockets")
        if sockets:
            yield Path(str(sockets))
            yield from sorted(Path(str(sockets)).glob("*.sock"))


def _is_open(path: Path) -> bool:
    try:
        seen = path.lstat()
    except OSError:
        return False
    return bool(stat.S_IMODE(seen.st_mode) & 0o077) or seen.st_uid != os.geteuid()


def _certificate() -> Iterator[Finding]:
    """Return the certificate that commands show to a remote controller; None if none is named."""
    import datetime

    from testbed.rpc.credentials import PartyCertificate, read

    named = os.environ.get(environment.CREDENTIALS)
    if not named:
        return
    try:
        found = read(Path(named).expanduser())
        if not isinstance(found, PartyCertificate):
            return
        from testbed.rpc.certificates import expiry

        left = expiry(found) - datetime.datetime.now(datetime.UTC)
    except TestbedError as error:
        yield Finding("certificate", "problem", str(error).partition("\n")[0], "name operator.pem")
        return
    fix = "make new ones: docs/security.md, New certificates"
    if left.days < 0:
        yield Finding("certificate", "problem", f"{named} has ended", fix)
    elif left.days < _SOON_DAYS:
        yield Finding("certificate", "warning", f"{named} ends in {left.days} days", fix)
    else:
        yield Finding("certificate", "ok", f"{named} is good for {left.days} days")
