"""Writes a reproduction into a folder: per figure picture, tables and findings, and one page.

``index.html`` and ``report.md`` say the same and cover every figure that the folder holds, also
those of earlier calls. Everything is made anew from stored points; nothing here computes.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from testbed.errors import PermanentError, UsageError
from testbed.experiment import page as pages
from testbed.experiment.page import ABSENT, Section
from testbed.experiment.reproduce.claims import judge
from testbed.experiment.reproduce.definitions import FIGURES, Figure
from testbed.experiment.reproduce.drawing import draw
from testbed.experiment.reproduce.methods import METHODS, O2O, ONLINE_ONLY, label
from testbed.experiment.reproduce.points import PointStore, none_or, write_text
from testbed.experiment.reproduce.results import Results
from testbed.experiment.reproduce.study import Study
from testbed.experiment.statistics import with_spread
from testbed.version import __version__

MARKER: Final = "reproduce.json"
"""A folder that holds this file is of a reproduction."""
RESULT: Final = "result.json"

_Cell: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder of a reproduction, or of something else that is computed from points.

    ``marker`` is the file in it that says so, ``what`` its name for people.
    """

    out: Path
    marker: str = MARKER
    what: str = "reproduction"

    @property
    def store(self) -> PointStore:
        """Return the folder of its points."""
        return PointStore(self.out / "points")

    def claim(self) -> None:
        """Make the folder, or take up an earlier reproduction in it.

        Raises: UsageError: it holds something else. PermanentError: it cannot be written.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file; a {self.what} is a folder")
        marker = self.out / self.marker
        if marker.exists():
            return
        if self.out.exists() and any(self.out.iterdir()):
            raise UsageError(
                f"{self.out} holds files that are not of a {self.what}; choose an empty or new "
                "folder"
            )
        write_text(marker, json.dumps({self.what: 1}) + "\n")


def write_figure(study: Study, figure: Figure, place: Workplace) -> dict[str, Any]:
    """Write everything about one figure from stored points; returns its document.

    A figure without any point yet writes nothing.

    Raises: PermanentError: the folder cannot be written.
    """
    results = study.results(figure, place.store)
    document = document_of(study, results)
    if not results.measured:
        return document
    folder = place.out / figure.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        canvas = draw(results)
        canvas.savefig(folder / "figure.png")
        canvas.savefig(folder / "figure.svg")
        tables = {"table": results.table(), "episodes": results.episodes()}
        curves = results.curves()
        if len(curves):
            tables["curves"] = curves
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PermanentError(f"{folder} cannot be written: {reason}") from error
    write_text(folder / RESULT, json.dumps(document, indent=1) + "\n")
    return document


def document_of(study: Study, results: Results) -> dict[str, Any]:
    """Everything found about a figure as plain values for JSON."""
    figure = results.figure
    shortened = study.shortened(figure)
    points = list(study.points(figure))
    rows = results.table().to_dict("records")
    notes = {note for each in results.measured.values() for m in each.values() for note in m.notes}
    return {
        "figure": figure.name,
        "title": figure.title,
        "section": figure.section,
        "remark": figure.remark,
        "x_label": figure.x_label,
        "x": list(results.xs),
        "settings": study.document(figure),
        "interval_over": results.unit,
        "points": {"stored": sum(map(len, results.measured.values())), "wanted": len(points)},
        "rates": [{str(key): _plain(value) for key, value in row.items()} for row in rows],
        "counts": not shortened,
        "shortened": shortened,
        "leads": list(_leads(results)),
        "findings": [each.document for each in judge(figure.claims, results)],
        "notes": [*sorted(notes), *_left_out(results)],
    }


def _leads(results: Results) -> Iterator[dict[str, Any]]:
    """Return how far O2O-DRL is above Online only at each setting, at some moments of the curves.

    The moments double, from the first evaluation after an update on, and the last one is there.
    An evaluation is one number, so there is an interval over networks only.
    """
    spread = results.unit == "networks"
    for x in results.xs:
        by_episodes = results.lead(x, O2O, ONLINE_ONLY)
        later = [episodes for episodes in by_episodes if episodes > 0]
        wanted = {0, *later[-1:]}
        following = later[0] if later else 0
        for episodes in later:
            if episodes >= following:
                wanted.add(episodes)
                following = 2 * episodes
        for episodes, value in by_episodes.items():
            if episodes in wanted:
                yield {
                    "x": x,
                    "online_episodes": episodes,
                    "difference": value.mean,
                    "low": _plain(value.low) if spread else None,
                    "high": _plain(value.high) if spread else None,
                }


def _left_out(results: Results) -> Iterator[str]:
    if left := results.incomplete:
        yield (
            f"Not on all networks yet, and so not drawn: {', '.join(left)}. The same command goes "
            "on."
        )


def write_page(place: Workplace, command: str = "testbed reproduce") -> Path:
    """Write ``report.md`` and ``index.html`` about every figure in the folder; returns the latter.

    ``command`` is what wrote it.

    Raises: PermanentError: the folder cannot be written.
    """
    documents = [found for name in FIGURES if (found := _stored(place.out / name)) is not None]
    write_text(place.out / "report.md", "\n".join(_markdown(documents)) + "\n")
    page = place.out / "index.html"
    write_text(page, _html(documents, place.out, command))
    return page


def _stored(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


# --- what both pages say -------------------------------------------------------------------------


def settings_line(document: Mapping[str, Any]) -> str:
    """Return how the figures were computed, in one or two sentences."""
    settings = document["settings"]
    where = "simulated"
    if settings["driver"] != "simulator":
        where = f"run on the real network at time scale {settings['time_scale']:g}"
    over = (
        f"Intervals are 95 % (Student's t) over the {settings['networks']} networks."
        if document["interval_over"] == "networks"
        else "Intervals are 95 % over the episodes of these networks: too few networks to say "
        "anything of others."
    )
    missing = document["points"]["wanted"] - document["points"]["stored"]
    networks = f"{settings['networks']} network{'s' * (settings['networks'] > 1)}"
    return (
        f"Scenario {settings['scenario']}, {where}; {networks} (seeds from "
        f"{settings['first_seed']}), {settings['episodes']} paired episodes each; recipe "
        f"'{settings['recipe']}': {settings['log_episodes']} episodes of logs, "
        f"{settings['offline_steps']} offline steps, {settings['online_episodes']} online "
        f"episodes. {over}" + (f" {missing} points are missing." if missing else "")
    )


def warning(document: Mapping[str, Any]) -> str:
    """Return why the verdicts on a figure do not count; empty if they do."""
    if document.get("counts", True):
        return ""
    return f"These verdicts do not count, because this run is a short one: {document['shortened']}."


def verdict(document: Mapping[str, Any], finding: Mapping[str, Any]) -> str:
    """Return a verdict for a table; in brackets where it does not count."""
    found: str = finding["verdict"]
    return found if document.get("counts", True) else f"({found})"


def rate_rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Return the table of success rates: a row per method, a column per setting, in per cent."""
    xs = document["x"]
    cells = {(row["x"], row["method"]): row for row in document["rates"]}
    for method in METHODS:
        if not any((x, method) in cells for x in xs):
            continue
        yield [label(method), *_written([cells.get((x, method)) for x in xs], _rate)]


def _written(cells: Iterable[_Cell | None], write: Callable[[_Cell], str]) -> list[str]:
    return [ABSENT if cell is None else write(cell) for cell in cells]


def _rate(cell: Mapping[str, Any]) -> str:
    low, high = (math.nan if cell[end] is None else cell[end] for end in ("low", "high"))
    text = with_spread(cell["success_rate"], low, high)
    if cell["above_ratc"] is not None and cell["method"] not in {"ratc", "bound"}:
        text += f" ({100 * cell['above_ratc']:+.1f})"
    return text


_RATES: Final = (
    "Success rate in %, with the half width of its interval, or from where to where it reaches if "
    "it ends at 100 %; in brackets with a sign the points above RATC, paired. 'Masked' baselines, "
    "'Untrained' and 'Local or reliable' know the same overload bits as the learned policies; "
    "Oracle knows every task's fate."
)


def lead_rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Return the table of ``leads``: a row per number of online episodes, in points."""
    xs = document["x"]
    cells = {(cell["x"], cell["online_episodes"]): cell for cell in document.get("leads", ())}
    for episodes in sorted({episodes for _, episodes in cells}):
        yield [str(episodes), *_written([cells.get((x, episodes)) for x in xs], _points)]


def _points(cell: Mapping[str, Any]) -> str:
    text = f"{100 * cell['difference']:+.1f}"
    if cell["low"] is None:
        return text
    return f"{text} ± {50 * (cell['high'] - cell['low']):.1f}"


_LEADS: Final = (
    "Points by which O2O-DRL is above Online only after so many online episodes, in the episodes "
    "by which policies are kept; at 0 they are the offline policy and one that has learned nothing."
)


_SUMMARY: Final = ["figure", "agrees", "agrees so far", "undecided", "differs", "what differs"]


def _summary(documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for document in documents:
        if not document.get("counts", True):
            yield document["figure"], *[ABSENT] * 4, "does not count: a short run"
            continue
        verdicts = [f["verdict"] for f in document["findings"] if f["source"] == "paper"]
        differing = [
            f["claim"]
            for f in document["findings"]
            if f["source"] == "paper" and f["verdict"] == "differs"
        ]
        yield (
            document["figure"],
            str(verdicts.count("agrees")),
            str(verdicts.count("agrees so far")),
            str(verdicts.count("undecided")),
            str(verdicts.count("differs")),
            " ".join(differing),
        )


_INTRODUCTION: Final = (
    "What the paper says about each of its experiments, what comes out here, and whether the two "
    "agree. A statement 'agrees' if every comparison of it is significantly as claimed, 'differs' "
    "if one is significantly the other way, and is 'undecided' otherwise; it 'agrees so far' where "
    "some comparisons have not been computed. Significance (95 %) is corrected for the number of "
    "comparisons and of statements on a figure; intervals are those of single comparisons. "
    "Verdicts in brackets do not count."
)


def _markdown(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("# The paper's experiments, reproduced", "", _INTRODUCTION, "")
    yield from (_row(_SUMMARY), _row(["---"] * len(_SUMMARY)))
    for name, *counts, which in _summary(documents):
        yield _row([f"[{name}](#{name})", *counts, which or ABSENT])
    for document in documents:
        name = document["figure"]
        yield from ("", f"## {name}", "", f"{document['title']} (section {document['section']}).")
        yield from ("", settings_line(document))
        for note in (document["remark"], *document["notes"]):
            if note:
                yield from ("", note)
        if told := warning(document):
            yield from ("", f"**{told}**")
        yield from ("", f"![{document['title']}]({name}/figure.png)", "")
        yield from findings_lines(document)
        head = [document["x_label"], *document["x"]]
        yield from ("", _RATES, "", _row(head), _row(["---"] * len(head)))
        for row in rate_rows(document):
            yield _row(row)
        if leads := list(lead_rows(document)):
            head = ["online episodes", *document["x"]]
            yield from ("", _LEADS, "", _row(head), _row(["---"] * len(head)))
            yield from map(_row, leads)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _html(documents: Sequence[Mapping[str, Any]], out: Path, command: str) -> str:
    overview = pages.table(
        _SUMMARY,
        [
            [f'<a href="#{name}">{name}</a>', *map(str, counts), html.escape(which)]
            for name, *counts, which in _summary(documents)
        ],
    )
    sections = [Section("Overview", [overview]), *(_section(each, out) for each in documents)]
    made = [pages.command_line(command), pages.note(f"Written by edge-testbed {__version__}.")]
    return pages.framed(
        "The paper's experiments, reproduced",
        [pages.paragraph(_INTRODUCTION)],
        [*sections, Section("How it was made", made)],
    )


def _section(document: Mapping[str, Any], out: Path) -> Section:
    name = document["figure"]
    title = f"{document['title']} (section {document['section']})"
    notes = [settings_line(document), document["remark"], *document["notes"]]
    rows = [[html.escape(cell) for cell in row] for row in rate_rows(document)]
    leads = [[html.escape(cell) for cell in row] for row in lead_rows(document)]
    head = [html.escape(x) for x in document["x"]]
    return Section(
        f"{name}: {title}",
        [
            *(pages.note(note) for note in notes if note),
            *([pages.paragraph(told)] if (told := warning(document)) else []),
            *stored_figure(out, name, document["title"]),
            findings_table(document),
            pages.note(_RATES),
            pages.table([html.escape(document["x_label"]), *head], rows),
            *(
                (pages.note(_LEADS), pages.table(["online episodes", *head], leads))
                if leads
                else ()
            ),
        ],
        name,
    )


def stored_figure(out: Path, folder: str, title: str) -> list[str]:
    """Return the figure that is stored in a folder of ``out`` for a page; nothing without one."""
    place = out / folder
    if not (place / "figure.svg").exists():
        return []
    names = ("figure.svg", "figure.png", "table.csv", "episodes.csv", "curves.csv")
    before = f"{folder}/" if folder else ""
    files = [f"{before}{name}" for name in names if (place / name).exists()]
    return [pages.figure((place / "figure.svg").read_bytes(), folder or "figure", title, files)]


def findings_table(document: Mapping[str, Any]) -> str:
    """Return an HTML table of the statements on a figure with their verdicts."""
    return pages.table(
        ["says", "statement", "here", "comparisons"],
        [
            [
                html.escape(f["source"]),
                html.escape(f["claim"]),
                f'<span class="{verdict(document, f).split()[0]}">{verdict(document, f)}</span>',
                html.escape(f["found"]),
            ]
            for f in document["findings"]
        ],
    )


def findings_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Return the same in Markdown."""
    yield from ("| says | statement | here | comparisons |", "|---|---|---|---|")
    for finding in document["findings"]:
        yield (
            f"| {finding['source']} | {finding['claim']} | **{verdict(document, finding)}** "
            f"| {finding['found']} |"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return none_or(value) if math.isfinite(value) else None
    return value
