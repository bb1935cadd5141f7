"""Progress of a run: a small live display on a terminal, a line per episode elsewhere.

It goes to stderr, so that what a command prints can be piped while one watches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from testbed.cli import console
from testbed.scenario.plan import REFUSED_RATE, SUCCESS_RATE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    from testbed.rpc.operator import Progress

BARS: Final = "▁▂▃▄▅▆▇█"
FEWEST: Final = 3
"""Episodes for an interval that says anything while one watches."""
_OTHERS: Final[Mapping[str, tuple[str, str]]] = {
    "tasks": ("rda", "ratc"),
    "requests": ("all-local", "slack"),
}
"""Two schedulers to try, by what a run counts (``Progress.work``)."""
TOLD_EVERY_S: Final = 30.0
"""Seconds between two lines about an episode of requests where there is no terminal."""
LEFT_AFTER_S: Final = 2.0
"""Seconds after which the time that is left is shown: earlier it is a guess, and of no use."""
SUCCEEDED: Final = "succeeded"

_GOOD: Final[Mapping[str, bool]] = {
    SUCCESS_RATE: True,
    "served-rate": True,
    REFUSED_RATE: False,
}
"""Objectives that outcomes tell: whether it is the share of what went well, or of the rest."""

STYLES: Final = {
    SUCCEEDED: "green",
    "dropped": "yellow",
    "refused": "cyan",
    "transmission_failed": "magenta",
    "execution_failed": "red",
    "served": "green",
    "no_peer": "yellow",
    "over_limit": "magenta",
    "forbidden": "red",
    "unreachable": "red",
    "overload": "red",
    "lost": "bold red",
}
"""Style of each outcome, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a run.

    ``completed`` of ``episodes`` are over, ``fraction`` of the current one has passed. ``outcomes``
    counts the tasks that have ended so far, ``over`` those of the episodes that are over.
    ``queues`` has a length per node, None if unknown. ``work`` names what is counted, ``success``
    the outcome of what went well, ``objective`` the metric that the run is scored by.
    ``latencies`` are the median and the 99th percentile of the times until requests were answered,
    in microseconds, ``seconds_left`` how long more will be sent; None where that is not known.
    """

    title: str
    episodes: int
    completed: int
    outcomes: Mapping[str, int]
    over: Mapping[str, int]
    fraction: float = 0.0
    queues: Sequence[int | None] = ()
    dead: Sequence[int] = ()
    work: str = "tasks"
    success: str = SUCCEEDED
    objective: str = SUCCESS_RATE
    latencies: tuple[int, int] | None = None
    seconds_left: float | None = None

    @property
    def ended(self) -> int:
        """How much work has ended."""
        return sum(self.outcomes.values())

    def told(self, share: str, ended: int) -> str:
        """Return a share of work that has ended in words, with the name of the objective."""
        if title_of(self.objective) == self.objective:
            return f"{self.objective} {share} of {ended} {self.work}"
        known = self.objective in _GOOD
        later = "" if known else f" ({self.objective} follows at the end)"
        return f"{share} of {ended} {self.work} {self.success}{later}"


@dataclass(slots=True)
class ProgressDisplay:
    """Shows snapshots as they come; use it as a context manager around the run.

    ``now`` gives seconds of a clock that only goes forward.
    """

    now: Callable[[], float] = time.monotonic
    _live: Live | None = None
    _completed: int = 0
    _before: Mapping[str, int] = field(default_factory=dict)
    _rates: list[float] = field(default_factory=list)
    _began: float = 0.0
    _told: float = 0.0

    def __enter__(self) -> Self:
        self._began = self._told = self.now()
        if sys.stderr.isatty() and not console.voice.quiet:
            from rich.live import Live

            self._live = Live(
                console=console.terminal(sys.stderr), auto_refresh=False, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show how far the run is now."""
        if snapshot.completed > self._completed:
            self._note_episode(snapshot)
        if self._live is not None:
            self._live.update(self._panel(snapshot), refresh=True)
        elif snapshot.seconds_left and self.now() - self._told >= TOLD_EVERY_S:
            self._told = self.now()
            console.note(
                f"{snapshot.title}: {answered(snapshot)}{self._left(snapshot, ', {} left')}"
            )

    def _note_episode(self, snapshot: Snapshot) -> None:
        ended = sum(snapshot.over.values()) - sum(self._before.values())
        success = snapshot.success
        succeeded = snapshot.over.get(success, 0) - self._before.get(success, 0)
        if ended > 0:
            self._rates.append(share_of(snapshot.objective, succeeded, ended))
        self._completed = snapshot.completed
        self._before = dict(snapshot.over)
        if self._live is None and ended > 0:
            console.note(
                f"{snapshot.title}: episode {snapshot.completed}/{snapshot.episodes}: "
                f"{snapshot.told(percent(self._rates[-1]), ended)}, "
                f"so far {self._over_episodes()}{self._left(snapshot, ', {} left')}"
            )

    def _left(self, snapshot: Snapshot, form: str) -> str:
        """Return the time left, in ``form``; empty at beginning and end.

        If the run does not say it, it is worked out from the speed so far.
        """
        if snapshot.seconds_left is not None:
            return form.format(clock(snapshot.seconds_left)) if snapshot.seconds_left else ""
        done = min(snapshot.completed + snapshot.fraction, snapshot.episodes)
        told = time_left(self.now() - self._began, done, snapshot.episodes - done)
        return form.format(told) if told else ""

    def _over_episodes(self) -> str:
        """Return the mean of the finished episodes, as in the table of the run."""
        from testbed.experiment.statistics import rate_interval

        interval = rate_interval(self._rates)
        rate = percent(interval.mean)
        if len(self._rates) < FEWEST:
            return rate
        return f"{rate} ± {50 * (interval.high - interval.low):.1f}"

    def _so_far(self, snapshot: Snapshot) -> str:
        """Return the share of all that has ended, with an interval if episodes suffice."""
        from testbed.experiment.statistics import rate_interval

        if not snapshot.ended:
            return "-"
        good = snapshot.outcomes.get(snapshot.success, 0)
        rate = percent(share_of(snapshot.objective, good, snapshot.ended))
        if len(self._rates) < FEWEST:
            return rate
        interval = rate_interval(self._rates)
        return f"{rate} ± {50 * (interval.high - interval.low):.1f}"

    def _panel(self, snapshot: Snapshot) -> RenderableType:
        from rich.columns import Columns
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = min(snapshot.completed + snapshot.fraction, snapshot.episodes)
        number = min(snapshot.completed + 1, snapshot.episodes)
        facts = Table.grid(padding=(0, 2, 0, 0))
        facts.add_column(style="dim")
        facts.add_column()
        bar = Table.grid(padding=(0, 1, 0, 0))
        bar.add_row(
            f"{number} of {snapshot.episodes}",
            ProgressBar(total=snapshot.episodes, completed=done, width=32),
            Text(self._left(snapshot, "{} left"), style="dim"),
        )
        facts.add_row("episode", bar)
        facts.add_row(
            title_of(snapshot.objective),
            Text(f"{self._so_far(snapshot)}  of {snapshot.ended} {snapshot.work}", style="bold"),
        )
        facts.add_row("outcomes", outcome_line(snapshot.outcomes))
        if snapshot.latencies is not None:
            facts.add_row("latency", latency_line(snapshot.latencies))
        if snapshot.queues:
            cells = [
                _queue(node, length, node in snapshot.dead)
                for node, length in enumerate(snapshot.queues)
            ]
            facts.add_row("queues", Columns(cells, padding=(0, 2)))
        return Group(Text(snapshot.title, style="bold cyan"), facts)


class Pace:
    """Prints from time to time how far a command has come that shows no other progress.

    ``what`` names what is counted, as in "episodes checked"; there are ``total`` of them. ``now``
    gives seconds of a clock that only goes forward.
    """

    def __init__(self, what: str, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._now = now
        self._began = self._told = now()

    def tell(self, done: int) -> None:
        """Report that ``done`` are done, if the last report was a while ago."""
        now = self._now()
        if now - self._told < LEFT_AFTER_S or not 0 < done < self._total:
            return
        self._told = now
        left = clock((now - self._began) / done * (self._total - done))
        console.note(f"{done} of {self._total} {self._what}, {left} left")


def paces(form: str, now: Callable[[], float] = time.monotonic) -> Callable[[str, int, int], None]:
    """Return a callback for work of several parts, each of which gets a ``Pace``.

    It takes the name of the part, how much of it is done, and how much there is. ``form`` says
    what is counted, with ``{}`` for the part.
    """
    found: dict[str, Pace] = {}

    def tell(part: str, done: int, total: int) -> None:
        pace = found.get(part)
        if pace is None:
            pace = found[part] = Pace(form.format(part), total, now)
        pace.tell(done)

    return tell


def snapshot_of(progress: Progress, title: str, *, queues: bool = True) -> Snapshot:
    """Return the progress of a run on a testbed, under a title, with ``queues`` or without."""
    return Snapshot(
        title=title,
        episodes=progress.episodes,
        completed=progress.completed,
        outcomes=progress.outcomes,
        over=progress.completed_outcomes,
        fraction=progress.slot / progress.slots if progress.slots else 0.0,
        queues=progress.queue_lengths if queues else (),
        dead=progress.dead_nodes,
        work=progress.work,
        success=progress.success,
        objective=progress.objective,
        latencies=latencies_of(progress),
        seconds_left=progress.seconds_left,
    )


def answered(snapshot: Snapshot) -> str:
    """Return ``1200 requests, 17.0 % refused, p50 6.1 ms, p99 9.5 ms``."""
    good = snapshot.outcomes.get(snapshot.success, 0)
    refused = 1 - good / snapshot.ended if snapshot.ended else 0.0
    latency = "" if snapshot.latencies is None else f", {latency_line(snapshot.latencies)}"
    return f"{snapshot.ended} {snapshot.work}, {percent(refused)} refused{latency}"


def latency_line(latencies: tuple[int, int]) -> str:
    """Return ``p50 6.1 ms, p99 9.5 ms``."""
    return ", ".join(
        f"{name} {time / 1000:.1f} ms" for name, time in zip(("p50", "p99"), latencies, strict=True)
    )


def other_scheduler(progress: Progress) -> str:
    """Return a scheduler to try beside that of a run, of those that everybody has."""
    first, second = _OTHERS[progress.work]
    return first if progress.scheduler != first else second


def latencies_of(progress: Progress) -> tuple[int, int] | None:
    """Return median and 99th percentile of a run's latencies; None if it has none."""
    p50, p99 = progress.latency_p50, progress.latency_p99
    return None if p50 is None or p99 is None else (p50, p99)


def outcome_line(outcomes: Mapping[str, int]) -> Text:
    """Return ``succeeded 104  dropped 3``, each in its colour, without outcomes that are 0."""
    from rich.text import Text

    line = Text()
    for outcome, style in STYLES.items():
        if count := outcomes.get(outcome, 0):
            line.append(f"{outcome.replace('_', ' ')} ", style="dim")
            line.append(f"{count}   ", style=style)
    return line


def _queue(node: int, length: int | None, dead: bool) -> RenderableType:
    from rich.text import Text

    cell = Text(f"{node} ", style="dim")
    if dead:
        return cell.append("out", style="bold red")
    if length is None:
        return cell.append("?", style="dim")
    style = "green" if length <= 1 else "yellow" if length <= 4 else "red"
    cell.append(BARS[min(length, len(BARS) - 1)], style=style)
    return cell.append(f" {length}")


def title_of(objective: str) -> str:
    """Return what a share of outcomes is called: the objective of the run, or else ``success``.

    An objective that outcomes do not tell, such as a latency, is known when the run is over.
    """
    return objective if objective != SUCCESS_RATE and objective in _GOOD else "success"


def share_of(objective: str, good: int, ended: int) -> float:
    """Return the share that ``title_of`` names, of work that has ended, ``good`` of it well."""
    return good / ended if _GOOD.get(objective, True) else 1 - good / ended


def percent(share: float) -> str:
    """Return a share as ``81.2 %``."""
    return f"{100 * share:.1f} %"


def time_left(passed: float, done: float, left: float) -> str:
    """Return the time for what is ``left``, if ``done`` took ``passed`` seconds.

    Empty at the beginning, when nobody can know it, and at the end.
    """
    if passed < LEFT_AFTER_S or done <= 0 or left <= 0:
        return ""
    return clock(passed / done * left)


def clock(seconds: float) -> str:
    """Return a duration as ``8 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
