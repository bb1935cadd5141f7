"""Data sets on disk: what is refused, what is found, and that exports hold the same numbers."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from testbed.errors import PermanentError, UsageError
from testbed.model.encoders import encoder
from testbed.storage.dataset import (
    Content,
    Counts,
    DataSet,
    TransitionSequence,
    export_data_set,
    list_data_sets,
    load,
    show,
    validate,
    write_data_set,
)
from testbed.storage.dataset import format as dataset_format
from testbed.storage.dataset.format import TRANSITIONS
from testbed.storage.folders import describe_files, write_metadata
from trainer.learning.transitions import Transitions

NODES, SLOTS = 3, 5
FEATURES = 3 * NODES + 7
CONTENT = Content(
    name="sample",
    encoder=encoder("paper-v1"),
    nodes=NODES,
    slots=SLOTS,
    scenario="tiny",
    scenario_hashes=("5a",),
    runs=({"id": "run"},),
)


def sequence(
    episode: int, node: int, *, steps: int = SLOTS, terminated: bool = False, run: str = "run"
) -> TransitionSequence:
    """A random sequence, the same for the same arguments."""
    random = np.random.default_rng([episode, node, steps])
    masks = random.random((steps + 1, NODES + 1)) < 0.5
    actions = random.integers(0, NODES + 1, steps + 1)
    masks[np.arange(steps + 1), actions] = True
    log_probs = -random.random(steps, np.float32)
    log_probs[::2] = np.nan
    return TransitionSequence(
        run,
        episode,
        node,
        0,
        random.random((steps + 1, FEATURES), np.float32),
        masks,
        actions[:steps],
        log_probs,
        random.integers(-3, 4, steps).astype(np.float32),
        ("ratc",) * steps,
        terminated,
        random.choice(np.array([0.0, 1.0, np.nan], np.float32), steps),
    )


SEQUENCES = [sequence(episode, node) for episode in range(2) for node in range(NODES)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data_set(tmp_path / "set", CONTENT, SEQUENCES)
    return tmp_path / "set"


def joined(name: str) -> Any:
    return np.concatenate([getattr(each, name) for each in SEQUENCES])


def test_sequences_come_back_as_transitions(folder: Path) -> None:
    data = load(folder)
    assert validate(folder) == []
    np.testing.assert_array_equal(
        data.obs, np.concatenate([each.observations[:-1] for each in SEQUENCES])
    )
    np.testing.assert_array_equal(
        data.next_obs, np.concatenate([each.observations[1:] for each in SEQUENCES])
    )
    np.testing.assert_array_equal(data.mask, np.concatenate([s.masks[:-1] for s in SEQUENCES]))
    np.testing.assert_array_equal(
        data.next_mask, np.concatenate([each.masks[1:] for each in SEQUENCES])
    )
    np.testing.assert_array_equal(data.action, joined("actions"))
    np.testing.assert_array_equal(data.log_prob, joined("log_probs"))
    np.testing.assert_array_equal(data.reward, joined("rewards"))
    np.testing.assert_array_equal(data.outcome, joined("outcomes"))
    assert data.offsets.tolist() == list(range(0, 31, SLOTS))
    assert (data.sequences, len(data), data.nodes, data.encoder) == (6, 30, NODES, "paper-v1")


def test_a_data_set_of_an_earlier_release_has_no_outcomes(folder: Path) -> None:
    table = pa.parquet.read_table(folder / TRANSITIONS)
    pa.parquet.write_table(table.drop_columns(["outcome"]), folder / TRANSITIONS)
    data = load(folder, verify=False)
    assert np.isnan(data.outcome).all()
    np.testing.assert_array_equal(data.reward, joined("rewards"))


def test_what_is_loaded_is_what_learners_take(folder: Path) -> None:
    data = load(folder)
    transitions = Transitions(
        obs=data.obs,
        mask=data.mask,
        action=data.action,
        log_prob=data.log_prob,
        reward=data.reward,
        next_obs=data.next_obs,
        next_mask=data.next_mask,
        terminated=data.terminated,
        truncated=data.truncated,
    )
    assert len(transitions) == len(data)


def test_sequences_of_many_lengths_and_endings_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several row groups, so that columns come in chunks.
    monkeypatch.setattr(dataset_format, "_ROWS_PER_GROUP", 7)
    sequences = [
        sequence(episode, node, steps=1 + (episode + node) % 4, terminated=node == 1)
        for episode in range(5)
        for node in range(NODES)
    ]
    write_data_set(tmp_path / "set", CONTENT, sequences)
    assert pyarrow.parquet.ParquetFile(tmp_path / "set" / TRANSITIONS).num_row_groups > 3
    data = load(tmp_path / "set")
    assert np.diff(data.offsets).tolist() == [len(each) for each in sequences]
    for number, each in enumerate(sequences):
        rows = slice(data.offsets[number], data.offsets[number + 1])
        np.testing.assert_array_equal(data.obs[rows], each.observations[:-1])
        np.testing.assert_array_equal(data.next_obs[rows], each.observations[1:])
        np.testing.assert_array_equal(data.next_mask[rows], each.masks[1:])
        end = data.offsets[number + 1] - 1
        assert data.terminated[end] == each.terminated
        assert data.truncated[end] == (not each.terminated)
    assert data.terminated.sum() == 5


def test_sequences_of_other_widths_are_a_defect(tmp_path: Path) -> None:
    wrong = dataclasses.replace(SEQUENCES[0], rewards=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="rewards of run run, episode 0, node 0"):
        write_data_set(tmp_path / "set", CONTENT, [wrong])
    assert os.listdir(tmp_path) == []


def rewritten(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """The data set with other transitions, and metadata that agrees with the file."""
    table = change(pyarrow.parquet.read_table(folder / TRANSITIONS))
    pyarrow.parquet.write_table(table, folder / TRANSITIONS)
    about(folder, files=describe_files(folder))


def about(folder: Path, **changes: Any) -> None:
    write_metadata(folder, {**json.loads((folder / "metadata.json").read_text()), **changes})


def replaced(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        field = table.schema.field(name).with_nullable(True)
        return table.set_column(index, field, values)

    return apply


def item(row: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    def change(values: list[Any]) -> list[Any]:
        values[row] = value
        return values

    return change


NOT_A_NUMBER = [float("nan")] * FEATURES


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replaced("observation", item(7, NOT_A_NUMBER)), "observation: 1 rows are not finite"),
        (replaced("reward", item(7, float("inf"))), r"reward: 1 rows are not finite \(rows 7\)"),
        (replaced("reward", item(7, None)), "reward: 1 rows have no value"),
        (replaced("outcome", item(7, 0.5)), r"outcome: 1 rows are no outcome \(rows 7\)"),
        (replaced("log_prob", item(1, 0.5)), "log_prob: 1 rows are no log-probability"),
        (replaced("mask", item(0, [False] * 4)), "mask: 1 rows are without an allowed action"),
        (replaced("action", item(0, 9)), "action: 1 rows are not allowed by the mask"),
        (replaced("action", item(0, -1)), "action: 1 rows are not allowed by the mask"),
        (replaced("slot", item(2, 4)), "sequences without gaps"),
        (replaced("truncated", item(2, True)), "only the end of a sequence"),
        (replaced("truncated", item(4, False)), "neither this nor terminated"),
        (replaced("terminated", item(4, True)), "this and terminated"),
        (replaced("final_observation", item(4, None)), "without one"),
        (replaced("final_observation", item(4, [1.0])), "of another length"),
        (replaced("final_observation", item(4, NOT_A_NUMBER)), "final_observation: 1 rows are not"),
        (replaced("final_mask", item(4, [False] * 4)), "final_mask: 1 rows are without"),
        (replaced("node", item(2, 2)), "sequences: 2 are torn apart"),
        (lambda table: table.drop_columns(["reward"]), "reward: is missing"),
        (
            lambda table: table.set_column(10, "terminated", pa.array(["no"] * len(table))),
            "terminated: is string",
        ),
        (
            lambda table: table.append_column("reward", table["reward"]),
            "reward: is there twice",
        ),
        (lambda table: table.slice(0, 25), "sequences: 5, and 6 in the metadata"),
        (lambda table: table.slice(0, 15), "episodes: 1, and 2 in the metadata"),
        (lambda table: table.slice(0, 0), "transitions: there are none"),
    ],
)
def test_transitions_that_cannot_be_learned_from_are_refused(
    folder: Path, change: Callable[[pa.Table], pa.Table], expected: str
) -> None:
    rewritten(folder, change)
    with pytest.raises(UsageError, match=expected):
        load(folder)
    problems = "\n".join(map(str, validate(folder)))
    assert expected.replace("\\", "") in problems


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 2}, "this toolkit reads version 1"),
        ({"encoder": "mine-v1"}, "known are paper-v1, extended-v1"),
        ({"encoder": "extended-v1"}, "encoders are mixed"),
        ({"nodes": None}, "metadata.nodes: None; int is needed"),
        ({"actions": 3}, "3 nodes have 4"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    about(folder, **changes)
    with pytest.raises(UsageError, match=expected):
        load(folder)
    assert expected in "\n".join(map(str, validate(folder)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({TRANSITIONS: None}, "is described as None instead of by its bytes and sha256"),
        ({TRANSITIONS: {"bytes": 3}}, "instead of by its bytes and sha256"),
        ({TRANSITIONS: ["bytes", "sha256"]}, "instead of by its bytes and sha256"),
        ({TRANSITIONS: {"bytes": "many", "sha256": ""}}, "bytes instead of 'many'"),
        (
            {"../metadata.json": {"bytes": 3, "sha256": ""}},
            "is not the name of a file in the folder",
        ),
        ({"/etc/passwd": {"bytes": 3, "sha256": ""}}, "is not the name of a file in the folder"),
        ({"a\0b": {"bytes": 3, "sha256": ""}}, "is not the name of a file in the folder"),
        ({"n" * 5000: {"bytes": 3, "sha256": ""}}, "cannot be read: File name too long"),
    ],
)
def test_damaged_descriptions_of_files_are_refused(
    folder: Path, files: dict[str, Any], expected: str
) -> None:
    about(folder, files=files)
    with pytest.raises(UsageError, match=expected):
        load(folder)
    assert expected in "\n".join(map(str, validate(folder)))


def test_a_file_whose_own_description_is_damaged_is_refused(folder: Path) -> None:
    path = folder / TRANSITIONS
    content = path.read_bytes()
    assert b"episode" in content
    path.write_bytes(content.replace(b"episode", b"\xb1pisode"))
    with pytest.raises(UsageError, match="cannot be read"):
        load(folder, verify=False)


def test_metadata_that_is_too_deep_is_refused(folder: Path) -> None:
    (folder / "metadata.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="cannot be read"):
        load(folder)


def test_an_idle_data_set_teaches_nothing(tmp_path: Path) -> None:
    idle = dataclasses.replace(
        SEQUENCES[0], actions=np.full(SLOTS, NODES), masks=np.ones((SLOTS + 1, NODES + 1), np.bool_)
    )
    write_data_set(tmp_path / "set", CONTENT, [idle])
    with pytest.raises(UsageError, match="no row has a task"):
        load(tmp_path / "set")


def test_an_altered_file_is_noticed(folder: Path) -> None:
    path = folder / TRANSITIONS
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="was altered"):
        load(folder)
    path.write_bytes(content[:-7])
    with pytest.raises(UsageError, match="bytes instead of"):
        load(folder)
    with pytest.raises(UsageError, match="cannot be read"):
        load(folder, verify=False)
    assert len(validate(folder)) == 2
    path.unlink()
    with pytest.raises(UsageError, match="is missing"):
        load(folder)
    assert len(validate(folder)) == 1


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for use in (load, validate, show):
        with pytest.raises(UsageError, match="there is no such folder"):
            use(tmp_path / "absent")
        with pytest.raises(UsageError, match=r"has no metadata\.json"):
            use(tmp_path)
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "metadata.json").write_text('{"kind": "edge-testbed export"}')
    with pytest.raises(UsageError, match="is a edge-testbed export"):
        load(tmp_path)


def test_a_data_set_is_not_overwritten_by_chance(folder: Path) -> None:
    with pytest.raises(UsageError, match="--force"):
        write_data_set(folder, CONTENT, SEQUENCES[:1])
    assert load(folder).sequences == 6
    write_data_set(folder, CONTENT, SEQUENCES[:1], overwrite=True)
    assert load(folder).sequences == 1


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield SEQUENCES[0]
        raise PermanentError("the log is gone")

    with pytest.raises(PermanentError, match="the log is gone"):
        write_data_set(tmp_path / "set", CONTENT, broken(), counts=Counts())
    assert os.listdir(tmp_path) == []


def test_data_sets_are_listed_oldest_first(tmp_path: Path) -> None:
    assert list_data_sets(tmp_path / "absent") == []
    for name, created in (("a", "2026-02"), ("b", "2026-01"), ("c.partial-12", "2026-03")):
        write_data_set(tmp_path / name, CONTENT, SEQUENCES)
        about(tmp_path / name, created=created)
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    assert [(path.name, about["name"]) for path, about in list_data_sets(tmp_path)] == [
        ("b", "sample"),
        ("a", "sample"),
    ]


def nan_is_none(values: Any) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def test_the_exported_parquet_holds_every_transition(folder: Path, tmp_path: Path) -> None:
    export_data_set(folder, tmp_path / "out", formats=("parquet",))
    data = load(folder)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "transitions.parquet")
    check_rows(data, table.to_pylist(), unknown=lambda value: value != value)


def test_the_exported_json_lines_hold_every_transition(folder: Path, tmp_path: Path) -> None:
    export_data_set(folder, tmp_path / "out", formats=("jsonl",))
    lines = (tmp_path / "out" / "transitions.jsonl").read_text().splitlines()
    check_rows(load(folder), [json.loads(line) for line in lines], unknown=lambda v: v is None)


def check_rows(data: DataSet, rows: list[dict[str, Any]], unknown: Callable[[Any], bool]) -> None:
    assert [row["observation"] for row in rows] == data.obs.tolist()
    assert [row["next_observation"] for row in rows] == data.next_obs.tolist()
    assert [row["mask"] for row in rows] == data.mask.tolist()
    assert [row["next_mask"] for row in rows] == data.next_mask.tolist()
    assert [row["action"] for row in rows] == data.action.tolist()
    assert [row["reward"] for row in rows] == data.reward.tolist()
    outcomes = [None if unknown(row["outcome"]) else row["outcome"] for row in rows]
    assert outcomes == nan_is_none(data.outcome)
    assert [row["truncated"] for row in rows] == data.truncated.tolist()
    assert [row["terminated"] for row in rows] == data.terminated.tolist()
    assert [None if unknown(row["log_prob"]) else row["log_prob"] for row in rows] == nan_is_none(
        data.log_prob
    )
    keys = [(row["run"], row["episode"], row["node"], row["slot"], row["policy"]) for row in rows]
    assert keys == [
        ("run", episode, node, slot, "ratc")
        for episode in range(2)
        for node in range(NODES)
        for slot in range(SLOTS)
    ]


def test_the_exported_csv_holds_every_transition(folder: Path, tmp_path: Path) -> None:
    metadata = export_data_set(folder, tmp_path / "out", formats=("csv",))
    data = load(folder)
    with (tmp_path / "out" / "transitions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = metadata["observation_columns"]
    assert (
        np.array([[row[name] for name in names] for row in rows], np.float32).tobytes()
        == data.obs.tobytes()
    )
    assert (
        np.array([[row[f"next_{name}"] for name in names] for row in rows], np.float32).tobytes()
        == data.next_obs.tobytes()
    )
    for name, masks in (("mask", data.mask), ("next_mask", data.next_mask)):
        columns = [f"{name}_{action}" for action in range(masks.shape[1])]
        assert [[row[each] == "1" for each in columns] for row in rows] == masks.tolist()
    assert [int(row["action"]) for row in rows] == data.action.tolist()
    assert [float(row["reward"]) for row in rows] == data.reward.tolist()
    log_probs = np.array([row["log_prob"] or "nan" for row in rows], np.float32)
    np.testing.assert_array_equal(log_probs, data.log_prob)
    outcomes = np.array([row["outcome"] or "nan" for row in rows], np.float32)
    np.testing.assert_array_equal(outcomes, data.outcome)
    assert [row["truncated"] == "1" for row in rows] == data.truncated.tolist()
    assert (rows[5]["run"], rows[5]["episode"], rows[5]["node"], rows[5]["slot"]) == (
        "run",
        "0",
        "1",
        "0",
    )


def test_an_export_says_what_it_is_of(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    export_data_set(
        folder,
        tmp_path / "out",
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert set(metadata["files"]) == {f"transitions.{name}" for name in ("csv", "jsonl", "parquet")}
    assert metadata["encoder"] == "paper-v1"
    assert metadata["data_set"]["files"] == show(folder)["files"]
    assert {what for what, done, total in told if done == total} == {"csv", "jsonl", "parquet"}
    with pytest.raises(
        UsageError, match="known are csv, jsonl, parquet, minari, minari-flat, rllib"
    ):
        export_data_set(folder, tmp_path / "more", formats=("xlsx",))
    with pytest.raises(UsageError, match="--force"):
        export_data_set(folder, tmp_path / "out")
