"""Data sets as arrays, checked: what a learner may rely on holds, or everything wrong is said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import ENCODERS
from testbed.storage.dataset.format import (
    DATA_SET_VERSION,
    KIND,
    OUTCOME,
    TRANSITIONS,
    BoolArray,
    FloatArray,
    IntArray,
    schema,
)
from testbed.storage.folders import altered_files, read_metadata

_SHOWN: Final = 3
"""Number of places that a problem names before it only counts them."""


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """M transitions in S sequences; sequence s is rows ``offsets[s]`` to ``offsets[s + 1]``.

    ``log_prob`` is NaN where the behaviour policy is not known. Rewards are as logged, the team's.
    ``outcome`` is 1 where the decided task succeeded, 0 where it did not, and NaN where there was
    none, where it was lost, and everywhere in data sets of earlier releases.
    """

    metadata: dict[str, Any]
    obs: FloatArray  # [M, D]
    mask: BoolArray  # [M, A]
    action: IntArray  # [M]
    log_prob: FloatArray  # [M]
    reward: FloatArray  # [M]
    outcome: FloatArray  # [M]
    next_obs: FloatArray  # [M, D]
    next_mask: BoolArray  # [M, A]
    terminated: BoolArray  # [M]
    truncated: BoolArray  # [M]
    offsets: IntArray  # [S + 1]
    run: tuple[str, ...]  # [S]
    episode: IntArray  # [S]
    node: IntArray  # [S]
    slot: IntArray  # [M]
    policy: tuple[str, ...]
    """All policies that decided, in order of first appearance."""
    policy_index: IntArray  # [M], into ``policy``

    def __len__(self) -> int:
        return len(self.action)

    @property
    def sequences(self) -> int:
        """S, the number of sequences."""
        return len(self.offsets) - 1

    @property
    def encoder(self) -> str:
        """The name of the encoder that made the observations."""
        return str(self.metadata["encoder"])

    @property
    def nodes(self) -> int:
        """N, the number of nodes."""
        return int(self.metadata["nodes"])


def load(folder: Path, *, verify: bool = True) -> DataSet:
    """Return the data set in ``folder``.

    Without ``verify`` its files are not compared with their recorded sha256; everything else is
    checked all the same.

    Raises:
        UsageError: there is no data set, or it cannot be learned from; names every problem.
    """
    metadata = read_metadata(folder, KIND)
    problems = _about_metadata(metadata)
    if verify and not problems:
        problems = altered_files(folder, metadata["files"])
    data: DataSet | None = None
    if not problems:
        table, problems = _read(folder, metadata)
    if not problems:
        data, problems = _arrays(table, metadata)
    if data is None:
        raise UsageError(f"data set {folder} cannot be used", problems)
    return data


def validate(folder: Path) -> list[Problem]:
    """Return everything wrong with the data set in ``folder``; empty if it can be learned from.

    Raises:
        UsageError: there is no data set.
    """
    metadata = read_metadata(folder, KIND)
    problems = _about_metadata(metadata)
    if problems:
        return problems
    problems = altered_files(folder, metadata["files"])
    if any(problem.path == TRANSITIONS and "missing" in problem.seen for problem in problems):
        return problems
    table, wrong = _read(folder, metadata)
    problems += wrong
    if not wrong:
        problems += _arrays(table, metadata)[1]
    return problems


def _about_metadata(metadata: dict[str, Any]) -> list[Problem]:
    version = metadata.get("version")
    if version != DATA_SET_VERSION:
        return [
            Problem(
                "metadata.version",
                f"version {version}",
                f"this toolkit reads version {DATA_SET_VERSION}; build the data set again",
            )
        ]
    needed: dict[str, type] = {
        "encoder": str,
        "nodes": int,
        "slots": int,
        "features": int,
        "actions": int,
        "counts": dict,
        "files": dict,
    }
    problems = [
        Problem(f"metadata.{name}", repr(metadata.get(name)), f"{type_.__name__} is needed")
        for name, type_ in needed.items()
        if not isinstance(metadata.get(name), type_)
    ]
    if problems:
        return problems
    name, nodes = metadata["encoder"], metadata["nodes"]
    if name not in ENCODERS:
        known = ", ".join(ENCODERS)
        problems.append(Problem("metadata.encoder", repr(name), f"known are {known}"))
    elif metadata["features"] != ENCODERS[name].size(nodes):
        seen = f"{metadata['features']} numbers per observation"
        wanted = f"{name} gives {ENCODERS[name].size(nodes)} for {nodes} nodes; encoders are mixed"
        problems.append(Problem("metadata.features", seen, wanted))
    if metadata["actions"] != nodes + 1:
        seen = f"{metadata['actions']} actions"
        problems.append(Problem("metadata.actions", seen, f"{nodes} nodes have {nodes + 1}"))
    return problems


def _read(folder: Path, metadata: dict[str, Any]) -> tuple[pa.Table, list[Problem]]:
    path = folder / TRANSITIONS
    expected = schema(metadata["features"], metadata["actions"])
    try:
        seen = pa.parquet.read_schema(path)
        problems = [
            Problem(f"{TRANSITIONS}: {field.name}", _seen(seen, field.name), f"{field.type}")
            for field in expected
            if not _fits(seen, field) and not (field.name == OUTCOME and OUTCOME not in seen.names)
        ]
        if problems:
            return None, problems
        table = pa.parquet.read_table(
            path, columns=[name for name in expected.names if name in seen.names]
        )
        if OUTCOME not in table.column_names:
            unknown = pa.array(np.full(table.num_rows, np.nan, np.float32), from_pandas=False)
            table = table.append_column(OUTCOME, unknown)
        return table, []
    except (OSError, ValueError, pa.ArrowException) as error:
        # Also names that are no UTF-8, and sizes that are no sizes.
        return None, [Problem(TRANSITIONS, f"cannot be read: {error}", "build the data set again")]


def _fits(found: pa.Schema, field: pa.Field) -> bool:
    # Not by text: the names of a list's items differ between what is written and what is read.
    index = found.get_field_index(field.name)
    return index >= 0 and bool(found.field(index).type == field.type)


def _seen(found: pa.Schema, name: str) -> str:
    index = found.get_field_index(name)
    if index >= 0:
        return f"is {found.field(index).type}"
    return "is there twice" if name in found.names else "is missing"


class _Findings:
    """Problems by column; many rows with the same one are one problem."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, seen: str, allowed: str) -> None:
        self.problems.append(Problem(path, seen, allowed))

    def rows(self, path: str, wrong: NDArray[np.bool_] | np.bool_, seen: str, allowed: str) -> None:
        """Rows where ``wrong`` is True, if there are any."""
        where = np.flatnonzero(wrong)
        if len(where):
            first = ", ".join(map(str, where[:_SHOWN]))
            more = ", ..." if len(where) > _SHOWN else ""
            self.add(path, f"{len(where)} rows are {seen} (rows {first}{more})", allowed)


class _Columns(NamedTuple):
    """The columns of a file as arrays, and where its sequences begin and end."""

    run: IntArray  # [M], into run_names
    run_names: list[str]
    episode: IntArray
    node: IntArray
    slot: IntArray
    obs: FloatArray
    mask: BoolArray
    action: IntArray
    log_prob: FloatArray
    reward: FloatArray
    outcome: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    begins: BoolArray  # [M]
    ends: BoolArray  # [M]


def _flat(column: pa.Array, width: int, dtype: type) -> NDArray[Any]:
    """Lists that all have ``width`` values as an array [rows, width]; rows without one left out."""
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, dtype=dtype).reshape(-1, width)


def _columns(table: pa.Table, metadata: dict[str, Any]) -> _Columns:
    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.ascontiguousarray(table[name].to_numpy(), dtype=dtype)

    runs = table["run"].combine_chunks().dictionary_encode()
    run = runs.indices.to_numpy().astype(np.int64)
    episode, node = column("episode", np.int64), column("node", np.int64)
    begins = np.ones(len(run), np.bool_)
    begins[1:] = (run[1:] != run[:-1]) | (episode[1:] != episode[:-1]) | (node[1:] != node[:-1])
    return _Columns(
        run=run,
        run_names=runs.dictionary.to_pylist(),
        episode=episode,
        node=node,
        slot=column("slot", np.int64),
        obs=_flat(table["observation"].combine_chunks(), metadata["features"], np.float32),
        mask=_flat(table["mask"].combine_chunks(), metadata["actions"], np.bool_),
        action=column("action", np.int64),
        log_prob=column("log_prob", np.float32),
        reward=column("reward", np.float32),
        outcome=column(OUTCOME, np.float32),
        terminated=column("terminated", np.bool_),
        truncated=column("truncated", np.bool_),
        begins=begins,
        ends=np.append(begins[1:], True),
    )


def _wrong_rows(columns: _Columns, found: _Findings) -> None:
    """Add the problems that single rows have."""
    obs, mask, action = columns.obs, columns.mask, columns.action
    found.rows("observation", ~np.isfinite(obs).all(axis=1), "not finite", "finite numbers")
    found.rows("reward", ~np.isfinite(columns.reward), "not finite", "a finite number")
    unlikely = (columns.log_prob > 0.0) | np.isinf(columns.log_prob)
    found.rows("log_prob", unlikely, "no log-probability", "at most 0, or NaN where unknown")
    outcome = columns.outcome
    odd = ~(np.isnan(outcome) | (outcome == 0.0) | (outcome == 1.0))
    found.rows(OUTCOME, odd, "no outcome", "1, 0, or NaN where there is none")
    found.rows("mask", ~mask.any(axis=1), "without an allowed action", "at least one")
    legal = (action >= 0) & (action < mask.shape[1])
    legal[legal] = mask[np.flatnonzero(legal), action[legal]]
    found.rows("action", ~legal, "not allowed by the mask", "an action that it allows")
    if (action == mask.shape[1] - 1).all():
        found.add("action", "no row has a task", "decisions about tasks")


def _wrong_sequences(columns: _Columns, counts: dict[str, Any], found: _Findings) -> None:
    """Add the problems of rows beside each other."""
    begins, ends, slot = columns.begins, columns.ends, columns.slot
    gaps = ~begins
    gaps[1:] &= slot[1:] != slot[:-1] + 1
    found.rows("slot", gaps, "not the one after the row before", "sequences without gaps")
    last = columns.terminated | columns.truncated
    found.rows("truncated", ends & ~last, "neither this nor terminated", "one at each end")
    found.rows("truncated", ~ends & last, "this or terminated", "only the end of a sequence")
    both = columns.terminated & columns.truncated
    found.rows("truncated", both, "this and terminated", "at most one of them")
    starts = np.flatnonzero(begins)
    keys = np.stack([columns.run[starts], columns.episode[starts], columns.node[starts]], axis=1)
    torn = len(keys) - len(np.unique(keys, axis=0))
    if torn:
        found.add("sequences", f"{torn} are torn apart", "each in one piece")
    seen = {
        "rows": len(slot),
        "sequences": len(keys),
        "episodes": len(np.unique(keys[:, :2], axis=0)),
    }
    for what, number in seen.items():
        if counts.get(what) != number:
            said = f"{number}, and {counts.get(what)} in the metadata"
            found.add(what, said, "the same: none empty, none missing")


def _finals(
    table: pa.Table, columns: _Columns, metadata: dict[str, Any], found: _Findings
) -> tuple[FloatArray, BoolArray]:
    """Observation and mask after each sequence; anything where there are problems."""
    ends = columns.ends
    arrays: list[NDArray[Any]] = []
    for name, width, dtype in (
        ("final_observation", metadata["features"], np.float32),
        ("final_mask", metadata["actions"], np.bool_),
    ):
        column = table[name].combine_chunks()
        present = column.is_valid().to_numpy(zero_copy_only=False)
        found.rows(name, ends & ~present, "without one", "one at the end of each sequence")
        found.rows(name, ~ends & present, "not an end", "only at the end of a sequence")
        lengths = pc.list_value_length(column).fill_null(width)
        other = np.asarray(lengths) != width
        found.rows(name, np.asarray(other, np.bool_), "of another length", f"{width} values")
        if not found.problems:
            arrays.append(_flat(column, width, dtype))
    if found.problems:
        return columns.obs, columns.mask
    observation, mask = arrays
    # After a terminal transition there is no state; anything may stand there.
    wrong: BoolArray = np.zeros(len(ends), np.bool_)
    wrong[ends] = ~np.isfinite(observation).all(axis=1) & ~columns.terminated[ends]
    found.rows("final_observation", wrong, "not finite", "finite numbers")
    wrong[ends] = ~mask.any(axis=1) & ~columns.terminated[ends]
    found.rows("final_mask", wrong, "without an allowed action", "at least one")
    return observation, mask


def _arrays(table: pa.Table, metadata: dict[str, Any]) -> tuple[DataSet | None, list[Problem]]:
    found = _Findings()
    if not table.num_rows:
        found.add("transitions", "there are none", "at least one")
    for field in schema(metadata["features"], metadata["actions"]):
        missing = 0 if field.nullable else table[field.name].null_count
        if missing:
            found.add(field.name, f"{missing} rows have no value", "one in every row")
    if found.problems:
        return None, found.problems
    columns = _columns(table, metadata)
    _wrong_rows(columns, found)
    _wrong_sequences(columns, metadata["counts"], found)
    final_obs, final_mask = _finals(table, columns, metadata, found)
    if found.problems:
        return None, found.problems

    obs, mask, ends = columns.obs, columns.mask, columns.ends
    next_obs, next_mask = np.empty_like(obs), np.empty_like(mask)
    next_obs[:-1], next_mask[:-1] = obs[1:], mask[1:]
    next_obs[ends], next_mask[ends] = final_obs, final_mask
    starts = np.flatnonzero(columns.begins)
    policies = table["policy"].combine_chunks().dictionary_encode()
    data = DataSet(
        metadata=metadata,
        obs=obs,
        mask=mask,
        action=columns.action,
        log_prob=columns.log_prob,
        reward=columns.reward,
        outcome=columns.outcome,
        next_obs=next_obs,
        next_mask=next_mask,
        terminated=columns.terminated,
        truncated=columns.truncated,
        offsets=np.append(starts, len(obs)).astype(np.int64),
        run=tuple(columns.run_names[index] for index in columns.run[starts]),
        episode=columns.episode[starts],
        node=columns.node[starts],
        slot=columns.slot,
        policy=tuple(policies.dictionary.to_pylist()),
        policy_index=policies.indices.to_numpy().astype(np.int64),
    )
    return data, []
