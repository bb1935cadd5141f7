"""Files of named arrays and a JSON note, written whole or not at all.

The format is numpy's ``.npz`` read with pickling off: a checkpoint can carry numbers and text,
never code, so it may come from a place that others can write to.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.files import ORDINARY, replacing

Arrays = dict[str, NDArray[Any]]

SCHEMA = 1
_NOTE = "__note__"


def write_checkpoint(
    path: Path, kind: str, arrays: Mapping[str, NDArray[Any]], note: Mapping[str, Any]
) -> None:
    """Write arrays and a JSON-able note to ``path``; a reader sees the old file or the new one.

    ``kind`` names what the file is (``offline``, ``online``, ``actor``) and must be given again to
    read it. The same contents give the same bytes.
    """
    header = {"schema": SCHEMA, "kind": kind, "note": dict(note)}
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, ORDINARY) as stream:
        np.savez(stream, allow_pickle=False, **{_NOTE: text, **arrays})
        stream.flush()
        os.fsync(stream.fileno())


def read_checkpoint(path: Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Read what `write_checkpoint` wrote: the arrays and the note.

    Raises:
        UsageError: no such file, truncated or altered (zip checksums), another kind, or written by
            a later version.
    """
    try:
        # Opened here: numpy leaves a file open whose contents are no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop(_NOTE).tobytes())
        schema, seen = int(header["schema"]), str(header["kind"])
        note = dict(header["note"])
    except FileNotFoundError:
        raise UsageError(
            "there is no checkpoint", [Problem(str(path), "no such file", "a checkpoint file")]
        ) from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            "a checkpoint cannot be read",
            [Problem(str(path), f"{type(error).__name__}: {error}", "an unaltered checkpoint")],
        ) from error
    if schema > SCHEMA or seen != kind:
        raise UsageError(
            "a checkpoint does not fit",
            [Problem(str(path), f"{seen}, schema {schema}", f"{kind}, schema up to {SCHEMA}")],
        )
    return arrays, note


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Put ``prefix/`` before every name, to keep several states in one file."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def taken(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays under ``prefix/``, without the prefix; empty if there are none."""
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in arrays.items() if name.startswith(start)}
