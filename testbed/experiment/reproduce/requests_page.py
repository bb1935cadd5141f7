"""Writes what came out of cases with requests: a figure, tables, statements, and a page."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from operator import add
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure as Canvas

from testbed.errors import PermanentError
from testbed.experiment import page as pages
from testbed.experiment.colours import PALETTE
from testbed.experiment.figures import plain
from testbed.experiment.page import Section
from testbed.experiment.reproduce.page import (
    RESULT,
    findings_lines,
    findings_table,
    stored_figure,
)
from testbed.experiment.reproduce.points import write_text
from testbed.experiment.reproduce.requests import By, Case, CaseResult, Statement
from testbed.version import __version__

_REFUSALS: Final[Mapping[By, tuple[str, str]]] = {
    "503": ("#D55E00", "503, no peer"),
    "502": ("#7F7F7F", "502, unreachable"),
    "429": ("#CC79A7", "429, over limit"),
    "403": ("#56B4E9", "403, forbidden"),
    "lost": ("#000000", "lost"),
}


def write(
    folder: Path,
    title: str,
    remark: str,
    cases: Sequence[Case],
    results: Mapping[str, CaseResult],
    statements: Sequence[Statement],
    drawn: str,
    command: str = "testbed reproduce dfaas",
) -> dict[str, Any]:
    """Write figure, table, statements and page into ``folder``; return them as plain values.

    ``drawn`` names the case that the figure shows. Cases without a result are left out.
    ``command`` is what wrote it.

    Raises: PermanentError: the folder cannot be written.
    """
    known = [case for case in cases if case.name in results]
    document = {
        "title": title,
        "remark": remark,
        "cases": [_case(case, results[case.name]) for case in known],
        "missing": [case.name for case in cases if case.name not in results],
        "findings": [each.judge(results) for each in statements],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if drawn in results:
            canvas = rates_over_time(results[drawn])
            canvas.savefig(folder / "figure.png", dpi=160)
            canvas.savefig(folder / "figure.svg")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PermanentError(f"{folder} cannot be written: {reason}") from error
    write_text(folder / "table.csv", _table(known, results))
    write_text(folder / RESULT, json.dumps(document, indent=1) + "\n")
    picture = "figure.png" if drawn in results else ""
    write_text(folder / "report.md", "\n".join(_markdown(document, picture)) + "\n")
    write_text(folder / "index.html", _html(document, folder, command))
    return document


def rates_over_time(result: CaseResult) -> Canvas:
    """Draw the requests per second of all users over time, by who answered them."""
    canvas = Canvas(figsize=(6.4, 3.8), layout="constrained")
    axes = canvas.subplots()
    found: dict[By, list[int]] = {}
    for each in result.answered.values():
        for by, series in each.items():
            before = found.get(by, [0] * len(series))
            found[by] = [*map(add, before, series)]
    order = [*sorted(by for by in found if by not in _REFUSALS), *_REFUSALS]
    for place, by in enumerate(by for by in order if by in found):
        colour, name = _REFUSALS.get(by, (PALETTE[place % 3], by))
        style = "--" if by in _REFUSALS else "-"
        axes.plot(range(len(found[by])), found[by], style, color=colour, linewidth=2, label=name)
    plain(axes)
    axes.set_xlim(0, max(1, result.seconds - 1))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time, s", fontsize=12)
    axes.set_ylabel("requests per second", fontsize=12)
    axes.tick_params(labelsize=11)
    canvas.legend(loc="outside upper center", ncols=4, fontsize=11, frameon=False)
    return canvas


def _case(case: Case, result: CaseResult) -> dict[str, Any]:
    totals = {
        f"node {source}": {by: sum(series) for by, series in each.items()}
        for source, each in result.answered.items()
    }
    return {
        "case": case.name,
        "scenario": case.scenario,
        "set": list(case.overrides),
        "driver": case.driver,
        "seconds": result.seconds,
        "requests": totals,
        "state": result.state,
        "reasons": list(result.reasons),
        "latency_p50_ms": result.latency_p50,
        "latency_p99_ms": result.latency_p99,
    }


def _table(cases: Sequence[Case], results: Mapping[str, CaseResult]) -> str:
    """Return a row per case, node, answer and second."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "source", "answered_by", "second", "requests"])
    for case in cases:
        for source, each in results[case.name].answered.items():
            for by, series in each.items():
                writer.writerows(
                    [case.name, source, by, second, count] for second, count in enumerate(series)
                )
    return text.getvalue()


def _rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Return a row per case and node: total requests by who answered."""
    for case in document["cases"]:
        for source, totals in case["requests"].items():
            answers = ", ".join(f"{by}: {count}" for by, count in totals.items())
            yield [case["case"], source, answers]


_COLUMNS: Final = ("case", "users at", "requests by who answered")


def latency_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Return what was measured of each case of the real network, a sentence each."""
    for case in document["cases"]:
        if case["state"] is not None:
            p50, p99 = case["latency_p50_ms"], case["latency_p99_ms"]
            latency = "" if p50 is None else f", latency p50 {p50:.2f} ms, p99 {p99:.2f} ms"
            why = f": {'; '.join(case['reasons'])}" if case["reasons"] else ""
            yield f"{case['case']}: the run is {case['state']}{latency}{why}."


def _markdown(document: Mapping[str, Any], picture: str) -> Iterator[str]:
    yield from (f"# {document['title']}", "", document["remark"], "")
    if picture:
        yield from (f"![{document['title']}]({picture})", "")
    for line in latency_lines(document):
        yield from (line, "")
    yield from findings_lines(document)
    yield from ("", f"| {' | '.join(_COLUMNS)} |", "|---|---|---|")
    for row in _rows(document):
        yield f"| {' | '.join(row)} |"


def _html(document: Mapping[str, Any], folder: Path, command: str) -> str:
    rows = [[*map(html.escape, row)] for row in _rows(document)]
    requests = [*map(pages.paragraph, latency_lines(document)), pages.table(_COLUMNS, rows)]
    return pages.framed(
        document["title"],
        [pages.paragraph(document["remark"])],
        [
            Section("Requests over time", stored_figure(folder, "", document["title"])),
            Section("Statements", [findings_table(document)]),
            Section("Requests by case", requests),
            Section(
                "How it was made",
                [
                    pages.command_line(command),
                    pages.note(f"Written by edge-testbed {__version__}."),
                ],
            ),
        ],
    )
