"""Real testbeds on loopback, each below a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.runtime.local import LocalRuntime


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LocalRuntime]:
    local = LocalRuntime(tmp_path / "home", orphan_timeout_s=0.5)
    yield local
    for name in local.names():
        local.down(name)
