"""Task logs and artifact stores of other packages, by the scheme of their URLs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.storage.artifacts import FolderArtifactStore, open_artifact_store
from testbed.storage.tasklog import TaskLog, open_task_log


def own_log(url: str, *, create: bool) -> TaskLog:
    return open_task_log(url.removeprefix("own://"), create=create)


def own_store(url: str) -> FolderArtifactStore:
    return FolderArtifactStore(Path(url.removeprefix("own://")))


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> list[metadata.EntryPoint]:
        target = {"edge_testbed.task_logs": "own_log", "edge_testbed.artifact_stores": "own_store"}
        if group not in target:
            return []
        return [
            metadata.EntryPoint("own", f"{__name__}:{target[group]}", group),
            metadata.EntryPoint("file", "not_there_at_all:never", group),
            metadata.EntryPoint("sqlite", "not_there_at_all:never", group),
            metadata.EntryPoint("absent", "not_there_at_all:never", group),
        ]

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def test_their_schemes_are_known(tmp_path: Path) -> None:
    with open_task_log(f"own://{tmp_path}/log.sqlite") as log:
        assert log.runs() == []
    store = open_artifact_store(f"own://{tmp_path}/artifacts")
    assert isinstance(store, FolderArtifactStore)
    assert store.root == tmp_path / "artifacts"


def test_built_in_schemes_cannot_be_taken(tmp_path: Path) -> None:
    with open_task_log(f"sqlite:///{tmp_path}/log.sqlite") as log:
        assert log.runs() == []
    assert isinstance(open_artifact_store(f"file://{tmp_path}/artifacts"), FolderArtifactStore)


def test_one_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(UsageError, match="task log 'absent' cannot be loaded from not_there"):
        open_task_log("absent://x")
    with pytest.raises(UsageError, match="artifact store 'absent' cannot be loaded"):
        open_artifact_store("absent://x")
    with pytest.raises(UsageError, match=r"unknown scheme other://; a path, or .*, own://"):
        open_artifact_store("other://x")
