"""The file format of a data set: transitions in Parquet, and metadata that says what they are.

A row is one slot of one node; a sequence is the rows of one (run, episode, node) in order of their
slots, and sequences stand one after another. The state that follows a row is the next row's, so it
is stored once; only the last row of a sequence has it in columns of its own.
``testbed.storage.dataset.building`` makes data sets from logs, ``loading`` reads them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from testbed.model.encoders import Encoder
from testbed.model.information import asked_by
from testbed.storage.export import ProgressCallback, no_progress
from testbed.storage.folders import describe_files, new_folder, write_metadata
from testbed.storage.tasklog.base import utc_now
from testbed.version import __version__

KIND: Final = "edge-testbed data set"
DATA_SET_VERSION: Final = 1
TRANSITIONS: Final = "transitions.parquet"
OUTCOME: Final = "outcome"
"""The column that data sets of earlier releases do not have."""

_ROWS_PER_GROUP: Final = 100_000

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TransitionSequence:
    """Observations, actions and rewards of one node in ``k`` successive slots of one episode.

    D numbers by the encoder; A = N + 1 actions, of which N means "no task". ``log_probs`` are NaN
    where the behaviour policy did not say. The reward is the team's, the same for all nodes;
    ``outcomes`` are of the decided tasks: 1 if it succeeded, 0 if not, NaN where there was none or
    it was lost. None is NaN in every row.
    """

    run: str
    episode: int
    node: int
    first_slot: int
    observations: FloatArray  # [k + 1, D], the last one is the state after the last slot
    masks: BoolArray  # [k + 1, A]
    actions: IntArray  # [k]
    log_probs: FloatArray  # [k]
    rewards: FloatArray  # [k]
    policies: tuple[str, ...]  # [k], what decided
    terminated: bool = False  # False: truncated, the state after the last slot has a value
    outcomes: FloatArray | None = None  # [k]

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True, slots=True)
class Content:
    """Description of a data set that is known before its rows.

    ``runs`` is what metadata says of each run, ``left_out`` of each run that was asked for and not
    used, with the reason. ``network`` is the plan that all runs have in common but for their seeds.
    """

    name: str
    encoder: Encoder
    nodes: int
    slots: int
    scenario: str
    scenario_hashes: tuple[str, ...]
    runs: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...] = ()
    network: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """Counts taken while a data set was written."""

    rows: int = 0
    sequences: int = 0
    episodes: int = 0
    tasks: int = 0
    dropped_rows: int = 0
    """Rows of sequences with gaps that could not be used."""
    missing_sequences: int = 0
    """Number of sequences of nodes that recorded nothing in an episode, because they were dead."""
    lost_tasks: int = 0
    """Their reward is credited to the slot in which their deadline passed."""
    actions_outside_mask: int = 0
    """Chosen although masked, by a scheduler that heeds no mask; allowed in the data set."""
    masks_derived: int = 0
    """Masks that were not logged and follow from what the peers answered."""
    log_probs_unknown: int = 0
    final_states_assumed: int = 0
    """Sequences after whose last slot nothing was recorded; it is taken to be as in that slot."""


def schema(features: int, actions: int) -> pa.Schema:
    """Return the columns of the transitions; ``features`` D, ``actions`` A = N + 1."""

    def about(text: str) -> dict[str, str]:
        return {"description": text}

    numbers, bits = pa.float32(), pa.bool_()
    return pa.schema(
        [
            pa.field("run", pa.string(), False, about("id of the run")),
            pa.field("episode", pa.int64(), False, about("episode")),
            pa.field("node", pa.int64(), False, about("node that decided")),
            pa.field("slot", pa.int64(), False, about("slot, from 0")),
            pa.field(
                "observation",
                pa.list_(numbers, features),
                False,
                about("by the encoder, D numbers"),
            ),
            pa.field("mask", pa.list_(bits, actions), False, about("allowed actions, N + 1 bits")),
            pa.field("action", pa.int64(), False, about("destination; N is no task")),
            pa.field("log_prob", numbers, False, about("of the action; NaN is unknown")),
            pa.field("reward", numbers, False, about("of the team in this slot")),
            pa.field(
                OUTCOME,
                numbers,
                False,
                about(
                    "1 if the decided task succeeded, else 0; NaN without one, or if it was lost"
                ),
            ),
            pa.field("terminated", bits, False, about("there is no next state")),
            pa.field("truncated", bits, False, about("last of its sequence, with a next state")),
            pa.field("policy", pa.string(), False, about("what decided")),
            pa.field(
                "final_observation",
                pa.list_(numbers),
                True,
                about("state after the last slot; null but in the last row of a sequence"),
            ),
            pa.field("final_mask", pa.list_(bits), True, about("allowed there; else null")),
        ]
    )


def _table(sequences: list[TransitionSequence], described: pa.Schema) -> pa.Table:
    lengths = np.array([len(sequence) for sequence in sequences])
    last = np.zeros(lengths.sum(), dtype=np.bool_)
    last[np.cumsum(lengths) - 1] = True
    terminated = np.repeat([sequence.terminated for sequence in sequences], lengths) & last

    def per_row(values: list[Any], type_: pa.DataType) -> pa.Array:
        return pa.array(values, type_).take(pa.array(np.repeat(np.arange(len(values)), lengths)))

    def fixed(parts: list[NDArray[Any]], field_name: str) -> pa.Array:
        flat = np.concatenate(parts).reshape(-1)
        type_ = described.field(field_name).type
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, type_.value_type), type=type_)

    def final(parts: list[NDArray[Any]], type_: pa.DataType) -> pa.Array:
        """Return one list per sequence, at its last row; null everywhere else."""
        width = parts[0].shape[1]
        ends = np.cumsum(last) * width
        offsets = np.concatenate([[0], ends])
        values = pa.array(np.concatenate([part[-1] for part in parts]), type_)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=pa.array(~last))

    columns = {
        "run": per_row([sequence.run for sequence in sequences], pa.string()),
        "episode": per_row([sequence.episode for sequence in sequences], pa.int64()),
        "node": per_row([sequence.node for sequence in sequences], pa.int64()),
        "slot": pa.array(
            np.concatenate([s.first_slot + np.arange(len(s)) for s in sequences]), pa.int64()
        ),
        "observation": fixed([s.observations[:-1] for s in sequences], "observation"),
        "mask": fixed([s.masks[:-1] for s in sequences], "mask"),
        "action": pa.array(np.concatenate([s.actions for s in sequences]), pa.int64()),
        "log_prob": pa.array(
            np.concatenate([s.log_probs for s in sequences]), pa.float32(), from_pandas=False
        ),
        "reward": pa.array(np.concatenate([s.rewards for s in sequences]), pa.float32()),
        OUTCOME: pa.array(
            np.concatenate([_outcomes(s) for s in sequences]), pa.float32(), from_pandas=False
        ),
        "terminated": pa.array(terminated),
        "truncated": pa.array(last & ~terminated),
        "policy": pa.array([name for s in sequences for name in s.policies], pa.string()),
        "final_observation": final([s.observations for s in sequences], pa.float32()),
        "final_mask": final([s.masks for s in sequences], pa.bool_()),
    }
    return pa.table(columns, schema=described)


def _outcomes(sequence: TransitionSequence) -> FloatArray:
    if sequence.outcomes is None:
        return np.full(len(sequence), np.nan, np.float32)
    return sequence.outcomes


def write_data_set(
    folder: Path,
    content: Content,
    sequences: Iterable[TransitionSequence],
    *,
    counts: Counts | None = None,
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Write a data set into ``folder``, as the sequences come; returns its metadata.

    ``counts`` is filled by whoever gives the sequences, while giving them; rows, sequences,
    episodes, tasks and unknown log-probabilities are counted here. The folder appears complete or
    not at all.

    Raises:
        UsageError: ``folder`` is taken (with ``overwrite``: by something that is no data set).
        PermanentError: it cannot be written.
        ValueError: a sequence of other widths than the encoder and the network have.
    """
    counts = Counts() if counts is None else counts
    features, actions = content.encoder.size(content.nodes), content.nodes + 1
    described = schema(features, actions)
    episodes: set[tuple[str, int]] = set()
    policies: dict[str, int] = {}
    waiting: list[TransitionSequence] = []
    waiting_rows = 0
    total = 0.0
    with new_folder(folder, KIND, overwrite=overwrite) as partial:
        writer = pa.parquet.ParquetWriter(partial / TRANSITIONS, described, compression="zstd")
        with writer:
            for sequence in sequences:
                _check_widths(sequence, features, actions)
                episodes.add((sequence.run, sequence.episode))
                counts.rows += len(sequence)
                counts.sequences += 1
                counts.tasks += int(np.count_nonzero(sequence.actions != content.nodes))
                counts.log_probs_unknown += int(np.count_nonzero(np.isnan(sequence.log_probs)))
                total += float(sequence.rewards.sum(dtype=np.float64))
                for name in sequence.policies:
                    policies[name] = policies.get(name, 0) + 1
                waiting.append(sequence)
                waiting_rows += len(sequence)
                if waiting_rows >= _ROWS_PER_GROUP:
                    writer.write_table(_table(waiting, described))
                    waiting, waiting_rows = [], 0
                    progress("transitions", counts.rows, counts.rows)
            if waiting:
                writer.write_table(_table(waiting, described))
        counts.episodes = len(episodes)
        metadata = {
            "kind": KIND,
            "version": DATA_SET_VERSION,
            "name": content.name,
            "created": utc_now(),
            "edge_testbed": __version__,
            "encoder": content.encoder.name,
            "asks": asked_by(content.encoder.name),
            "nodes": content.nodes,
            "slots": content.slots,
            "features": features,
            "actions": actions,
            "observation_columns": list(content.encoder.columns(content.nodes)),
            "scenario": content.scenario,
            "scenario_hashes": list(content.scenario_hashes),
            "behaviour_policies": policies,
            "counts": {name: getattr(counts, name) for name in Counts.__slots__},
            "mean_reward": total / counts.rows if counts.rows else None,
            "runs": [dict(run) for run in content.runs],
            "left_out": [dict(run) for run in content.left_out],
            "network": dict(content.network),
            "files": describe_files(partial),
        }
        write_metadata(partial, metadata)
    return metadata


def _check_widths(sequence: TransitionSequence, features: int, actions: int) -> None:
    steps = len(sequence)
    expected = {
        "observations": (steps + 1, features),
        "masks": (steps + 1, actions),
        "log_probs": (steps,),
        "rewards": (steps,),
    }
    if sequence.outcomes is not None:
        expected["outcomes"] = (steps,)
    for name, shape in expected.items():
        seen = getattr(sequence, name).shape
        if seen != shape:
            raise ValueError(
                f"{name} of run {sequence.run}, episode {sequence.episode}, node {sequence.node} "
                f"have shape {seen}; {shape} is expected"
            )
    if not steps or len(sequence.policies) != steps:
        raise ValueError(f"{steps} actions of {len(sequence.policies)} policies")
