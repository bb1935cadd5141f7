"""docs/adding.md names files, classes and groups that exist, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from testbed import testing
from testbed.runtime import registry as runtimes
from testbed.schedulers import registry as schedulers
from testbed.storage.artifacts import opening as artifacts
from testbed.storage.tasklog import opening as task_logs

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding.md").read_text()


def test_files_that_it_names_exist() -> None:
    named = re.findall(r"`((?:testbed|edgenode|tests)/[\w/.]+)`", PAGE)

    assert len(named) > 10
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert missing == []


def test_suites_and_groups_that_it_names_exist() -> None:
    suites = set(re.findall(r"`(\w+Contract)`", PAGE))
    text = "".join(path.read_text() for path in Path(testing.__file__).parent.glob("*.py"))
    groups = set(re.findall(r"`(edge_testbed\.\w+)`", PAGE))

    assert suites == {
        "ArtifactStoreContract",
        "RuntimeContract",
        "SchedulerContract",
        "TaskLogContract",
    }
    assert [suite for suite in suites if f"class {suite}" not in text] == []
    assert groups == {
        "edge_testbed.applications",
        artifacts.GROUP,
        runtimes.GROUP,
        schedulers.GROUP,
        task_logs.GROUP,
    }


def test_its_example_runs() -> None:
    [block] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

    names: dict[str, object] = {}
    exec(compile(block, "docs/adding.md", "exec"), names)

    late = names["late"]
    assert isinstance(late, pd.DataFrame)
    assert set(late.iloc[0][["first", "second"]]) == {"ratc", "rda"}
