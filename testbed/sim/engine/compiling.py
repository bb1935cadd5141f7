"""Compilation of the engine's functions, and the machine code that is kept of them.

What was compiled is kept per user, below ``$XDG_CACHE_HOME/edge-testbed/compiled`` or
``~/.cache/edge-testbed/compiled``, in a folder named by the hash of the sources and the releases of
Python and numba; in it numba keeps apart what is for different processors. Another checkout with
the same sources finds it there. ``NUMBA_CACHE_DIR`` names another place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator

_Function = TypeVar("_Function", bound=Callable[..., Any])

KEPT_DAYS: Final = 30
"""Machine code of other sources is removed when it was not used for so long."""

_log: Final = logging.getLogger(__name__)
_HERE: Final = Path(__file__).parent
_MODEL: Final = _HERE.parent.parent / "model"


def compiled(function: _Function) -> _Function:
    """``function`` as machine code; callable from Python and from other compiled functions.

    It is compiled when it is first called, unless its machine code was kept, and releases the
    interpreter lock. The first compilation of a process is announced on a terminal. Division by
    zero is not checked for.
    """
    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
    # Without a place to write to, every process compiles for itself.
    with suppress(OSError, RuntimeError):
        dispatcher._cache = _Kept(function)  # type: ignore[no-untyped-call]
    return cast(_Function, dispatcher)


def inlined(function: _Function) -> _Function:
    """As ``compiled``, for small functions: they become part of every function that calls them."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "forceinline": True}
    return cast(_Function, njit(**options)(function))


def folder_of(source: Path) -> Path:
    """Return the folder for the machine code of functions in the file ``source``."""
    return _root() / _digest(source.parent)


def _root() -> Path:
    if chosen := str(getattr(config, "CACHE_DIR", "") or ""):
        return Path(chosen)
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path("~/.cache").expanduser()
    return base / "edge-testbed" / "compiled"


@cache
def _digest(package: Path) -> str:
    """Hash of all that machine code of functions in ``package`` is made from.

    numba looks at the file a function stands in only, not at those of what it calls. The constants
    of the engine come from the model.
    """
    releases = (platform.python_version(), numba.__version__, np.__version__)
    digest = hashlib.sha256(repr(releases).encode())
    for folder in dict.fromkeys((_MODEL, _HERE, package)):
        for source in sorted(folder.glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _announce() -> None:
    """Say once what the process now waits for."""
    told = "compiling the engine for this processor; this takes up to a minute, once per release"
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"{told}\n")
        sys.stderr.flush()
    else:
        _log.info(told)


@cache
def _prune(root: Path, current: Path) -> None:
    """Remove what was kept of sources that nobody has used for long; mark ``current`` as used."""
    oldest = time.time() - KEPT_DAYS * 86_400
    with suppress(OSError):
        os.utime(current)
        for other in root.iterdir():
            if other != current and len(other.name) == 16 and other.stat().st_mtime < oldest:
                shutil.rmtree(other, ignore_errors=True)


class _Place(UserWideCacheLocator):
    """Where the machine code of one function is kept."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file = py_file
        self._lineno = py_func.__code__.co_firstlineno
        self._cache_path = str(folder_of(Path(py_file)) / py_func.__module__)

    def ensure_cache_path(self) -> None:
        """Make the folder, for its owner only: what is in it is run."""
        path = Path(self._cache_path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().ensure_cache_path()  # type: ignore[no-untyped-call]
        _prune(path.parent.parent, path.parent)


class _Form(CompileResultCacheImpl):
    _locator_classes = [_Place]  # noqa: RUF012 - as numba declares it


class _Kept(FunctionCache):
    """Machine code of one function on disk; damaged files count as none."""

    _impl_class = _Form

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was kept for these types, else None: then it is compiled next."""
        try:
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - reading a damaged file raises anything
            _log.debug("%s: kept machine code cannot be used: %s", self, error)
            found = None
        if found is None:
            _announce()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled; on a full disk, go on without."""
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
