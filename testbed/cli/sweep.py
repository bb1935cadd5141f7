"""``sweep``: schedulers on a scenario whose values are varied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import console
from testbed.cli.options import Json, ScenarioName, Settings, parts, quoted, scheduler_of
from testbed.cli.reproduce import ComputationDisplay
from testbed.errors import Problem, UsageError
from testbed.files import working_in
from testbed.scenario.plan import SUCCESS_RATE

if TYPE_CHECKING:
    from testbed.experiment.metrics import Metric
    from testbed.experiment.sweep import Cell, Sweep


def sweep(
    scenario: ScenarioName,
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="KEY=VALUE,VALUE...",
            help="Values of the scenario to vary, as in --over nodes.arrivalProbability=0.6,0.8. "
            "Repeatable: then every combination.",
        ),
    ],
    schedulers: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            "-s",
            metavar="NAME[,KEY=VALUE]...",
            help="Scheduler, with options of its own; repeatable. Others are compared with the "
            "first. `drl` is the policy that ships. Default: ratc and drl; of a scenario of "
            "requests slack and all-local.",
        ),
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            "-e",
            metavar="N",
            min=1,
            help="Episodes of each. Default: 40; of a scenario of requests, the scenario's.",
        ),
    ] = None,
    settings: Settings = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", min=1, help="Processes. Default: one per processor."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for points, table and figure.")
    ] = Path("sweep"),
    as_json: Json = False,
) -> None:
    """Compare schedulers while values of the scenario are varied, in the simulator.

    What is computed is kept: the same command continues after an interruption, and one with more
    values or schedulers computes only those.
    """
    from testbed.experiment.reproduce.runner import complete
    from testbed.experiment.reproduce.study import default_jobs
    from testbed.experiment.sweep import Sweep, usual, workplace, write

    own, varied = tuple(settings or ()), _values(over)
    default = usual(scenario, [*own, *(f"{key}={values[0]}" for key, values in varied.items())])
    names = tuple(dict.fromkeys(schedulers or default.schedulers))
    specs = {name: scheduler_of(name)[0] for name in names}
    asked = Sweep(scenario, own, varied, names, episodes or default.episodes, specs)
    points = asked.points()
    place = workplace(out)
    place.claim()
    again = f"{out} keeps what is finished; the same command continues"
    with (
        working_in(out, place.what),
        console.if_interrupted(again),
        ComputationDisplay() as display,
    ):
        complete(points, place.store, default_jobs() if jobs is None else jobs, display)
    found, document = write(asked, place)
    if as_json:
        console.emit({**document, "out": str(out)})
        return
    _tell(asked, found)
    console.out(str(out / "sweep.png"))
    console.next_command(f"ls {quoted(out)}")


def _values(over: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of each key.

    Raises: UsageError: an option is not of the form, or names a key again.
    """
    found: dict[str, tuple[str, ...]] = {}
    problems = []
    for text in over:
        key, equals, values = text.partition("=")
        each = tuple(part.strip() for part in parts(values))
        if not (key and equals and all(each)) or key in found:
            problems.append(Problem("--over", repr(text), "KEY=VALUE,VALUE..., each key once"))
        found[key] = tuple(dict.fromkeys(each))
    if problems:
        raise UsageError("the values to vary cannot be read", problems)
    return found


def _tell(asked: Sweep, found: list[Cell]) -> None:
    from testbed.experiment.statistics import adjustment
    from testbed.experiment.sweep import gains

    by_place = {(cell.place, cell.scheduler): cell for cell in found}
    first, *others = asked.schedulers
    table = console.Rows(
        [
            *(console.plain(key) for key in asked.over),
            *(f">{console.plain(name)}" for name in asked.schedulers),
            *(f">{console.plain(name)} ABOVE {console.plain(first)}" for name in others),
        ]
    )
    for place in asked.places:
        cells = [by_place[place, name] for name in asked.schedulers]
        table.add(
            *map(console.plain, place),
            *(asked.objective.shown(cell.rate) for cell in cells),
            *(_gain(cell, asked.objective) for cell in cells[1:]),
        )
    console.show(table)
    tested = [each for each in gains(found) if each.real is not None]
    if tested:
        how = adjustment(tested)
        told = f"adjusted p below 5 %; {how}" if how else "p below 5 %"
        console.out(f"* significant: {told}")
    metric = asked.objective
    if metric.name != SUCCESS_RATE:
        direction = "" if metric.better is None else f"; {metric.better} is better"
        console.out(f"{metric.name}: {metric.title}{direction}")


def _gain(cell: Cell, metric: Metric) -> str | None:
    if cell.gain is None:
        return None
    digits = 1 if metric.is_share else metric.digits
    # The blank keeps numbers in line with those that have the mark.
    mark = "*" if cell.gain.real else " "
    text = f"{metric.scale * cell.gain.difference.mean:+.{digits}f}{mark}"
    if not cell.gain.real or metric.better is None:
        return console.mark(text, "dim")
    better = (cell.gain.difference.mean > 0) == (metric.better == "higher")
    return console.mark(text, "green" if better else "red")
