"""docs/adding.md names files, classes and groups that exist; the example of a metric runs."""

from __future__ import annotations

import re
from pathlib import Path

from testbed import Metric, compare, load, testing
from testbed.experiment import metrics
from testbed.model.hooks import HOOKS
from testbed.runtime import registry as runtimes
from testbed.storage.artifacts import opening as artifacts
from testbed.storage.tasklog import opening as task_logs
from trainer import tracking as trackers

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
        "RouterContract",
        "RuntimeContract",
        "SchedulerContract",
        "TaskLogContract",
    }
    assert [suite for suite in suites if f"class {suite}" not in text] == []
    assert groups == {
        "edge_testbed.applications",
        artifacts.GROUP,
        metrics.GROUP,
        runtimes.GROUP,
        *(hook.group for hook in HOOKS.values()),
        task_logs.GROUP,
        trackers.GROUP,
    }


def test_the_example_of_a_metric_runs() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    [block] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)

    names: dict[str, object] = {}
    exec(compile(block, "docs/metrics.md", "exec"), names)

    metric = names["TASKS"]
    assert isinstance(metric, Metric)
    compared = compare(load("quickstart"), ["ratc", "rda"], episodes=4).paired(metric)
    assert set(compared.iloc[0][["first", "second"]]) == {"ratc", "rda"}
    assert compared.iloc[0]["difference"] == 0.0
