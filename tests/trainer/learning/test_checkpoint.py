from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from testbed.errors import UsageError
from trainer.learning.checkpoint import prefixed, read_checkpoint, taken, write_checkpoint

ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "count": np.array(3)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.npz"
    write_checkpoint(path, "offline", ARRAYS, {"step": 3, "best": None})
    arrays, note = read_checkpoint(path, "offline")
    assert note == {"step": 3, "best": None}
    assert arrays.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(arrays["weight"], ARRAYS["weight"])
    first = path.read_bytes()
    write_checkpoint(path, "offline", ARRAYS, {"step": 3, "best": None})
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    """A checkpoint that others could write to must not be able to run code."""
    touched = tmp_path / "touched"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (touched,))

    path = tmp_path / "bomb.npz"
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=True, bomb=np.array([Bomb()], dtype=object))
    with pytest.raises(UsageError, match="cannot be read"):
        read_checkpoint(path, "offline")
    assert not touched.exists()


def test_objects_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    write_checkpoint(path, "offline", ARRAYS, {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_checkpoint(path, "offline", {"x": np.array([object()], dtype=object)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_kind_or_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    write_checkpoint(path, "offline", ARRAYS, {})
    with pytest.raises(UsageError, match="offline, schema 1; online"):
        read_checkpoint(path, "online")


def test_prefixes_keep_states_apart() -> None:
    both = prefixed("a", ARRAYS) | prefixed("ab", {"other": np.array(1)})
    assert taken("a", both).keys() == ARRAYS.keys()
    assert taken("none", both) == {}
