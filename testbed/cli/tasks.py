"""``tasks`` and ``task``: single tasks of a run, from the task log."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from testbed.cli import console
from testbed.cli.options import Json, Name, Storage, from_log
from testbed.errors import Problem, UsageError
from testbed.model.task import Outcome

if TYPE_CHECKING:
    from testbed.experiment.alternatives import Alternative
    from testbed.experiment.history import TaskHistory
    from testbed.model.history import TaskRow
    from testbed.storage.tasklog import TaskLog

LIMIT: Final = 20
"""Tasks that are listed unless more are asked for."""

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id, a unique prefix, or `latest`.")]


def tasks(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Run id, a unique prefix, or `latest`.")
    ] = "latest",
    outcomes: Annotated[
        list[Outcome] | None,
        typer.Option("--outcome", help="Only tasks with this outcome. Repeatable."),
    ] = None,
    node: Annotated[
        int | None,
        typer.Option(
            "--node", metavar="N", min=0, help="Only tasks that arrived here or were sent here."
        ),
    ] = None,
    episode: Annotated[
        int | None, typer.Option("--episode", metavar="N", min=0, help="Only this episode.")
    ] = None,
    slowest: Annotated[
        int | None,
        typer.Option(
            "--slowest",
            metavar="N",
            min=1,
            help="Only the N tasks with the longest time from arrival to end, the slowest first.",
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=0, help="Maximum number of tasks to show; 0 for all."
        ),
    ] = LIMIT,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List tasks of a run: destination, outcome and reason of each."""
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_run
    from testbed.experiment.history import failure_of, ms, plan_of, reason

    with open_log(storage, name) as log:
        found = find_run(log, run, name)
        plan = plan_of(found)
        if node is not None and node >= plan.topology.size:
            last = plan.topology.size - 1
            raise UsageError(
                f"run {found.id} has no node {node}",
                [Problem("--node", str(node), f"allowed: 0 to {last}")],
            )
        chosen = _chosen(log.tasks(found.id, episode=episode), outcomes, node)
        shown, count = _first(chosen, slowest, limit)
        why = {
            row.task_id: reason(
                row,
                plan.topology,
                failure_of(log.records(found.id, task_id=row.task_id))
                if row.outcome is Outcome.LOST
                else "",
            )
            for row in shown
        }
    if as_json:
        console.emit([_document(row, why[row.task_id]) for row in shown])
        return
    if not shown:
        console.note(f"run {found.id} has no such task")
        return
    table = console.Rows(
        [">TASK", ">EPISODE", ">SLOT", ">AT", ">SENT TO", "OUTCOME", ">AFTER", "~WHY"]
    )
    for row in shown:
        table.add(
            console.mark(row.task_id, "cyan"),
            row.episode,
            row.slot,
            row.source,
            row.destination,
            console.mark(row.outcome.value.replace("_", " "), _style(row.outcome)),
            None if row.elapsed is None else ms(row.elapsed),
            console.plain(why[row.task_id]),
        )
    console.show(table)
    if count > len(shown) and slowest is None:
        console.note(f"{count - len(shown)} more are not shown: --limit 0")
    console.next_command(from_log(f"testbed task {found.id} {shown[0].task_id}", storage, name))


def task(
    run: RunId,
    number: Annotated[int, typer.Argument(metavar="TASK", min=0, help="Id of the task.")],
    what_if: Annotated[
        bool,
        typer.Option(
            "--what-if",
            help="Simulate the outcome at each other destination, with all other tasks sent where "
            "they were.",
        ),
    ] = False,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show a task's history: its decisions with their inputs, times, outcome and reason."""
    from testbed.api.logs import open_log
    from testbed.cli.replay import print_histories
    from testbed.cli.selection import find_run
    from testbed.experiment.history import ms, task_history

    with open_log(storage, name) as log:
        history = task_history(log, find_run(log, run, name).id, number)
        others = list(_simulated(log, history)) if what_if else []
    if as_json:
        alternatives = {"alternatives": [each.document for each in others]} if what_if else {}
        console.emit({**history.document, **alternatives})
        return
    print_histories([history])
    console.out("")
    steps = console.Rows([">AT", ">NODE", "WHAT HAPPENED", "~"])
    for record in history.records:
        data = ", ".join(
            f"{key} {ms(value) if key in _DURATIONS and isinstance(value, int) else value}"
            for key, value in record.data.items()
        )
        steps.add(
            ms(record.at),
            record.node,
            record.kind.value.replace("_", " "),
            console.plain(data.replace("_", " ")),
        )
    console.show(steps)
    if others:
        console.out("")
        console.show(_table(others))
    more = [] if what_if else [f"testbed task {history.run.id} {number} --what-if"]
    console.next_command(
        *(
            from_log(each, storage, name)
            for each in (*more, f"testbed replay {history.run.id} -s rda --task {number}")
        )
    )


_DURATIONS: Final = frozenset({"nominal", "elapsed"})


def _chosen(
    rows: Iterable[TaskRow], outcomes: list[Outcome] | None, node: int | None
) -> Iterator[TaskRow]:
    return (
        row
        for row in rows
        if (not outcomes or row.outcome in outcomes)
        and (node is None or node in (row.source, row.destination))
    )


def _first(rows: Iterator[TaskRow], slowest: int | None, limit: int) -> tuple[list[TaskRow], int]:
    """Return the rows to show, and how many there are."""
    if slowest is not None:
        timed = (row for row in rows if row.elapsed is not None)
        found = heapq.nlargest(slowest, timed, key=lambda row: (row.elapsed or 0, -row.task_id))
        return found, len(found)
    shown = list(islice(rows, min(limit, sys.maxsize))) if limit else list(rows)
    return shown, len(shown) + sum(1 for _ in rows)


def _document(row: TaskRow, why: str) -> dict[str, Any]:
    return {**row._asdict(), "outcome": row.outcome.value, "why": why}


def _style(outcome: Outcome) -> str:
    from testbed.cli.progress import STYLES

    return STYLES.get(outcome.value, "default")


def _simulated(log: TaskLog, history: TaskHistory) -> Iterator[Alternative]:
    """Return the alternatives, and report progress where that takes long."""
    from testbed.cli.progress import Pace
    from testbed.experiment.alternatives import alternatives

    pace = Pace("destinations simulated", history.topology.size)
    for done, alternative in enumerate(alternatives(log, history), 1):
        yield alternative
        pace.tell(done)


def _table(others: list[Alternative]) -> console.Rows:
    from testbed.experiment.history import ms

    table = console.Rows(["SENT TO", "OUTCOME", ">AFTER", ">OTHERS", "~WHY (SIMULATED)"])
    for each in others:
        outcome = each.row.outcome
        table.add(
            console.mark(f"node {each.destination}", "bold" if each.taken else "default")
            + (" (chosen)" if each.taken else ""),
            console.mark(outcome.value.replace("_", " "), _style(outcome)),
            None if each.row.elapsed is None else ms(each.row.elapsed),
            f"{each.others:+d}" if each.others else "0",
            console.plain(each.why),
        )
    return table
