"""The report of one or more runs: a page to look at, figures, and tables to work on.

``write_report`` leaves in its folder: ``index.html`` (one file with the figures inside),
``figures/*.svg``, ``*.png`` and ``*.csv`` with the data of each figure, ``tables/*.csv`` and
``report.json`` with everything in it. docs/report.md describes them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pandas as pd

from testbed.errors import PermanentError, UsageError
from testbed.experiment import differences, figures
from testbed.experiment.comparison import metric_of
from testbed.experiment.drawing import all_drawn
from testbed.experiment.measured import Summary, names_of
from testbed.experiment.metrics import Metric
from testbed.experiment.report_page import (
    Compared,
    comparison_of,
    differences_of,
    headline,
    page_of,
)
from testbed.experiment.reporting import Drawn, FamilyReport, Plot, Plots, by_episode
from testbed.experiment.serving.report import REPORT as SERVING_REPORT
from testbed.experiment.summary import summary_of
from testbed.experiment.task_report import REPORT as TASK_REPORT
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS
from testbed.storage.tasklog import TaskLog, outcomes_of

MARKER: Final = "report.json"
"""A folder that holds this file was written by ``write_report`` and may be replaced by it."""

READING: Final = "rows of runs read"
DRAWING: Final = "figures drawn"
"""The two parts of the work, as ``Told`` names them."""

Told: TypeAlias = Callable[[str, int, int], None]
"""Hears how far the report is: the part of the work, how much of it is done, and how much it is."""

REPORTS: Final[ByModel[FamilyReport]] = ByModel(
    "a report", {TASKS: TASK_REPORT, SERVING: SERVING_REPORT}
)
"""The part of a report that differs between families, by model."""


@dataclass(frozen=True)
class Report:
    """The files of a report. ``path`` is the page; ``document`` is what ``report.json`` holds."""

    path: Path
    figures: Mapping[str, Path]
    tables: Mapping[str, Path]
    document: Mapping[str, Any]


def write_report(
    log: TaskLog,
    run_ids: Sequence[str],
    out: Path,
    progress: Told | None = None,
    metric: Metric | str | None = None,
) -> Report:
    """Write the report of ``run_ids`` into ``out``; an earlier report there is replaced.

    Runs are compared by ``metric`` (None: the objective of their scenario); the success rate, of
    serving runs the share refused, is shown in any case. The folder appears complete or not at all.

    Raises: UsageError: no run, no finished task in one, runs of different families, ``out`` holds
    something else, or the metric cannot be computed.
    PermanentError: the folder cannot be written.
    """
    if not run_ids:
        raise UsageError("a report needs at least one run; `testbed runs list` shows them")
    say = progress or (lambda part, done, of: None)
    _check_replaceable(out)
    runs = _read(log, run_ids, say)
    metric = metric_of(runs, metric)
    compared = Compared(metric, [run.measured(metric) for run in runs], comparison_of(runs, metric))
    family = REPORTS.of(runs[0].run)
    plots = _plots(log, family, runs, compared)
    say(DRAWING, 0, len(plots))
    drawn = all_drawn(plots, lambda done: say(DRAWING, done, len(plots)))
    tables = _tables(family, runs, compared)
    comparison = compared.comparison
    document: dict[str, Any] = {
        "runs": [run.document for run in runs],
        "comparison": None if comparison is None else comparison.document,
        "metric": {
            **metric.document,
            "runs": {
                run.run.id: found.document
                for run, found in zip(runs, compared.measured, strict=True)
            },
        },
        "certificates": {run.run.id: run.run.certificate for run in runs},
    }
    page = page_of(log, family, runs, compared, drawn, tables)
    try:
        _write(out, drawn, tables, document, page)
    except OSError as error:
        raise PermanentError(
            f"cannot write the report to {out}: {error.strerror or error}; choose another folder"
        ) from error
    return Report(
        path=out / "index.html",
        figures={name: out / "figures" / f"{name}.png" for name in drawn},
        tables={name: out / "tables" / f"{name}.csv" for name in tables},
        document=document,
    )


def _read(log: TaskLog, run_ids: Sequence[str], say: Told) -> list[Summary]:
    wanted = list(dict.fromkeys(run_ids))
    counts = outcomes_of(log, [log.run(run_id) for run_id in wanted])
    total = sum(sum(each.values()) for each in counts.values())
    runs: list[Summary] = []
    say(READING, 0, total)
    for run_id in wanted:
        before = sum(run.count for run in runs)
        runs.append(summary_of(log, run_id, partial(_heard, say, total, before)))
    return runs


def _heard(say: Told, total: int, before: int, done: int) -> None:
    say(READING, before + done, total)


def _plots(
    log: TaskLog, family: FamilyReport, runs: Sequence[Summary], compared: Compared
) -> Plots:
    plots: dict[str, Callable[[], Plot | None]] = {}
    if compared.comparison is not None:
        found = differences_of(compared.comparison)
        plots["differences"] = lambda: Plot(
            differences.drawn(differences.shown(found), compared.metric),
            differences.data(found),
            differences.caption(found, f"{runs[0].work} and failures"),
        )
    if compared.metric is not family.standard:
        plots["metric"] = lambda: Plot(
            figures.by_metric(runs, compared.measured),
            by_episode(runs, compared.measured),
            f"{headline(compared.metric)}: mean over episodes with its 95 % interval; faint dots "
            "are episodes.",
        )
    return {**plots, **family.plots(log, runs)}


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; a report is a folder")
    if any(out.iterdir()) and not (out / MARKER).exists():
        raise UsageError(
            f"{out} holds files that are not of a report; choose an empty or new folder"
        )


def _tables(
    family: FamilyReport, runs: Sequence[Summary], compared: Compared
) -> dict[str, pd.DataFrame]:
    tables = family.tables(runs)
    faults = [
        {
            "run": run.run.id,
            **{key: fault.get(key) for key in ("episode", "id", "kind", "what", "begin", "end")},
            "took": fault.get("took"),
        }
        for run in runs
        for fault in run.run.faults
    ]
    if faults:
        tables["faults"] = pd.DataFrame(faults)
    if compared.metric is not family.standard:
        measured = zip(names_of(runs), compared.measured, strict=True)
        values = pd.DataFrame({name: found.by_episode for name, found in measured})
        values.index.name = "episode"
        tables["metric"] = values.sort_index().reset_index()
    if (comparison := compared.comparison) is not None:
        tables["comparison"] = pd.DataFrame(
            [
                {key: value for key, value in pair.document.items() if key != "episodes"}
                for pair in comparison.pairs
            ]
        )
    return tables


def _write(
    out: Path,
    drawn: Drawn,
    tables: Mapping[str, pd.DataFrame],
    document: Mapping[str, Any],
    page: str,
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        building.chmod(0o755)
        (building / "figures").mkdir()
        (building / "tables").mkdir()
        for name, files in drawn.items():
            for suffix, data in files.formats._asdict().items():
                (building / "figures" / f"{name}.{suffix}").write_bytes(data)
            (building / "figures" / f"{name}.csv").write_text(files.csv, encoding="utf-8")
        for name, table in tables.items():
            table.to_csv(building / "tables" / f"{name}.csv", index=False)
        (building / MARKER).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (building / "index.html").write_text(page, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        building.rename(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
