"""The page of a report of runs: differences, results, faults, fidelity, and how it was made."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from testbed.errors import UsageError
from testbed.experiment import differences
from testbed.experiment.comparison import RunComparison, compare_summaries
from testbed.experiment.differences import Difference
from testbed.experiment.measured import Measured, Summary, names_of
from testbed.experiment.metrics import Metric
from testbed.experiment.page import (
    Section,
    command_line,
    folded,
    frame_table,
    framed,
    heading,
    listed,
    note,
    paragraph,
)
from testbed.experiment.reporting import Drawn, FamilyReport, Tables, image
from testbed.scenario.secrets import without_password
from testbed.storage.tasklog import TESTBED, TaskLog
from testbed.version import __version__

MOST_FAULTS: Final = 40
"""Rows of faults on the page."""


@dataclass(frozen=True)
class Compared:
    """The metric that the report compares its runs by, with the values of each in order."""

    metric: Metric
    measured: Sequence[Measured]
    comparison: RunComparison | None


def comparison_of(runs: Sequence[Summary], metric: Metric) -> RunComparison | None:
    """Compare runs; None for a single one, and where they met different tasks or share no value."""
    if len(runs) < 2:
        return None
    try:
        return compare_summaries(runs, metric)
    except UsageError:
        return None


def differences_of(comparison: RunComparison) -> list[Difference]:
    """Return the pairs of a comparison by the names of their runs."""
    names = {
        run.run.id: name
        for run, name in zip(comparison.runs, names_of(comparison.runs), strict=True)
    }
    return [
        Difference(names[pair.first.run.id], names[pair.second.run.id], pair.comparison)
        for pair in comparison.pairs
    ]


def page_of(
    log: TaskLog,
    family: FamilyReport,
    runs: Sequence[Summary],
    compared: Compared,
    drawn: Drawn,
    tables: Tables,
) -> str:
    """Return the page of a report, which has its figures in it."""
    comparison = compared.comparison
    scenarios = sorted({run.run.info.name for run in runs})
    rows = [
        {
            "scheduler": name,
            **family.row(run),
            "driver": run.run.info.driver,
            "state": run.run.state.value,
            "run": run.run.id,
        }
        for name, run in zip(names_of(runs), runs, strict=True)
    ]
    standard = [image(drawn, family.standard.name), frame_table(pd.DataFrame(rows))]
    sections: list[Section] = []
    if compared.metric is family.standard:
        sections += [
            Section("Differences", _differences(runs, compared, drawn)),
            Section(family.heading, standard),
        ]
    else:
        by_standard = comparison_of(runs, family.standard)
        verdicts = [] if by_standard is None else [pair.verdict for pair in by_standard.pairs]
        sections += [
            Section("Differences", _differences(runs, compared, drawn, by_standard)),
            Section(
                headline(compared.metric), [image(drawn, "metric"), _metric_table(runs, compared)]
            ),
            Section(family.heading, [*standard, listed(verdicts)]),
        ]
    sections += family.sections(log, runs, drawn, tables)
    if "faults" in tables:
        sections.append(Section("Faults", _faults(tables["faults"], runs, comparison)))
    sections += family.network(runs, drawn)
    fidelity = [part for run in runs for part in _fidelity(run, family)]
    sections += [Section("Fidelity", fidelity), Section("How it was made", _made(runs, compared))]
    count = sum(run.count for run in runs)
    lead = (
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {count} {runs[0].work}. Means are over episodes, "
        "intervals are 95 % (Student's t over episodes)."
    )
    return framed(f"Report: {', '.join(scenarios)}", [note(lead)], sections)


def _differences(
    runs: Sequence[Summary],
    compared: Compared,
    drawn: Drawn,
    other: RunComparison | None = None,
) -> list[str]:
    """Return figure, table and verdicts of the comparison, or why there is none.

    ``other`` is the comparison by the standard metric, where that is another one.
    """
    comparison = compared.comparison
    if comparison is None:
        if len(runs) < 2:
            return []
        if other is not None:
            return [_NO_VALUE]
        return [
            note(
                f"These runs met different {runs[0].work} (other scenario, seeds or episodes), so "
                "they are shown side by side and not compared."
            )
        ]
    found = differences_of(comparison)
    shown = differences.shown(found)
    left = len(found) - len(shown)
    verdicts = [
        pair.verdict for each, pair in zip(found, comparison.pairs, strict=True) if each in shown
    ]
    return [
        image(drawn, "differences"),
        frame_table(differences.table(shown, compared.metric)),
        *([note(f"{left} more pairs are in the CSV file.")] if left else []),
        listed(verdicts),
        note(differences.correction(found)),
        *map(note, comparison.left_out),
    ]


def _made(runs: Sequence[Summary], compared: Compared) -> list[str]:
    """Return the command, the scenario, the seeds and the versions, to repeat all of it."""
    own = {run.run.head.objective for run in runs} != {compared.metric.name}
    by = ["--by", compared.metric.name] if own else []
    command = shlex.join(["testbed", "report", *(run.run.id for run in runs), *by])
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        info = run.run.info
        versions = {key: value for key, value in info.versions.items() if key != TESTBED}
        last = info.first_episode + info.episodes - 1
        rows.append(
            {
                "scheduler": name,
                "run": info.id,
                "scenario": f"{info.name} [{info.scenario_hash[:12]}]",
                "episodes": f"{info.first_episode} to {last}",
                "seeds": _pairs(info.seeds),
                "started (UTC)": info.started,
                "versions": _pairs(versions),
                "label": info.label,
            }
        )
    if not any(row["label"] for row in rows):
        rows = [{key: each for key, each in row.items() if key != "label"} for row in rows]
    parts = [
        command_line(command),
        note(
            f"Written by edge-testbed {__version__}; the versions below are those that made the "
            "runs. All figures are in figures/ as SVG and PNG with their data as CSV, all tables "
            "in tables/, and everything in report.json."
        ),
        frame_table(pd.DataFrame(rows)),
    ]
    texts = dict.fromkeys(run.run.info.scenario for run in runs if run.run.info.scenario)
    return [*parts, *(folded("Scenario as it was written", _public(str(text))) for text in texts)]


def _public(text: str) -> str:
    """Return a scenario file without the passwords of its URLs."""
    return re.sub(r"[\w+.-]+://[^\s\"']+", lambda url: without_password(url[0]), text).rstrip()


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


_NO_VALUE: Final = note(
    "No two of these runs have a value in the same episode, so they are not compared by it."
)


def headline(metric: Metric) -> str:
    """Return the title of a metric as a heading."""
    return metric.title[:1].upper() + metric.title[1:]


def _metric_table(runs: Sequence[Summary], compared: Compared) -> str:
    metric = compared.metric
    rows = [
        {
            "scheduler": name,
            "episodes with a value": found.interval.count,
            f"{metric.name}, {metric.unit}".rstrip(", "): (
                metric.mean(found.interval) if found.interval.count else ""
            ),
            "95 % interval": metric.ends(found.interval, " to "),
        }
        for name, found in zip(names_of(runs), compared.measured, strict=True)
    ]
    return frame_table(pd.DataFrame(rows))


def _faults(
    table: pd.DataFrame, runs: Sequence[Summary], comparison: RunComparison | None
) -> list[str]:
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
    names = dict(zip((run.run.id for run in runs), names_of(runs), strict=True))
    counted["run"] = counted["run"].map(names)
    told = counted.rename(columns={"run": "scheduler", "did_not_take": "did not take"})
    shown = told.head(MOST_FAULTS)
    parts = [frame_table(shown)]
    if len(shown) < len(counted):
        parts.append(note(f"The first {MOST_FAULTS} of {len(counted)}."))
    if comparison is not None:
        parts += [paragraph(warning) for warning in comparison.warnings]
    return parts


def _fidelity(run: Summary, family: FamilyReport) -> list[str]:
    certificate = run.run.certificate
    failures = [f'<p class="bad">{html.escape(each)}</p>' for each in run.run.code_failures]
    name = heading(f"{run.title} [{run.run.id}]")
    if certificate is None or "valid" not in certificate:
        told = note("simulated, nothing to certify")
        if run.run.info.driver == "network":
            why = html.escape(str((certificate or {}).get("failure", "the run has not ended")))
            told = f'<p class="bad">not certified: {why}</p>'
        return [name, told, *failures]
    if certificate.get("valid"):
        verdict = '<p class="good">within its limits</p>'
    else:
        reasons = html.escape("; ".join(certificate.get("reasons", ())))
        verdict = f'<p class="bad">outside its limits: {reasons}</p>'
    return [name, verdict, *failures, frame_table(family.timings(certificate))]
