"""A PATH that has the tests' engine and kind on it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.runtime.kind import KindCluster
from tests.runtime.kind.engine import FakeEngine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine.installed(tmp_path, monkeypatch)


@pytest.fixture
def cluster(engine: FakeEngine, tmp_path: Path) -> KindCluster:
    return KindCluster(tmp_path / "home")
