"""Machine code of the engine is kept for the user, whatever checkout it was compiled in."""

from __future__ import annotations

import importlib.util
import io
import os
import time
from pathlib import Path
from typing import Any

import pytest

from testbed.sim.engine import compiling

SOURCE = """
from testbed.sim.engine.compiling import compiled

@compiled
def twice(x: int) -> int:
    return 2 * x

@compiled
def four_times(x: int) -> int:
    return twice(twice(x))
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for known in (compiling._digest, compiling._announce, compiling._prune):
        known.cache_clear()


def checkout(folder: Path, source: str = SOURCE) -> Any:
    """The module in a checkout of its own, imported anew."""
    folder.mkdir(exist_ok=True)
    file = folder / "kernels.py"
    file.write_text(source)
    compiling._digest.cache_clear()
    spec = importlib.util.spec_from_file_location("kernels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hits(module: Any) -> int:
    return sum(module.four_times.stats.cache_hits.values())


def test_another_checkout_of_the_same_sources_compiles_nothing(tmp_path: Path) -> None:
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    assert (first.four_times(3), hits(first)) == (12, 0)
    assert (second.four_times(3), hits(second)) == (12, 1)
    kept = compiling.folder_of(tmp_path / "b" / "kernels.py")
    assert kept.parent == tmp_path / "cache" / "edge-testbed" / "compiled"
    assert (kept / "kernels").stat().st_mode & 0o77 == 0


def test_machine_code_of_other_sources_is_not_used(tmp_path: Path) -> None:
    assert checkout(tmp_path / "a").four_times(3) == 12
    changed = checkout(tmp_path / "a", SOURCE.replace("2 * x", "3 * x"))
    assert (changed.four_times(3), hits(changed)) == (27, 0)
    # What it calls stands in another file of the package.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "constants.py").write_text("X = 1")
    other = checkout(tmp_path / "b")
    assert (other.four_times(3), hits(other)) == (12, 0)


def test_a_damaged_file_is_compiled_again(tmp_path: Path) -> None:
    assert checkout(tmp_path / "a").four_times(3) == 12
    for kept in compiling.folder_of(tmp_path / "a" / "kernels.py").rglob("*.nbc"):
        kept.write_bytes(b"not what was written")
    again = checkout(tmp_path / "a")
    assert (again.four_times(3), hits(again)) == (12, 0)


def test_without_a_place_to_write_to_it_is_compiled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert checkout(tmp_path / "a").four_times(3) == 12


def test_a_terminal_is_told_once_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    module = checkout(tmp_path / "a")
    assert (module.four_times(3), module.twice(1.0)) == (12, 2.0)
    assert terminal.getvalue().count("compiling the engine for this processor") == 1
    compiling._announce.cache_clear()
    assert checkout(tmp_path / "a").four_times(3) == 12
    assert terminal.getvalue().count("\n") == 1


def test_machine_code_that_nobody_uses_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "edge-testbed" / "compiled"
    for name, days in (("0" * 16, 31), ("1" * 16, 1)):
        folder = root / name
        folder.mkdir(parents=True)
        used = time.time() - days * 86_400
        os.utime(folder, (used, used))
    checkout(tmp_path / "a")
    compiling._prune.cache_clear()
    assert checkout(tmp_path / "a").four_times(3) == 12
    assert sorted(path.name for path in root.iterdir() if path.name in ("0" * 16, "1" * 16)) == [
        "1" * 16
    ]
