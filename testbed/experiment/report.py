"""The report of one or more runs: a page to look at, figures, and tables to work on.

``write_report`` leaves in its folder: ``index.html`` (one file with the figures inside),
``figures/*.png`` and ``*.svg``, ``tables/*.csv`` and ``report.json`` with everything in it.
"""

from __future__ import annotations

import html
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from testbed.errors import PermanentError, UsageError
from testbed.experiment import figures
from testbed.experiment.comparison import RunComparison, compare_summaries, metric_of
from testbed.experiment.figures import Formats, as_files
from testbed.experiment.measured import Measured, Summary
from testbed.experiment.metrics import Metric
from testbed.experiment.reporting import Drawn, FamilyReport, Tables, html_table, image
from testbed.experiment.serving.report import REPORT as SERVING_REPORT
from testbed.experiment.summary import summary_of
from testbed.experiment.task_report import REPORT as TASK_REPORT
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS
from testbed.storage.tasklog import TaskLog

MARKER: Final = "report.json"
"""A folder that holds this file was written by ``write_report`` and may be replaced by it."""

MOST_FAULTS: Final = 40
"""Rows of faults on the page."""

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.8rem 0; }
th, td { padding: 0.3rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
th { background: #f5f5f5; } img { max-width: 100%; } .note { color: #666; font-size: 0.9rem; }
.bad { color: #b00; } .wide { overflow-x: auto; }
th, .wide td:first-child { white-space: nowrap; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .6rem; } table { font-size: 0.8rem; }
  th, td { padding: 0.25rem 0.45rem; }
}
"""

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
    progress: Callable[[str], None] | None = None,
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
    say = progress or (lambda _: None)
    _check_replaceable(out)
    runs = []
    for run_id in dict.fromkeys(run_ids):
        say(f"reading run {run_id}")
        runs.append(summary_of(log, run_id))
    metric = metric_of(runs, metric)
    compared = _Compared(metric, [run.measured(metric) for run in runs], _comparison(runs, metric))
    comparison = compared.comparison
    say("drawing")
    family = REPORTS.of(runs[0].run)
    drawings = family.draw(log, runs)
    if metric is not family.standard:
        drawings = {"metric": figures.by_metric(runs, compared.measured), **drawings}
    drawn = {name: as_files(each) for name, each in drawings.items()}
    tables = _tables(family, runs, compared)
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
    page = _page(log, family, runs, compared, drawn, tables)
    say(f"writing {out}")
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


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; a report is a folder")
    if any(out.iterdir()) and not (out / MARKER).exists():
        raise UsageError(
            f"{out} holds files that are not of a report; choose an empty or new folder"
        )


@dataclass(frozen=True)
class _Compared:
    """The metric that the report compares its runs by, with the values of each in order."""

    metric: Metric
    measured: Sequence[Measured]
    comparison: RunComparison | None


def _comparison(runs: Sequence[Summary], metric: Metric) -> RunComparison | None:
    """None for a single run, and for runs that met different tasks or share no value."""
    if len(runs) < 2:
        return None
    try:
        return compare_summaries(runs, metric)
    except UsageError:
        return None


def _tables(
    family: FamilyReport, runs: Sequence[Summary], compared: _Compared
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
        measured = zip(runs, compared.measured, strict=True)
        values = pd.DataFrame({run.run.id: found.by_episode for run, found in measured})
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
    drawn: Mapping[str, Formats],
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
            for suffix, data in files._asdict().items():
                (building / "figures" / f"{name}.{suffix}").write_bytes(data)
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


def _page(
    log: TaskLog,
    family: FamilyReport,
    runs: Sequence[Summary],
    compared: _Compared,
    drawn: Drawn,
    tables: Tables,
) -> str:
    info = runs[0].run.info
    comparison = compared.comparison
    names = sorted({run.run.info.name for run in runs})
    seeds = ", ".join(f"{purpose} {seed}" for purpose, seed in info.seeds.items())
    parts = [
        f"<h1>Report: {html.escape(', '.join(names))}</h1>",
        f'<p class="note">{len(runs)} run{"s" * (len(runs) > 1)}, '
        f"{sum(run.count for run in runs)} {runs[0].work}. Intervals are 95 % (Student's t over "
        f"episodes). Seeds of the first run: {html.escape(seeds)}.</p>",
    ]
    standard = [
        f"<h2>{html.escape(family.heading)}</h2>",
        image(drawn[family.standard.name], family.standard.title),
        html_table(pd.DataFrame([family.row(run) for run in runs])),
    ]
    if compared.metric is family.standard:
        parts += [*standard, *_verdicts(runs, comparison)]
    else:
        by_standard = _comparison(runs, family.standard)
        parts += [
            f"<h2>{html.escape(_headline(compared.metric))}</h2>",
            image(drawn["metric"], compared.metric.title),
            _metric_table(runs, compared),
            *(_verdicts(runs, comparison) if comparison or not by_standard else [_NO_VALUE]),
            *standard,
            *_verdicts(runs, by_standard),
        ]
    parts += family.sections(log, runs, drawn, tables)
    if "faults" in tables:
        parts += ["<h2>Faults</h2>", *_faults(tables["faults"], comparison)]
    parts += family.network(runs, drawn)
    parts += ["<h2>Fidelity</h2>", *(_fidelity(run, family) for run in runs)]
    title = html.escape(", ".join(names))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


_NO_VALUE: Final = (
    '<p class="note">No two of these runs have a value in the same episode, so they are not '
    "compared by it.</p>"
)


def _headline(metric: Metric) -> str:
    return metric.title[:1].upper() + metric.title[1:]


def _metric_table(runs: Sequence[Summary], compared: _Compared) -> str:
    metric = compared.metric
    rows = [
        {
            "run": run.run.id,
            "scheduler": run.title,
            "episodes with a value": found.interval.count,
            f"{metric.name}, {metric.unit}".rstrip(", "): (
                metric.mean(found.interval) if found.interval.count else ""
            ),
            "95 % interval": metric.ends(found.interval, " to "),
        }
        for run, found in zip(runs, compared.measured, strict=True)
    ]
    return html_table(pd.DataFrame(rows))


def _verdicts(runs: Sequence[Summary], comparison: RunComparison | None) -> list[str]:
    """Return a sentence for each pair of runs, or why there is none."""
    if comparison is not None:
        return [
            "<ul>",
            *(f"<li>{html.escape(pair.verdict)}</li>" for pair in comparison.pairs),
            "</ul>",
            *(f'<p class="note">{html.escape(line)}</p>' for line in comparison.left_out),
        ]
    if len(runs) < 2:
        return []
    return [
        f'<p class="note">These runs met different {runs[0].work} (other scenario, seeds or '
        "episodes), so they are shown side by side and not compared.</p>"
    ]


def _faults(table: pd.DataFrame, comparison: RunComparison | None) -> list[str]:
    """Return how often each fault came in each run; the table's file lists each one."""
    found = table.assign(
        took=table["took"].map(lambda took: took is True),
        failed=table["took"].map(lambda took: took is False),
    )
    counted = found.groupby(["run", "what"], sort=False, as_index=False).agg(
        times=("id", "size"),
        episodes=("episode", "nunique"),
        measured=("took", "sum"),
        did_not_take=("failed", "sum"),
    )
    shown = counted.head(MOST_FAULTS)
    parts = [html_table(shown)]
    if len(shown) < len(counted):
        parts.append(f'<p class="note">The first {MOST_FAULTS} of {len(counted)}.</p>')
    if comparison is not None:
        parts += [f"<p>{html.escape(warning)}</p>" for warning in comparison.warnings]
    return parts


def _fidelity(run: Summary, family: FamilyReport) -> str:
    certificate = run.run.certificate
    name = html.escape(f"{run.title} [{run.run.id}]")
    failures = "".join(
        f'<p>{name}: <span class="bad">{html.escape(each)}</span></p>'
        for each in run.run.code_failures
    )
    if certificate is None or "valid" not in certificate:
        told = f'<p>{name}: <span class="note">simulated, nothing to certify</span></p>'
        if run.run.info.driver == "network":
            why = html.escape(str((certificate or {}).get("failure", "the run has not ended")))
            told = f'<p>{name}: <span class="bad">not certified: {why}</span></p>'
        return told + failures
    if certificate.get("valid"):
        verdict = "within its limits"
    else:
        reasons = html.escape("; ".join(certificate.get("reasons", ())))
        verdict = f'<span class="bad">outside its limits: {reasons}</span>'
    timings = family.timings(certificate)
    return f"<p>{name}: {verdict}</p>{failures}{html_table(timings)}"
