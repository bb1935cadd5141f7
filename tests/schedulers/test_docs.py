"""The examples in the documentation work as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.schedulers import registry
from testbed.sim.simulator import names

ROOT = Path(__file__).resolve().parents[2]
WRITING = ROOT / "docs" / "writing-a-scheduler.md"
LISTED = ROOT / "docs" / "schedulers.md"
EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def _examples(page: Path) -> dict[str, str]:
    return dict(EXAMPLE.findall(page.read_text()))


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page, as a reader would have it."""
    for name, text in _examples(WRITING).items():
        (tmp_path / (name if name.endswith(".py") else f"{name}.py")).write_text(text)
    return tmp_path


def test_the_example_runs_in_the_simulator(folder: Path) -> None:
    done = _python(folder, "simulate.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    rates = [float(line.rsplit(" ", 1)[1]) for line in lines if "shortest_queue" in line]
    assert len(rates) == 3
    assert all(0.3 < rate <= 1.0 for rate in rates)


def test_the_example_passes_the_suite_as_the_page_says(folder: Path) -> None:
    done = _python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder))
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b2\d passed", done.stdout), done.stdout


def test_the_example_refuses_wrong_options(folder: Path) -> None:
    script = (
        "from testbed.errors import UsageError\n"
        "from testbed.schedulers import registry\n"
        "from testbed.testing.schedulers import situation\n"
        "name, context = 'shortest_queue:ShortestQueue', situation(3, 0).context\n"
        "registry.create(name, context, {'peers': 5})\n"
        "for options in ({'peers': 0}, {'pears': 3}):\n"
        "    try:\n"
        "        registry.create(name, context, options)\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
    )
    done = _python(folder, "-c", script)
    assert done.returncode == 0, done.stderr
    assert "peers: 0; a whole number from 1" in done.stdout
    assert "pears: unknown option; known: peers" in done.stdout


def test_the_page_of_schedulers_lists_exactly_those_there_are() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", LISTED.read_text(), re.MULTILINE)
    assert set(listed) == set(names())
    assert len(listed) == len(set(listed))
    assert set(registry.names()) < set(listed)


def test_the_examples_of_the_page_of_schedulers_work(tmp_path: Path) -> None:
    (tmp_path / "simulate.py").write_text(_examples(LISTED)["simulate"])
    done = _python(tmp_path, "simulate.py")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9
