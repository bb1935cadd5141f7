"""A missing service skips a test on a developer's machine and fails it in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [(None, "1 skipped"), ("false", "1 skipped"), ("true", "1 error"), ("1", "1 error")],
)
def test_without_its_service(tmp_path: Path, ci: str | None, outcome: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    hdfs: needs an HDFS\n")
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_store.py").write_text(
        "import pytest\n\n@pytest.mark.hdfs\ndef test_put() -> None:\n    pass\n"
    )
    given = {"CI", "TESTBED_TEST_WEBHDFS_URL"}
    environment = {key: value for key, value in os.environ.items() if key not in given}
    # A machine where no program of another is found.
    environment["PATH"] = str(tmp_path)
    if ci is not None:
        environment["CI"] = ci

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert outcome in run.stdout
    assert "TESTBED_TEST_WEBHDFS_URL" in run.stdout
