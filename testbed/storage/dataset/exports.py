"""A data set in formats for other tools: CSV, JSON Lines, plain Parquet.

Minari and RLlib's offline format are written by ``trainer.data``, which may import those libraries.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from testbed.errors import Problem, UsageError
from testbed.storage.dataset.format import KIND
from testbed.storage.dataset.loading import DataSet, load
from testbed.storage.export import ProgressCallback, no_progress
from testbed.storage.folders import describe_files, new_folder, write_metadata
from testbed.storage.tasklog.base import utc_now
from testbed.version import __version__

EXPORT_KIND: Final = "edge-testbed data set export"
FORMATS: Final = ("csv", "jsonl", "parquet")
_CHUNK: Final = 10_000


def export_data_set(
    folder: Path,
    target: Path,
    *,
    formats: tuple[str, ...] = FORMATS,
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Write the data set in ``folder`` as ``transitions.FORMAT`` into ``target``.

    Every row holds its whole transition, the next observation and mask included. JSON Lines and
    Parquet keep observations and masks as lists; CSV has one column per number of the observation
    and per action of a mask (``mask_0``). An unknown log-probability or outcome is empty in CSV,
    null in JSON Lines and NaN in Parquet. Returns the metadata, which is in ``metadata.json`` too.

    Raises:
        UsageError: the data set is not usable, an unknown format, or ``target`` is taken.
        PermanentError: ``target`` cannot be written.
    """
    problems = [
        Problem("format", repr(name), f"known are {', '.join(FORMATS)}, minari, minari-flat, rllib")
        for name in formats
        if name not in FORMATS
    ]
    if problems or not formats:
        raise UsageError("the export cannot be written", problems)
    data = load(folder)
    with new_folder(target, EXPORT_KIND, overwrite=overwrite) as partial:
        for name in formats:
            _WRITERS[name](data, partial / f"transitions.{name}", progress)
        metadata = {
            **data.metadata,
            "kind": EXPORT_KIND,
            "data_set": {"kind": KIND, "files": data.metadata["files"]},
            "exported": utc_now(),
            "edge_testbed": __version__,
            "files": describe_files(partial),
        }
        write_metadata(partial, metadata)
    return metadata


def _keys(data: DataSet) -> dict[str, list[Any]]:
    """Return the columns that name each row: run, episode, node, slot, policy."""
    lengths = np.diff(data.offsets)
    return {
        "run": np.repeat(np.array(data.run, dtype=object), lengths).tolist(),
        "episode": np.repeat(data.episode, lengths).tolist(),
        "node": np.repeat(data.node, lengths).tolist(),
        "slot": data.slot.tolist(),
        "policy": [data.policy[index] for index in data.policy_index.tolist()],
    }


def _chunks(data: DataSet, what: str, progress: ProgressCallback) -> Iterator[slice]:
    for begin in range(0, len(data), _CHUNK):
        progress(what, begin, len(data))
        yield slice(begin, min(begin + _CHUNK, len(data)))
    progress(what, len(data), len(data))


def _write_csv(data: DataSet, path: Path, progress: ProgressCallback) -> None:
    names: list[str] = data.metadata["observation_columns"]
    keys = _keys(data)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *keys,
                "action",
                "log_prob",
                "reward",
                "outcome",
                "terminated",
                "truncated",
                *(f"mask_{action}" for action in range(data.mask.shape[1])),
                *(f"next_mask_{action}" for action in range(data.mask.shape[1])),
                *names,
                *(f"next_{name}" for name in names),
            ]
        )
        for rows in _chunks(data, "csv", progress):
            columns = [
                *(values[rows] for values in keys.values()),
                data.action[rows].tolist(),
                _known(_short(data.log_prob[rows])),
                _short(data.reward[rows]),
                _known(_short(data.outcome[rows])),
                data.terminated[rows].astype(int).tolist(),
                data.truncated[rows].astype(int).tolist(),
                *data.mask[rows].T.astype(int).tolist(),
                *data.next_mask[rows].T.astype(int).tolist(),
                *(_short(column) for column in data.obs[rows].T),
                *(_short(column) for column in data.next_obs[rows].T),
            ]
            writer.writerows(zip(*columns, strict=True))


def _short(values: Any) -> list[Any]:
    """Single-precision numbers by the shortest text that is read back as the same number."""
    return [np.float32(value) for value in values]


def _known(values: list[Any]) -> list[Any]:
    """Return the values with None for NaN."""
    return [None if value != value else value for value in values]


def _write_jsonl(data: DataSet, path: Path, progress: ProgressCallback) -> None:
    keys = _keys(data)
    names = (
        *keys,
        "observation",
        "mask",
        "action",
        "log_prob",
        "reward",
        "outcome",
        "next_observation",
        "next_mask",
        "terminated",
        "truncated",
    )
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for rows in _chunks(data, "jsonl", progress):
            columns = [
                *(values[rows] for values in keys.values()),
                data.obs[rows].tolist(),
                data.mask[rows].tolist(),
                data.action[rows].tolist(),
                _known(data.log_prob[rows].tolist()),
                data.reward[rows].tolist(),
                _known(data.outcome[rows].tolist()),
                data.next_obs[rows].tolist(),
                data.next_mask[rows].tolist(),
                data.terminated[rows].tolist(),
                data.truncated[rows].tolist(),
            ]
            for row in zip(*columns, strict=True):
                file.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")


def _write_parquet(data: DataSet, path: Path, progress: ProgressCallback) -> None:
    def lists(array: Any, type_: pa.DataType) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1), type_), array.shape[1])

    progress("parquet", 0, len(data))
    numbers, bits = pa.float32(), pa.bool_()
    table = pa.table(
        {
            **_keys(data),
            "observation": lists(data.obs, numbers),
            "mask": lists(data.mask, bits),
            "action": data.action,
            "log_prob": data.log_prob,
            "reward": data.reward,
            "outcome": data.outcome,
            "next_observation": lists(data.next_obs, numbers),
            "next_mask": lists(data.next_mask, bits),
            "terminated": data.terminated,
            "truncated": data.truncated,
        }
    )
    pa.parquet.write_table(table, path, compression="zstd")
    progress("parquet", len(data), len(data))


_WRITERS: Final = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}
