"""``reproduce``: the paper's experiments, computed where not stored yet, drawn and judged."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from testbed.cli import console
from testbed.cli.o2o import check_learning_is_possible
from testbed.cli.options import Json, typed
from testbed.cli.progress import clock
from testbed.errors import Problem, UsageError
from testbed.files import working_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress, TaskID

    from testbed.experiment.reproduce.page import Workplace
    from testbed.experiment.reproduce.runner import ComputationStatus

DFAAS = "dfaas"
_QUICK_NETWORKS = 2
_QUICK_EPISODES = 10
_NETWORKS = 5
_EPISODES = 40


def reproduce(
    figures: Annotated[
        list[str],
        typer.Argument(
            metavar="FIGURE...",
            help="fig3, fig4, fig5a, fig5b, fig5c, fig6, fig8, or all of these; or dfaas.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for points, tables, figures and the page. A later call with the same "
            "folder continues.",
        ),
    ] = Path("reproduction"),
    topologies: Annotated[
        int | None,
        typer.Option(
            "--topologies",
            metavar="N",
            help=f"Number of networks to draw. Default: {_NETWORKS}, {_QUICK_NETWORKS} with "
            "--quick.",
        ),
    ] = None,
    first_topology: Annotated[
        int | None,
        typer.Option(
            "--first-topology", metavar="SEED", help="Seed of the first network. Default: 500."
        ),
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            "-e",
            metavar="N",
            help=f"Evaluation episodes per network. Default: {_EPISODES}, {_QUICK_EPISODES} with "
            "--quick.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes. Default: one per CPU."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Quick version, in minutes instead of hours: fewer networks, settings and "
            "episodes, and a tenth of the training. Its verdicts do not count.",
        ),
    ] = False,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="Training recipe: paper (the paper's losses and settings), default (that of "
            "`testbed o2o`), or released (paper, with the defects of the authors' released code).",
        ),
    ] = "paper",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            metavar="NAME",
            help="Only this method, by its name in table.csv. Repeatable. Default: all.",
        ),
    ] = None,
    log_episodes: Annotated[
        int | None,
        typer.Option("--log-episodes", metavar="N", help="Logs per network. Default: the paper's."),
    ] = None,
    offline_steps: Annotated[
        int | None,
        typer.Option("--offline-steps", metavar="N", help="Gradient steps of the offline phase."),
    ] = None,
    online_episodes: Annotated[
        int | None,
        typer.Option("--online-episodes", metavar="N", help="Episodes of the online phase."),
    ] = None,
    network: Annotated[
        bool,
        typer.Option(
            "--network",
            help="Run on the real network on this machine instead of simulating: fig8 in hours, "
            "one network at a time; dfaas in three minutes.",
        ),
    ] = False,
    time_scale: Annotated[
        float,
        typer.Option(
            "--time-scale",
            metavar="X",
            help="With --network: real seconds per emulated second; above 1 on a slow machine.",
        ),
    ] = 1.0,
    include_invalid: Annotated[
        bool,
        typer.Option(
            "--include-invalid",
            help="With --network: also use runs outside their limits of fidelity.",
        ),
    ] = False,
    draw: Annotated[
        bool,
        typer.Option("--draw", help="Compute nothing; draw what is stored, complete or not."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Reproduce figures of papers, and report where the results agree with them.

    The figures of O2O-DRL by number, or dfaas for those of DFaaS.

    Every finished point is stored; after Ctrl-C the same command continues where it stopped.
    """
    from testbed.experiment.reproduce.definitions import ON_NETWORK
    from testbed.experiment.reproduce.definitions import figures as named
    from testbed.experiment.reproduce.page import warning, write_figure, write_page
    from testbed.experiment.reproduce.points import NETWORK, SIMULATOR
    from testbed.experiment.reproduce.runner import complete
    from testbed.experiment.reproduce.study import FIRST_SEED, Study, all_points, default_jobs

    if DFAAS in figures:
        others = {
            "FIGURE": len(figures) > 1,
            "--topologies": topologies is not None,
            "--first-topology": first_topology is not None,
            "--episodes": episodes is not None,
            "--jobs": jobs is not None,
            "--recipe": recipe != "paper",
            "--method": bool(methods),
            "--log-episodes": log_episodes is not None,
            "--offline-steps": offline_steps is not None,
            "--online-episodes": online_episodes is not None,
            "--time-scale": time_scale != 1.0,
            "--include-invalid": include_invalid,
        }
        if used := [name for name, given in others.items() if given]:
            raise UsageError(
                f"{DFAAS} is reproduced by itself, and without these options",
                [Problem(name, "given", "leave it out") for name in used],
            )
        _dfaas(out, network=network, quick=quick, draw=draw, as_json=as_json)
        return
    check_learning_is_possible()
    from trainer.o2o.recipe import recipe as check_recipe

    chosen = named(tuple(figures))
    check_recipe(recipe)
    if network and any(each.name != ON_NETWORK for each in chosen):
        raise UsageError(
            f"--network works only with {ON_NETWORK}",
            [Problem("--network", ", ".join(figures), f"{ON_NETWORK} alone")],
        )
    study = Study(
        networks=_or(topologies, _QUICK_NETWORKS if quick else _NETWORKS),
        episodes=_or(episodes, _QUICK_EPISODES if quick else _EPISODES),
        first_seed=_or(first_topology, FIRST_SEED),
        recipe=recipe,
        quick=quick,
        log_episodes=log_episodes,
        offline_steps=offline_steps,
        online_episodes=online_episodes,
        driver=NETWORK if network else SIMULATOR,
        methods=tuple(dict.fromkeys(methods or ())),
        time_scale=time_scale,
        include_invalid=include_invalid,
    )
    processes = 1 if network else default_jobs() if jobs is None else jobs
    place = _place(out, draw=draw)
    if not draw:
        try:
            with working_in(place.out, place.what), ComputationDisplay() as display:
                complete(all_points(study, chosen), place.store, processes, display)
        except KeyboardInterrupt:
            console.note("finished points are stored; the same command continues")
            raise
    documents = [write_figure(study, each, place) for each in chosen]
    page = write_page(place, typed())
    if as_json:
        console.emit({"out": str(out), "page": str(page), "figures": documents})
    else:
        for document in documents:
            _tell(document)
    console.note(f"{page} has figures, tables and all comparisons")
    for document in documents:
        if told := warning(document):
            console.warn(f"{document['figure']}: {told}")
    if quick:
        console.next_command(f"testbed reproduce {' '.join(figures)}")


def _place(out: Path, *, draw: bool) -> Workplace:
    """Return the folder of the reproduction; with ``draw`` it has to hold one."""
    from testbed.experiment.reproduce.page import MARKER, Workplace

    if draw and not (out / MARKER).exists():
        raise UsageError(
            f"{out} holds no results of `testbed reproduce`",
            [Problem("--out", str(out), "the folder of an earlier call, or leave --draw out")],
        )
    place = Workplace(out)
    place.claim()
    return place


def _dfaas(out: Path, *, network: bool, quick: bool, draw: bool, as_json: bool) -> None:
    """Reproduce the experiment of the DFaaS paper."""
    from testbed.experiment.reproduce.papers import dfaas
    from testbed.experiment.reproduce.requests import CaseStore, play_all
    from testbed.experiment.reproduce.requests_page import latency_lines, write

    chosen = dfaas.chosen(network=network, quick=quick)
    place = _place(out, draw=draw)
    store = CaseStore(place.out / "points")
    if not draw:
        try:
            with working_in(place.out, place.what), ComputationDisplay() as display:
                play_all(chosen.cases, store, display)
        except KeyboardInterrupt:
            console.note("finished cases are stored; the same command continues")
            raise
    results = {case.name: found for case in chosen.cases if (found := store.get(case)) is not None}
    folder = place.out / chosen.name
    document = write(
        *(folder, chosen.title, chosen.remark, chosen.cases, results, chosen.statements),
        chosen.cases[0].name,
        typed(),
    )
    page = folder / "index.html"
    if as_json:
        console.emit({"out": str(out), "page": str(page), **document})
    else:
        console.show(console.mark(chosen.title, "bold cyan"))
        for line in latency_lines(document):
            console.show(console.plain(line))
        _tell_findings(document)
    console.note(f"{page} has the figure, tables and all comparisons")
    if quick:
        console.next_command(f"testbed reproduce {DFAAS}{' --network' * network}")
    elif not network:
        console.next_command(f"testbed reproduce {DFAAS} --network")


def _or(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given


def _tell(document: Mapping[str, Any]) -> None:
    from testbed.experiment.reproduce.page import rate_rows, settings_line

    console.show(console.mark(f"{document['figure']}: {document['title']}", "bold cyan"))
    console.show(console.plain(settings_line(document)))
    table = console.Rows([document["x_label"], *(f">{x}" for x in document["x"])])
    for row in rate_rows(document):
        table.add(*map(console.plain, row))
    console.show(table)
    _tell_findings(document)


def _tell_findings(document: Mapping[str, Any]) -> None:
    from testbed.experiment.reproduce.page import verdict

    findings = console.Rows(["SAYS", "HERE", "~STATEMENT", "~COMPARISONS"])
    for each in document["findings"]:
        shown = verdict(document, each)
        findings.add(
            each["source"],
            console.mark(shown, _STYLES.get(shown, "dim")),
            console.plain(each["claim"]),
            console.plain(each["found"]),
        )
    console.show(findings)
    console.out("")


_STYLES = {
    "agrees": "green",
    "agrees so far": "green",
    "differs": "bold red",
    "undecided": "yellow",
    "not run": "dim",
}


class ComputationDisplay:
    """Shows how far the computation is: bars on a terminal, a line per finished part elsewhere."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._whole: TaskID | None = None
        self._parts: dict[str, TaskID] = {}
        self._begun = False
        self._began = time.monotonic()
        self._first = (self._began, 0.0)
        self._ends = self._began

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not console.voice.quiet:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
            from rich.progress import TimeElapsedColumn as Elapsed

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                Elapsed(),
                console=console.terminal(sys.stderr),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, status: ComputationStatus) -> None:
        """Show ``status``."""
        if not self._begun:
            self._begun = True
            if status.stored:
                console.note(f"{status.stored} points are stored already")
            if status.total:
                console.note(f"{status.total} points to compute")
        if status.finished is not None or status.failed is not None:
            self._estimate(status)
        if status.failed is not None:
            console.warn(status.failed)
        if self._bars is not None:
            self._draw(status, self._bars)
        elif status.finished is not None:
            console.note(f"{status.done}/{status.total} {status.finished}{self._left()}")

    def _estimate(self, status: ComputationStatus) -> None:
        """Take note of when all is likely to be done; call whenever a part is finished."""
        now = time.monotonic()
        began, before = self._first
        if status.share > before > 0.0:
            # Starting processes and compiling takes time that tells nothing: once there is more
            # than the first finished part, count from there.
            done, passed = status.share - before, now - began
        else:
            done, passed = status.share, now - self._began
            self._first = now, status.share
        if done > 0.0:
            self._ends = now + passed / done * (1.0 - status.share)

    def _left(self) -> str:
        left = self._ends - time.monotonic()
        return f"; {clock(left)} left" if left >= 1.0 else ""

    def _draw(self, status: ComputationStatus, bars: Progress) -> None:
        if self._whole is None:
            self._whole = bars.add_task("", total=100)
        text = f"{status.done}/{status.total} points{self._left()}"
        bars.update(self._whole, description=text, completed=100 * status.share)
        for title in [title for title in self._parts if title not in status.running]:
            bars.remove_task(self._parts.pop(title))
        for title, (stage, share) in status.running.items():
            if title not in self._parts:
                self._parts[title] = bars.add_task(title, total=100)
            text = f"[dim]{console.plain(title)}[/] {console.plain(stage)}"
            bars.update(self._parts[title], description=text, completed=round(100 * share))
