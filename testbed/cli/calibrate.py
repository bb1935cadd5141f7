"""``calibrate``: finds what this machine carries in real time, for warnings before later runs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from testbed.api import home
from testbed.cli import console
from testbed.cli.options import Json
from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    from testbed.cli.progress import ProgressDisplay
    from testbed.experiment.calibration.questions import Question
    from testbed.experiment.calibration.search import Told
    from testbed.experiment.calibration.values import Calibration, Knee
    from testbed.rpc.operator import Progress

_BUSY = 0.25
"""Share of the machine that other programs may keep busy before the result is doubted."""


def calibrate(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="QUESTION",
            help="Ask only this: nodes-metadata, nodes-metadata-shared, nodes-bytes, "
            "nodes-bytes-shared, tasks, link or time-scale. Repeatable; other answers are kept.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="One run of one episode per size, and no search between doublings."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the figure. Default: the home."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the largest networks that this machine emulates faithfully, and store the result.

    `up` and `run` warn before a network that is larger. Let nothing else run meanwhile. Ctrl-C
    leaves nothing behind; the earlier result then stays.
    """
    from testbed.api.calibrating import calibrated
    from testbed.cli.files import cannot_write
    from testbed.experiment.calibration.drawing import draw
    from testbed.experiment.calibration.values import FILE

    questions = _chosen(only or [])
    folder = home.home() if out is None else out.expanduser()
    if out is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
    if home.controller():
        raise UsageError(
            "this machine is calibrated with testbeds of its own",
            [Problem("--controller", "is given", "leave it out")],
        )
    _warn_if_others_run()
    with CalibrationDisplay() as display:
        found = calibrated(questions, quick=quick, tell=display.tell, watch=display.watch)
    pictures = []
    if any(name.startswith("nodes-") for name in found.knees):
        figure = draw(found)
        for kind in ("png", "svg"):
            picture = folder / f"calibration.{kind}"
            try:
                figure.savefig(picture)
            except OSError as error:
                raise cannot_write(picture, error) from error
            pictures.append(picture)
    stored = home.home() / FILE
    if as_json:
        console.emit({"file": str(stored), "figures": pictures, **found.to_document()})
        return
    _print(found)
    console.note(f"stored in {stored}" + (f", drawn in {pictures[0]}" if pictures else ""))
    console.next_command("testbed up paper-testbed --time-scale auto")


def _chosen(only: list[str]) -> list[Question]:
    """Return the questions to ask. Raises: UsageError: one is not known."""
    from testbed.experiment.calibration.questions import QUESTIONS, chosen

    unknown = [name for name in only if name not in QUESTIONS]
    if unknown:
        allowed = ", ".join(QUESTIONS)
        problems = [Problem("--only", repr(name), allowed) for name in unknown]
        raise UsageError("unknown question of a calibration", problems)
    return chosen(only)


def _warn_if_others_run() -> None:
    import psutil

    busy = psutil.cpu_percent(interval=0.5) / 100
    if busy > _BUSY:
        console.warn(
            f"other programs keep {100 * busy:.0f} % of this machine busy; what is measured now "
            "holds only while they do"
        )


class CalibrationDisplay:
    """Shows each trial of a calibration, and its episodes while they go on.

    Use it as a context manager around the calibration.
    """

    def __init__(self) -> None:
        self._lead = ""
        self._trial = ExitStack()
        self._display: ProgressDisplay | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def tell(self, told: Told) -> None:
        """Report that a trial begins, or how it ended."""
        from testbed.cli.progress import clock

        self._end()
        self._lead = (
            f"[{told.number}/{told.of}] {told.question.title}: {told.question.at(told.level)}"
        )
        trial = told.trial
        if trial is None:
            console.note(f"{self._lead} ..., about {clock(told.left)} left")
        elif trial.valid:
            console.note(
                f"{self._lead}: valid, {_term(trial.worst_term)} at {trial.worst:.2f} of the "
                f"limit, {trial.tasks_per_s:.0f} tasks/s, cores busy {100 * trial.busy:.0f} %"
            )
        else:
            console.note(f"{self._lead}: not faithful: {'; '.join(trial.reasons)}")

    def watch(self, progress: Progress) -> None:
        """Show how far the run of the trial is."""
        from testbed.cli.progress import ProgressDisplay, snapshot_of

        if self._display is None:
            # Now and not when the trial began, as the time left is worked out from the speed.
            self._display = self._trial.enter_context(ProgressDisplay())
        # Networks may be large, and queues are nothing that is measured here.
        self._display.show(snapshot_of(progress, self._lead, queues=False))

    def _end(self) -> None:
        self._trial.close()
        self._display = None


def _term(name: str) -> str:
    from testbed.experiment.calibration.values import TERMS

    return TERMS.get(name, name)


def _print(found: Calibration) -> None:
    from testbed.experiment.calibration.questions import QUESTIONS

    machine = found.machine
    console.out(
        f"{machine.host}: {machine.cores} cores, {machine.memory / 1e9:.0f} GB of memory, "
        f"Python {machine.python}, version {machine.version}"
    )
    table = console.Rows(["CARRIES", ">UP TO", ">TASKS/S", ">MB/S", "~LIMITED BY"])
    for name, question in QUESTIONS.items():
        if knee := found.knees.get(name):
            table.add(*_row(question, knee))
    console.show(table)


def _row(question: Question, knee: Knee) -> tuple[object, ...]:
    best = knee.best
    if knee.level is None or best is None:
        return question.title, "none", None, None, console.plain(knee.limit)
    moved = f"{best.mb_per_s:,.0f}" if best.mb_per_s else None
    return (
        question.title,
        question.at(knee.level),
        f"{best.tasks_per_s:,.0f}",
        moved,
        console.plain(knee.limit),
    )
