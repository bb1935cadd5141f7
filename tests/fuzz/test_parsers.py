"""Scenarios, cards, manifests and data sets: whatever the bytes, an error for users or a result."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import IN_CI
from tests.fuzz.targets import TARGETS

GROWTH_MB = 300
"""Most that resident memory may grow by over all inputs of one target."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_a_defect(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None and not IN_CI:
        pytest.skip("there is no atheris for this platform; install the extra dev where there is")
    # By way of a shell: the peak of a process counts from that of the one it was forked from, and
    # the process of the tests is larger than the limit.
    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$@"; exit $?',
            "sh",
            sys.executable,
            "-m",
            "tests.fuzz",
            name,
            "--seed",
            "1",
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=500,
    )
    said = done.stderr[-3000:]
    assert done.returncode == 0, said
    assert f"Done {TARGETS[name].inputs} runs" in done.stderr, said
    before = re.search(r"([0-9]+) MB before", done.stderr)
    peak = re.search(r"stat::peak_rss_mb:\s+([0-9]+)", done.stderr)
    assert before is not None, said
    assert peak is not None, said
    assert int(peak[1]) - int(before[1]) < GROWTH_MB, said
