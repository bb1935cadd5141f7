"""The limits of the machine are measured, and the tables of docs/performance.md made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as main
from benchmarks import bench_limits, performance
from benchmarks.performance import MARKERS, SETTINGS, cost_table, knee_table, limit_table
from testbed.experiment.calibration.values import Knee, Trial

ROOT = Path(__file__).resolve().parents[2]

TRIAL = Trial(
    10,
    True,
    terms={"transmission": 0.5},
    tasks_per_s=50.0,
    mb_per_s=75.0,
    memory=200_000_000,
    controller_ms=0.5,
    nodes_ms=2.0,
    kernel=0.25,
)


def test_every_limit_is_measured() -> None:
    # In a process of its own: some of them fork.
    script = "import json; from benchmarks.bench_limits import rows; print(json.dumps(rows(1)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )

    found = json.loads(done.stdout)
    assert {row["benchmark"] for row in found} == set(bench_limits.UNITS)
    assert all(row["value"] > 0 for row in found)


def test_the_cost_of_a_task_stands_beside_what_it_was() -> None:
    lines = cost_table([(SETTINGS[0], TRIAL), (SETTINGS[3], TRIAL)]).splitlines()

    assert len(lines) == 5
    assert lines[2].startswith("| 10 nodes, metadata, a process each, before | 3.2 | 8.7 |")
    assert lines[3] == (
        "| 10 nodes, metadata, a process each, now | 0.5 | 2 | 25 % | 20 MB | 0.5 | yes |"
    )


def test_knees_and_what_limits_them() -> None:
    carried = Knee("nodes-bytes", 10, 20, "memory", (TRIAL,))
    none = Knee("link", None, 1, "it is slow", ())

    lines = knee_table({"nodes-bytes": carried, "link": none}).splitlines()

    assert lines[2] == "| nodes with real bytes, one process each | 10 nodes | 50 | 75 | memory |"
    assert lines[3] == "| bytes from one node to another | none | | | it is slow |"


def test_each_figure_stands_beside_its_limit() -> None:
    limits = dict.fromkeys(bench_limits.UNITS, 1000.0)
    rates = {"log": 100.0, "simulator": 50.0, "engine": 1.0, "rows": 10.0, "calls": 100.0}
    link = Knee("link", 500, 1000, "late", (Trial(500, True),))

    lines = limit_table(limits, [(SETTINGS[0], TRIAL)], {"link": link}, rates).splitlines()

    assert lines[2].endswith("| 500 MB/s | Unix socket: bytes in chunks of 250 KB, one way | "
                             "1,000 MB/s | 0.5 |")  # fmt: skip
    assert "2.5 ms" in lines[4]
    assert all(name in "\n".join(lines) for name in bench_limits.UNITS)


def test_the_page_keeps_its_text_around_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    begin, end = MARKERS
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.setattr(performance, "PAGE", page)

    performance.write("new \\1")
    performance.write("newer")

    assert page.read_text() == f"before\n{begin}\nnewer\n{end}\nafter\n"


def test_the_page_has_its_markers() -> None:
    text = performance.PAGE.read_text(encoding="utf-8")

    assert all(text.count(marker) == 1 for marker in MARKERS)


def test_every_section_says_what_it_measures() -> None:
    described = main.descriptions()

    assert set(described) == set(main.names())
    assert all(described.values())
    assert all(Path(main.__file__).with_name(f"bench_{name}.py").exists() for name in described)
