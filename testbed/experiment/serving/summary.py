"""Summary of a serving run, from its log alone: outcomes, servers, rates, latency, messages."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from testbed.experiment.measured import (
    Column,
    Heard,
    NothingToReport,
    Shown,
    Summary,
    Table,
    none_if_nan,
)
from testbed.experiment.serving.metrics import REFUSED_RATE, REQUESTS, TRAFFIC, WINDOWS
from testbed.model.serving.network import ServingNetwork
from testbed.model.serving.record import RequestOutcome, WindowRecord
from testbed.model.serving.users import EXTERNAL
from testbed.model.units import SECOND, Micros
from testbed.scenario.plan import ServingPlan
from testbed.storage.tasklog import Run, TaskLog

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES: Final = (50, 95, 99)
_COLUMNS: Final = ("source", "function", "at", "outcome", "server", "elapsed", "answered")


class Traffic(NamedTuple):
    """A kind of request: of an episode, that came to ``node``, with its outcome and server."""

    episode: int
    node: int
    outcome: str
    server: int | None


class Latency(NamedTuple):
    """Times of served requests in milliseconds; NaN where there are none."""

    served: int
    mean: float
    p50: float
    p95: float
    p99: float

    @property
    def document(self) -> dict[str, float | int | None]:
        """The values as plain ones for JSON."""
        return {name: none_if_nan(value) for name, value in self._asdict().items()}


class Messages(NamedTuple):
    """Messages between nodes, one for each receiver, and their bytes."""

    said: int
    said_bytes: int
    heard: int
    heard_bytes: int


@dataclass(frozen=True)
class ServingSummary(Summary):
    """One run with its requests.

    ``columns`` has ``episode``, ``request``, ``source``, ``function``, ``at``, ``outcome``,
    ``server``, ``elapsed`` and ``answered`` of the requests of the scenario's users, as in the log;
    they are empty where only windows are logged. ``external`` is the number of requests of others;
    ``weighed`` the first instant of an episode at which a node weighed its neighbours, None if none
    did.
    """

    work: ClassVar[str] = "requests"
    frames: ClassVar[tuple[str, ...]] = (TRAFFIC, REQUESTS, WINDOWS)

    plan: ServingPlan
    columns: Mapping[str, Sequence[Any]]
    windows: tuple[WindowRecord, ...]
    external: int = 0
    weighed: Micros | None = None

    @cached_property
    def traffic(self) -> Counter[Traffic]:
        """Number of requests by episode, node, outcome and server."""
        columns = self.columns
        if not columns["request"]:
            return _of_windows(self.plan.network, self.windows)
        return Counter(
            map(
                Traffic,
                *(columns["episode"], columns["source"], columns["outcome"], columns["server"]),
            )
        )

    @cached_property
    def over_time(self) -> Counter[tuple[int, Traffic]]:
        """The same by the window in which a request came; the time of a window is its number."""
        found: Counter[tuple[int, Traffic]] = Counter()
        for (window, _, kind), number in self.by_function.items():
            found[window, kind] += number
        return found

    @cached_property
    def by_function(self) -> Counter[tuple[int, str, Traffic]]:
        """The same by window and name of the function."""
        columns, network = self.columns, self.plan.network
        if columns["request"]:
            came = (at // network.window for at in columns["at"])
            kinds = (columns["episode"], columns["source"], columns["outcome"], columns["server"])
            return Counter(zip(came, columns["function"], map(Traffic, *kinds), strict=True))
        found: Counter[tuple[int, str, Traffic]] = Counter()
        by_number: defaultdict[int, list[WindowRecord]] = defaultdict(list)
        for window in self.windows:
            by_number[window.window].append(window)
        for number, windows in by_number.items():
            for place, function in enumerate(network.functions):
                for kind, count in _of_windows(network, windows, place).items():
                    found[number, function.name, kind] = count
        return found

    @property
    def count(self) -> int:
        """See ``Summary``."""
        return self.traffic.total()

    @cached_property
    def episodes(self) -> tuple[int, ...]:
        """See ``Summary``."""
        return tuple(sorted({kind.episode for kind in self.traffic}))

    def only(self, episodes: Sequence[int]) -> ServingSummary:
        """See ``Summary``."""
        wanted = set(episodes)
        kept = [number in wanted for number in self.columns["episode"]]
        columns = {name: list(compress(each, kept)) for name, each in self.columns.items()}
        windows = tuple(window for window in self.windows if window.episode in wanted)
        return replace(self, columns=columns, windows=windows)

    @property
    def seconds(self) -> float:
        """Emulated seconds in which requests came, over all episodes."""
        return len(self.episodes) * self.plan.horizon.length / SECOND

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """See ``Summary``."""
        return self.outcomes_at(None)

    def outcomes_at(self, node: int | None) -> dict[str, int]:
        """Return the requests that came to a node (None: to any) by outcome."""
        counts = dict.fromkeys((outcome.value for outcome in RequestOutcome), 0)
        for kind, number in self.traffic.items():
            if node in (None, kind.node):
                counts[kind.outcome] += number
        return counts

    def servers_of(self, node: int) -> dict[int, int]:
        """Return the requests of users of a node by the node that served them."""
        found: Counter[int] = Counter()
        for kind, number in self.traffic.items():
            if kind.node == node and kind.server is not None:
                found[kind.server] += number
        return dict(sorted(found.items()))

    @cached_property
    def by_client(self) -> bool:
        """Whether times are those that the client saw, as where there was one; else the node's."""
        return any(each is not None for each in self.columns["answered"])

    @property
    def times(self) -> Sequence[int | None]:
        """Time of each request in ``columns`` in microseconds; None where it is not known."""
        return self.columns["answered" if self.by_client else "elapsed"]

    def latency(self, node: int | None = None) -> Latency:
        """Return the times of served requests that came to a node (None: to any)."""
        outcomes, sources = self.columns["outcome"], self.columns["source"]
        times = sorted(
            time / 1000
            for time, outcome, source in zip(self.times, outcomes, sources, strict=True)
            if time is not None
            and outcome == RequestOutcome.SERVED
            and (node is None or source == node)
        )
        if not times:
            return Latency(0, *[math.nan] * 4)
        return Latency(len(times), fmean(times), *(_percentile(times, p) for p in PERCENTILES))

    @cached_property
    def messages(self) -> Messages:
        """Messages of all nodes."""
        return self.messages_of(None)

    def messages_of(self, node: int | None) -> Messages:
        """Return the messages of a node (None: of all)."""
        mine = [window for window in self.windows if node in (None, window.node)]
        return Messages(
            sum(window.said for window in mine),
            sum(window.said_bytes for window in mine),
            sum(window.heard for window in mine),
            sum(window.heard_bytes for window in mine),
        )

    def frame(self, name: str) -> pd.DataFrame:
        """See ``Summary``; ``testbed.experiment.serving.metrics`` says what is in each."""
        # Loading it takes longer than all that most commands do.
        import pandas as pd

        if name == TRAFFIC:
            rows = [(*kind, number) for kind, number in self.traffic.items()]
            return pd.DataFrame(rows, columns=[*Traffic._fields, "requests"])
        if name == REQUESTS:
            return pd.DataFrame({**self.columns, "latency": self.times})
        return pd.DataFrame(self.windows, columns=list(WindowRecord._fields))

    def _values(self, metric: Any) -> Mapping[int, float]:
        if metric is not REFUSED_RATE:
            return super()._values(metric)
        total: Counter[int] = Counter()
        served: Counter[int] = Counter()
        for kind, number in self.traffic.items():
            total[kind.episode] += number
            served[kind.episode] += number * (kind.outcome == RequestOutcome.SERVED)
        return {number: 1 - served[number] / total[number] for number in self.episodes}

    # --- shown ------------------------------------------------------------------------------

    @property
    def rates(self) -> dict[str, float]:
        """See ``Summary``."""
        return {"refused_rate": self.measured(REFUSED_RATE).interval.mean}

    @staticmethod
    def columns_of(runs: Sequence[ServingSummary], shown: Shown) -> list[Column]:
        """See ``Summary``."""
        latencies = [run.latency() for run in runs]
        rates = [shown(REFUSED_RATE, run.measured(REFUSED_RATE).interval) for run in runs]
        return [
            Column("REQUESTS", [str(run.count) for run in runs]),
            Column(REFUSED_RATE.name.upper(), rates, bold=True),
            Column("AT PEERS", [f"{100 * run.forwarded:.1f} %" for run in runs]),
            *(
                Column(f"P{p}", [_milliseconds(each[2 + i]) for each in latencies])
                for i, p in enumerate(PERCENTILES)
                if p != 95
            ),
        ]

    @property
    def forwarded(self) -> float:
        """Share of the served requests of an episode that a neighbour served, mean over episodes.

        0 if none was served.
        """
        served: Counter[int] = Counter()
        away: Counter[int] = Counter()
        for kind, number in self.traffic.items():
            if kind.server is not None:
                served[kind.episode] += number
                away[kind.episode] += number * (kind.server != kind.node)
        return sum(away[each] / served[each] for each in served) / max(1, len(served))

    def facts(self, shown: Shown) -> list[tuple[str, str]]:
        """See ``Summary``."""
        refused = shown(REFUSED_RATE, self.measured(REFUSED_RATE).interval)
        messages = self.messages
        return [
            (REFUSED_RATE.name, f"{refused} (95 % interval over episodes)"),
            ("objective", str(self.scored["objective"])),
            ("requests", f"{self.count}  ({self.count / self.seconds:.1f} /s)"),
            *(
                (
                    f"  {outcome.replace('_', ' ')}",
                    f"{each}  ({100 * each / self.count:.1f} %, {each / self.seconds:.1f} /s)",
                )
                for outcome, each in self.outcomes.items()
                if each
            ),
            ("served at peers", f"{100 * self.forwarded:.1f} %"),
            (
                "messages",
                f"{messages.said} said, {messages.heard} heard; {messages.said_bytes} bytes",
            ),
            *([("others' requests", str(self.external))] if self.external else []),
        ]

    def tables(self) -> list[Table]:
        """See ``Summary``."""
        nodes = range(self.plan.size)
        outcomes = [each.value for each in RequestOutcome if self.outcomes[each]]
        rates = Table(
            ["NODE", ">REQUESTS/S", *(f">{each.replace('_', ' ').upper()}" for each in outcomes)],
            [
                [
                    str(node),
                    f"{sum(found.values()) / self.seconds:.1f}",
                    *(f"{found[each] / self.seconds:.1f}" for each in outcomes),
                ]
                for node in nodes
                for found in [self.outcomes_at(node)]
            ],
        )
        servers = Table(
            ["SERVED FOR USERS OF", *(f">AT NODE {node}" for node in nodes)],
            [
                [
                    f"node {node}",
                    *(f"{found.get(peer, 0) / self.seconds:.1f} /s" for peer in nodes),
                ]
                for node in nodes
                for found in [self.servers_of(node)]
                if found
            ],
        )
        who = "CLIENT" if self.by_client else "NODE"
        latencies = Table(
            [f"TIMES OF SERVED REQUESTS (BY {who})", ">MEAN", *(f">P{p}" for p in PERCENTILES)],
            [
                [name, *map(_milliseconds, found[1:])]
                for name, found in [
                    ("all", self.latency()),
                    *((f"node {node}", self.latency(node)) for node in nodes),
                ]
                if found.served
            ],
        )
        latency = [latencies] if latencies.rows else []
        return [rates, servers, *self.in_short(), *latency]

    def in_short(self) -> list[Table]:
        """See ``Summary``."""
        after = self._after_weights()
        return [] if after is None else [after]

    def _after_weights(self) -> Table | None:
        """Return where the users' requests went per second, once nodes have weighed each other."""
        end = self.plan.horizon.length
        if self.weighed is None or self.weighed >= end or not self.columns["request"]:
            return None
        seconds = len(self.episodes) * (end - self.weighed) / SECOND
        names = ("source", "at", "server", "outcome")
        found: dict[int, Counter[int | str]] = {}
        for node, at, server, outcome in zip(*(self.columns[each] for each in names), strict=True):
            if self.weighed <= at < end:
                by = outcome if server is None else server
                found.setdefault(node, Counter())[by] += 1
        others = [each for each in self.outcomes if any(each in row for row in found.values())]
        nodes = range(self.plan.size)
        return Table(
            [
                f"PER SECOND FROM {self.weighed / SECOND:g} S",
                ">LOCAL",
                *(f">AT NODE {node}" for node in nodes),
                *(f">{each.replace('_', ' ').upper()}" for each in others),
            ],
            [
                [
                    f"users of node {node}",
                    f"{row[node] / seconds:.1f}",
                    *("" if peer == node else f"{row[peer] / seconds:.1f}" for peer in nodes),
                    *(f"{row[each] / seconds:.1f}" for each in others),
                ]
                for node, row in sorted(found.items())
            ],
        )

    @property
    def document(self) -> dict[str, Any]:
        """See ``Summary``."""
        return {
            **self.head,
            "model": self.plan.model,
            "requests": self.count,
            "external_requests": self.external,
            "episodes": len(self.episodes),
            "seconds": self.seconds,
            "first_weights_s": None if self.weighed is None else self.weighed / SECOND,
            **self.scored,
            "outcomes": self.outcomes,
            "per_second": self._per_second(self.outcomes),
            "forwarded": self.forwarded,
            "latency_ms": {
                "measured_by": "client" if self.by_client else "node",
                **self.latency().document,
            },
            "messages": self.messages._asdict(),
            "nodes": [
                {
                    "node": node,
                    "outcomes": self.outcomes_at(node),
                    "per_second": self._per_second(self.outcomes_at(node)),
                    "servers": {str(k): v for k, v in self.servers_of(node).items()},
                    "latency_ms": self.latency(node).document,
                    "messages": self.messages_of(node)._asdict(),
                }
                for node in range(self.plan.size)
            ],
            **self.trust,
        }

    def _per_second(self, outcomes: Mapping[str, int]) -> dict[str, float]:
        return {outcome: number / self.seconds for outcome, number in outcomes.items()}


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of ordered values, interpolated between neighbours as NumPy does."""
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _milliseconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f} ms"


def _of_windows(
    network: ServingNetwork, windows: Sequence[WindowRecord], function: int | None = None
) -> Counter[Traffic]:
    """Return what became of the requests of users, as far as windows tell.

    ``function`` is the index of the one whose requests are counted; None: all.

    A node knows of a forwarded request that it was not served, and the neighbour how many it
    refused for being above the limit; of the others, a neighbour that does not know the sender
    has forbidden them, and one that knows it did not answer.
    """
    counts: Counter[tuple[int, int, str]] = Counter()
    for window in windows:
        for place, by_function in enumerate(window.counts):
            if function in (None, place):
                for what, number in by_function.items():
                    counts[window.episode, window.node, what] += number
    found: Counter[Traffic] = Counter()

    def add(kind: Traffic, number: int) -> None:
        if number > 0:
            found[kind] += number

    for (episode, node, what), number in counts.items():
        name, _, to = what.partition(":")
        if name == "local":
            add(Traffic(episode, node, RequestOutcome.SERVED.value, node), number)
        elif name == "to":
            peer = int(to)
            failed = counts[episode, node, f"failed:{peer}"]
            above = counts[episode, peer, f"over_limit:{node}"]
            known = node in network.neighbours[peer]
            other = RequestOutcome.UNREACHABLE if known else RequestOutcome.FORBIDDEN
            add(Traffic(episode, node, RequestOutcome.SERVED.value, peer), number - failed)
            add(Traffic(episode, node, RequestOutcome.OVER_LIMIT.value, None), above)
            add(Traffic(episode, node, other.value, None), failed - above)
        elif name in (RequestOutcome.NO_PEER, RequestOutcome.OVERLOAD):
            add(Traffic(episode, node, name, None), number)
    return found


def read(log: TaskLog, run: Run, heard: Heard) -> ServingSummary:
    """Read what a serving run did. Raises: UsageError: nothing of it is logged yet."""
    names = ("episode", "request", *_COLUMNS)
    rows: list[Sequence[Any]] = []
    for chunk in log.rows("requests", run.id, only=_COLUMNS):
        rows += [row[1:] for row in chunk]
        heard(len(rows))
    users = [row for row in rows if row[1] < EXTERNAL]
    windows = tuple(log.windows(run.id))
    if not users and not windows:
        raise NothingToReport(
            f"run {run.id} ({run.state.value}) has no answered request, so there is nothing to "
            "report"
        )
    values = zip(*users, strict=True) if users else ([] for _ in names)
    columns: dict[str, Sequence[Any]] = dict(zip(names, values, strict=True))
    plan = ServingPlan.from_json(run.info.plan)
    weighed = min(
        (
            routing.at
            for routing in log.routings(run.id)
            if any(any(route.weights) for route in routing.routing.table or ())
        ),
        default=None,
    )
    return ServingSummary(run, plan, columns, windows, len(rows) - len(users), weighed)
