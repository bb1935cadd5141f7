"""``learn``: learning where it runs, from the logs of the network itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed import environment
from testbed.api.places import runtime
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import (
    MOST,
    Json,
    Name,
    Settings,
    Storage,
    TimeScale,
    quoted,
)
from testbed.cli.progress import time_left
from testbed.cli.run import scale_of
from testbed.cli.tuning import check_learning_is_possible
from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    from testbed.experiment.live.settings import LiveConfig
    from testbed.experiment.live.state import LiveState
    from testbed.experiment.live.venue import Step


def learn(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help="With --simulate: shipped scenario or scenario file. On a testbed it is that of "
            "the testbed.",
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="Try it out in the simulator instead of on a testbed: minutes."
        ),
    ] = False,
    start: Annotated[
        str,
        typer.Option(
            "--start",
            metavar="NAME",
            help="What decides first: ratc (a first policy is learned from its logs), shipped (the "
            "shipped policy) or random (random weights).",
        ),
    ] = "ratc",
    shipped: Annotated[
        str | None,
        typer.Option(
            "--shipped",
            metavar="NAME",
            help="With --start shipped, which: per-destination-v2 (asks for states, the default) "
            "or per-destination-v1 (asks for bits).",
        ),
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            metavar="N",
            min=1,
            max=MOST,
            help="Budget: all episodes that are run, those of the gates included. Default: 320. "
            "More of them continue what has ended.",
        ),
    ] = None,
    update: Annotated[
        int | None,
        typer.Option("--update", metavar="N", min=1, help="Episodes of an update. Default: 32."),
    ] = None,
    gate: Annotated[
        int | None,
        typer.Option(
            "--gate",
            metavar="N",
            min=1,
            help="Paired episodes by which a policy is accepted or rolled back. Default: 12.",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            min=0,
            help="End after so many updates in a row without a better policy; 0: never. "
            "Default: 6.",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", metavar="X", min=0.0, help="Step size. Default: 0.003."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, help="Random seed of the episodes and the learner."
        ),
    ] = 0,
    time_scale: TimeScale = None,
    include_invalid: Annotated[
        bool,
        typer.Option(
            "--include-invalid",
            help="Accept runs that are outside their limits of fidelity, and learn from them.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the state and the learning curve; learning in it goes on. Default: "
            "one of the home, by testbed.",
        ),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Start over, discarding the results in --out.")
    ] = False,
    settings: Settings = None,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Learn on a testbed that is up: run, learn from the log, deploy, test, keep or roll back.

    No policy goes on that is worse, beyond noise, than the one it replaced. Ctrl-C ends in order;
    the same command goes on from there.
    """
    check_learning_is_possible("learning")
    from testbed.experiment.live.settings import LiveConfig

    given: dict[str, Any] = {
        "start": start,
        "shipped": shipped,
        "episodes": episodes,
        "update": update,
        "gate": gate,
        "patience": patience,
        "learning_rate": learning_rate,
        "seed": seed,
        "include_invalid": include_invalid,
    }
    config = LiveConfig(**{key: each for key, each in given.items() if each is not None})
    _refuse_unused(simulate, scenario, settings, storage, time_scale)
    try:
        if simulate:
            state = _simulated(scenario, config, settings, storage, out, anew)
        else:
            state = _on_testbed(name, config, time_scale, out, anew)
    except KeyboardInterrupt:
        console.note("the policy that was accepted decides; the same command goes on from here")
        raise
    _tell(state, config, as_json, None if simulate else name)


def _simulated(
    scenario: str | None,
    config: LiveConfig,
    settings: list[str] | None,
    storage: str | None,
    out: Path | None,
    anew: bool,
) -> LiveState:
    from testbed.api.learning import learn_in_simulator
    from testbed.scenario.load import load

    return learn_in_simulator(
        load(scenario or "quickstart", settings or ()),
        config,
        storage=storage,
        out=out,
        say=_Teller(),
        resume=not anew,
    )


def _on_testbed(
    name: str, config: LiveConfig, time_scale: str | None, out: Path | None, anew: bool
) -> LiveState:
    from testbed.api.learning import learn as learn_on

    place = runtime(name)
    scale = scale_of(time_scale, place, place.find(name))
    return learn_on(name, config, out=out, time_scale=scale or 0.0, say=_Teller(), resume=not anew)


def _refuse_unused(
    simulate: bool,
    scenario: str | None,
    settings: list[str] | None,
    storage: str | None,
    time_scale: str | None,
) -> None:
    """Raise UsageError if an option is given that does nothing here."""
    if simulate:
        unused: dict[str, object] = {"--time-scale": time_scale}
        allowed = "without --simulate"
    else:
        # The variable is for testbeds that something else started.
        asked = None if storage == os.environ.get(environment.STORAGE) else storage
        unused = {"SCENARIO": scenario, "--set": settings, "--storage": asked}
        allowed = "with --simulate; a testbed that is up has its own"
    problems = [Problem(key, str(value), allowed) for key, value in unused.items() if value]
    if problems:
        raise UsageError("these are not used here", problems)


class _Teller:
    """Prints progress on stderr: results at once, the rest every few seconds.

    ``now`` gives seconds of a clock that only goes forward.
    """

    def __init__(self, every: float = 5.0, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._last = 0.0
        self._began: tuple[float, int] | None = None

    def __call__(self, step: Step) -> None:
        now = self._now()
        if self._began is None:
            self._began = (now, step.done)
        if not step.notable and now - self._last < self._every:
            return
        self._last = now
        console.note(f"{step.done} of {step.total} episodes: {step.message}{self._left(step, now)}")

    def _left(self, step: Step, now: float) -> str:
        """Return the time left at the speed so far; empty before that is known."""
        assert self._began is not None
        began, before = self._began
        told = time_left(now - began, step.done - before, step.total - step.done)
        return f"; {told} left" if told else ""


def _tell(state: LiveState, config: LiveConfig, as_json: bool, name: str | None) -> None:
    from testbed.experiment.live.curve import rows

    found = rows(state)
    if as_json:
        console.emit(
            {
                "ended": state.ended,
                "episodes": state.spent,
                "best": state.best.policy,
                "seconds": round(state.seconds, 1),
                "curve": [{key: each for key, each in row.items() if each != ""} for row in found],
                "runs": state.runs,
                "out": str(state.folder),
            }
        )
        return
    table = console.Rows(["UPDATE", ">EPISODES", "POLICY", ">SUCCESS", ">ABOVE START", "RESULT"])
    for row in found:
        best = ", best" if row["best"] else ""
        table.add(
            str(row["update"]),
            str(row["episodes"]),
            console.mark(row["policy"], "cyan"),
            f"{100 * row.get('success_rate', 0.0):.1f} %",
            _points(row.get("above_start", "")),
            row["verdict"] + best,
        )
    console.show(table)
    console.note(f"learning curve: {state.folder / 'curve.svg'}")
    if state.ended == "plateau":
        console.note(f"no better policy in {config.patience} updates, so learning ended")
    best_policy = state.best.policy
    if name is None or best_policy == "ratc":
        return
    label = quoted(f"learn {name}")
    console.next_command(
        with_name("testbed run --scheduler drl", name),
        f"testbed policy show {best_policy}",
        f"testbed runs list --label {label}",
    )


def _points(value: Any) -> str | None:
    return None if value == "" else f"{100 * value:+.1f}"
