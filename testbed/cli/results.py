"""``runs``, ``report``, ``compare``, ``export``: what the task log says of past runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.api.filters import Filter
from testbed.cli import console, keeping
from testbed.cli.filters import (
    OfLabel,
    OfScenario,
    OfScheduler,
    OfState,
    OfTag,
    OfTestbed,
    Search,
    Since,
    Until,
)
from testbed.cli.options import By, Json, Name, RunIds, Storage, from_log, quoted
from testbed.cli.progress import FEWEST, paces
from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.experiment.comparison import RunComparison
    from testbed.experiment.measured import Column, Summary, Table
    from testbed.experiment.metrics import Metric
    from testbed.experiment.statistics import Interval
    from testbed.storage.tasklog import Run

group = typer.Typer(no_args_is_help=True, help="List and show past runs.")

STATE_STYLES = {
    "running": "cyan",
    "completed": "green",
    "degraded": "yellow",
    "invalid": "yellow",
    "stopped": "dim",
    "failed": "red",
    "interrupted": "red",
}
_TONES = {"good": "green", "warning": "yellow"}


@group.command("list")
def list_(
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=0, help="Number of runs to show, the latest; 0 for all."
        ),
    ] = 20,
    scheduler: OfScheduler = None,
    scenario: OfScenario = None,
    testbed: OfTestbed = None,
    state: OfState = None,
    label: OfLabel = None,
    tag: OfTag = None,
    since: Since = None,
    until: Until = None,
    search: Search = None,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List the runs in the task log, the latest last.

    Success is the share of all tasks that succeeded, or of all requests that were served.
    """
    from testbed.api.logs import open_log
    from testbed.experiment.summary import SUMMARIES, counted

    only = Filter(scheduler, scenario, testbed, state, label, tag, since, until, search)
    with open_log(storage, name) as log:
        runs = only.of_runs(log.runs())
        shown = runs[-limit:] if limit else runs
        outcomes = counted(log, shown)
        documents = [_in_list(run, outcomes[run.id]) for run in shown]
    if as_json:
        console.emit(documents)
        return
    if not documents and only:
        console.note(f"no run with {only}")
        return
    if not documents:
        console.note("no runs yet")
        console.next_command("testbed sim quickstart", "testbed up quickstart")
        return
    families = [SUMMARIES.of(run) for run in shown]
    work = list(dict.fromkeys(family.work for family in families))
    tagged = any(run.tags for run in shown)
    table = console.Rows(
        [
            *("RUN", "SCENARIO", "SCHEDULER", "DRIVER", "STATE", ">EPISODES"),
            *(">" + " OR ".join(work).upper(), ">SUCCESS", "~LABEL"),
            *(["~TAGS"] if tagged else []),
        ]
    )
    for document, family in zip(documents, families, strict=True):
        rate = document[family.share]
        count = document[family.work]
        state = document["state"]
        table.add(
            console.mark(document["run"], "cyan"),
            console.plain(document["scenario"]),
            console.plain(document["scheduler"]),
            document["driver"],
            console.mark(state, STATE_STYLES.get(state, "default")),
            document["episodes"],
            f"{count} {family.work}" if len(work) > 1 else count,
            None if rate is None else f"{100 * rate:.1f} %",
            console.plain(document["label"]),
            *([console.plain(", ".join(document["tags"]))] if tagged else []),
        )
    console.show(table)
    if len(shown) < len(runs):
        console.note(f"{len(runs) - len(shown)} earlier ones are not shown: --limit 0")
    console.next_command(
        from_log(f"testbed runs show {documents[-1]['run']}", storage, name),
        from_log("testbed compare", storage, name),
    )


def _in_list(run: Run, outcomes: Mapping[str, int]) -> dict[str, Any]:
    from testbed.experiment.summary import SUMMARIES

    family = SUMMARIES.of(run)
    count, share = family.rate(outcomes)
    info = run.info
    return {
        "run": info.id,
        "scenario": info.name,
        "scenario_hash": info.scenario_hash,
        "scheduler": info.scheduler,
        "driver": info.driver,
        "testbed": info.testbed,
        "model": info.model,
        "state": run.state.value,
        "first_episode": info.first_episode,
        "episodes": info.episodes,
        family.work: count,
        family.share: share,
        "started": info.started,
        "ended": run.ended,
        "label": info.label,
        "tags": list(run.tags),
        "note": run.note,
    }


@group.command("show")
def show(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Run id or a unique prefix.")
    ] = "latest",
    scenario: Annotated[
        bool, typer.Option("--scenario", help="Print the scenario as it was used, as YAML.")
    ] = False,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show one run: its settings, the outcomes of its tasks or requests, and its fidelity."""
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_run
    from testbed.experiment.measured import NothingToReport
    from testbed.experiment.summary import counted, summary_of

    summary: Summary | None = None
    with open_log(storage, name) as log:
        found = find_run(log, run, name)
        document = _in_list(found, counted(log, [found])[found.id])
        with suppress(NothingToReport):
            summary = summary_of(log, found.id)
    if scenario:
        if found.info.scenario is None:
            raise UsageError(f"run {found.id} was not made from a scenario file")
        console.out(found.info.scenario.rstrip())
        return
    if as_json:
        console.emit(
            {
                **document,
                **({} if summary is None else summary.document),
                **({} if summary is None else {"metrics": _metric_documents(summary)}),
                "seeds": found.info.seeds,
                "versions": found.info.versions,
                "certificate": found.certificate,
            }
        )
        return
    _print_run(found, summary)
    console.next_command(from_log(f"testbed report {found.id} --out report", storage, name))


group.command("tag")(keeping.tag)
group.command("note")(keeping.note)
group.command("delete")(keeping.delete)


def _print_run(run: Run, summary: Summary | None) -> None:
    from testbed.experiment.facts import facts_of
    from testbed.experiment.summary import every_metric

    facts = console.Rows(["RUN", "~" + console.mark(run.id, "cyan")])
    for name, text, tone in facts_of(run):
        style = STATE_STYLES.get(text, "default") if tone == "state" else _TONES.get(tone)
        for number, line in enumerate(text.splitlines()):
            told = console.plain(line) if style is None else console.mark(line, style)
            facts.add("" if number else name, told)
    if summary is not None:
        for name, value in summary.facts(_shown):
            facts.add(name, console.plain(value))
    console.show(facts)
    if summary is not None:
        print_tables(summary.tables())
        console.out("")
        metrics = console.Rows(["METRIC", ">MEAN OF EPISODES", ">EPISODES", "~WHAT"])
        for name, found in every_metric(summary):
            if isinstance(found, str):
                metrics.add(console.plain(name), None, None, console.plain(found))
            else:
                value = _shown(found.metric, found.interval)
                title = console.plain(found.metric.title)
                metrics.add(console.plain(name), value, found.interval.count, title)
        console.show(metrics)


def _metric_documents(summary: Summary) -> dict[str, Any]:
    from testbed.experiment.summary import every_metric

    return {
        name: {"problem": found}
        if isinstance(found, str)
        else {**found.metric.document, **found.document}
        for name, found in every_metric(summary)
    }


def compare(
    runs: RunIds = None,
    by: By = None,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Compare runs that share seeds, and report whether the differences are real.

    Without runs: of each scheduler the latest run on the scenario of the latest run; if that is a
    replay, the run it replays and its replays.
    """
    from testbed.api.logs import open_log
    from testbed.cli.selection import runs_to_look_at
    from testbed.experiment import metrics
    from testbed.experiment.comparison import compare_runs

    if by is not None:
        metrics.check(by)
    with open_log(storage, name) as log:
        ids = runs_to_look_at(log, runs, name, least=2)
        comparison = compare_runs(log, ids, by)
    if as_json:
        console.emit(comparison.document)
        return
    print_runs(comparison.runs, comparison)
    for warning in (*comparison.warnings, *comparison.left_out):
        console.warn(warning)
    for summary in comparison.runs:
        warn_if_doubtful(summary.run)
    chosen = [] if by is None else ["--by", by]
    named = " ".join(["testbed report", *(ids if runs else []), *chosen])
    console.next_command(from_log(f"{named} --out report", storage, name))


def report(
    runs: RunIds = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder to write; an earlier report there is replaced."
        ),
    ] = Path("report"),
    by: By = None,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write tables and figures of runs into a folder, with an HTML page.

    Without runs: of each scheduler the latest run on the scenario of the latest run.
    """
    from testbed.api.logs import open_log
    from testbed.cli.selection import runs_to_look_at
    from testbed.experiment import metrics
    from testbed.experiment.report import write_report

    if by is not None:
        metrics.check(by)
    with console.if_interrupted("nothing was written"), open_log(storage, name) as log:
        ids = runs_to_look_at(log, runs, name, least=1)
        written = write_report(log, ids, out, paces("{}"), by)
    if as_json:
        console.emit(written.document)
        return
    for run in written.document["runs"]:
        if run["state"] != "completed":
            console.warn(f"run {run['run']} ({run['scheduler']}) is {run['state']}")
    for kind, paths in (("tables", written.tables), ("figures", written.figures)):
        console.note(f"{kind}: {', '.join(path.name for path in paths.values())}")
    console.out(str(written.path))
    console.next_command(
        f"open {quoted(written.path)} in a browser",
        from_log(f"testbed export {ids[-1]}", storage, name),
    )


def warn_if_doubtful(run: Run) -> None:
    """Warn that the results of a run that was not completed in order are doubtful."""
    if run.trustworthy:
        return
    reasons = "; ".join((*run.code_failures, *(run.certificate or {}).get("reasons", ())))
    told = f"run {run.id} ({run.info.scheduler}) is {run.state.value}"
    console.warn(f"{told}: {reasons}" if reasons else told)


def export(
    runs: RunIds = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")] = Path(
        "export"
    ),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="csv|jsonl|parquet|trace",
            help="Repeatable; `trace` opens in Perfetto's viewer. Default: all but it.",
        ),
    ] = None,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            metavar="NAME",
            help="tasks, events, decisions or messages; of serving runs requests, windows or "
            "routings. Repeatable. Default: all that the runs have.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write the tables of runs (the latest, if none is named) as files.

    Tasks, events, decisions and messages; of serving runs requests, windows and routings.
    """
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_runs
    from testbed.experiment.derived import DERIVED
    from testbed.storage.export import FORMATS
    from testbed.storage.export import export as write

    with console.if_interrupted("nothing was written"), open_log(storage, name) as log:
        metadata = write(
            log,
            find_runs(log, runs, name),
            out,
            formats=formats or FORMATS,
            # What is not one of them is refused there, with all else that is wrong.
            tables=tables or (),
            derived=DERIVED,
            overwrite=force,
            progress=paces("rows of {} written"),
        )
    if as_json:
        console.emit(metadata)
        return
    for table, described in metadata["tables"].items():
        console.note(f"{table}: {described['rows']} rows")
    for run, trace in metadata["traces"].items():
        console.note(f"trace of {run}: {trace['events']} events, for https://ui.perfetto.dev")
    console.out(str(out))
    console.next_command(f"ls {quoted(out)}")


def print_tables(tables: Sequence[Table]) -> None:
    """Print small tables about one run, each after an empty line."""
    for heads, rows in tables:
        console.out("")
        table = console.Rows(list(heads))
        for row in rows:
            table.add(*map(console.plain, row))
        console.show(table)


def print_runs(runs: Sequence[Summary], comparison: RunComparison | None) -> None:
    """Print a table of runs, best first if they can be compared, and the verdicts."""
    if comparison is not None:
        runs = comparison.runs
    drivers = {run.run.info.driver for run in runs}
    work, *columns = runs[0].columns_of(runs, _shown)
    by = _column(comparison)
    if by is not None:
        columns = [by, *(each for each in columns if each.head != by.head)]
    table = console.Rows(
        [
            *("RUN", "SCHEDULER"),
            *(["DRIVER"] if len(drivers) > 1 else []),
            *(">EPISODES", f">{work.head}", *(f">{each.head}" for each in columns)),
        ]
    )
    for number, run in enumerate(runs):
        table.add(
            console.mark(run.run.id, "cyan"),
            console.plain(run.title),
            *([run.run.info.driver] if len(drivers) > 1 else []),
            len(run.episodes),
            work.cells[number],
            *(
                console.mark(each.cells[number], "bold") if each.bold else each.cells[number]
                for each in columns
            ),
        )
    console.show(table)
    if comparison is not None:
        console.out("")
        for pair in comparison.pairs:
            style = "green" if pair.comparison.real else "dim"
            console.show(console.mark(pair.verdict, style))


def _column(comparison: RunComparison | None) -> Column | None:
    """Return the column of the metric that runs are compared by, unless it is always there."""
    from testbed.experiment.measured import Column
    from testbed.experiment.metrics import SUCCESS_RATE

    if comparison is None or comparison.metric is SUCCESS_RATE:
        return None
    metric = comparison.metric
    found = [comparison.measured[run.run.id].interval for run in comparison.runs]
    return Column(metric.name.upper(), [_shown(metric, each) for each in found], bold=True)


def comparison_or_none(runs: Sequence[Summary]) -> RunComparison | None:
    """Return the comparison of ``runs``; None if there is only one."""
    from testbed.experiment.comparison import compare_summaries

    return compare_summaries(runs) if len(runs) > 1 else None


def _shown(metric: Metric, found: Interval) -> str:
    """Return a mean with its unit, and its interval over episodes if there are enough of them."""
    return metric.shown(found, spread=found.count >= FEWEST)
