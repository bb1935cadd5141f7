"""The part of a report that is for serving runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final, Literal

import pandas as pd
from matplotlib.figure import Figure

from testbed.errors import UsageError
from testbed.experiment import dots
from testbed.experiment.measured import names_of
from testbed.experiment.page import Section, frame_table, heading, note
from testbed.experiment.reporting import (
    Drawn,
    FamilyReport,
    Plot,
    Plots,
    Tables,
    by_episode,
    image,
    numbered,
)
from testbed.experiment.serving import breakdown, figures
from testbed.experiment.serving.metrics import REFUSED_RATE
from testbed.experiment.serving.summary import ServingSummary
from testbed.storage.tasklog import TaskLog

MOST_RUNS: Final = 4
"""Runs whose requests are drawn over time."""


def _plots(log: TaskLog, runs: Sequence[ServingSummary]) -> Plots:
    plots: dict[str, Callable[[], Plot | None]] = {
        REFUSED_RATE.name: lambda: Plot(
            figures.refused_rates(runs),
            by_episode(runs, [run.measured(REFUSED_RATE) for run in runs]),
            "Requests refused in each run: mean over episodes with its 95 % interval; faint dots "
            "are episodes.",
        )
    }
    for number, (name, run) in enumerate(zip(names_of(runs)[:MOST_RUNS], runs, strict=False)):
        plots[numbered("outcomes", number)] = partial(_outcomes, name, run)
        plots[numbered("servers", number)] = partial(_servers, name, run)
    by_load = cache(lambda: breakdown.by_load(runs))
    by_function = cache(lambda: breakdown.by_function(runs))
    return {
        **plots,
        "load": lambda: _load_plot(by_load(), "refused_rate", "Requests refused"),
        "load-times": lambda: _load_plot(
            by_load(),
            "beyond_ms",
            "Mean time of served requests beyond what the service itself takes",
        ),
        "nodes": lambda: _nodes_plot(runs),
        "functions": lambda: _functions_plot(by_function()),
        "function-times": lambda: _function_times_plot(by_function(), names_of(runs)),
        "latency": lambda: _latency_plot(runs),
        "messages": lambda: _messages_plot(runs),
    }


def _outcomes(name: str, run: ServingSummary) -> Plot:
    says = f"Requests per second over time by what became of them, mean over episodes: {name}."
    return Plot(figures.outcomes_over_time(run), _over_time([run], [name]), says)


def _servers(name: str, run: ServingSummary) -> Plot:
    says = f"Requests per second over time by the node that served them: {name}."
    return Plot(figures.servers_over_time(run), _over_time([run], [name]), says)


def _load_plot(
    found: pd.DataFrame, value: Literal["refused_rate", "beyond_ms"], what: str
) -> Plot | None:
    drawn = breakdown.load_drawn(found, value)
    says = (
        f"{what} against the offered load: the requests of users for a function that came to a "
        "node in an interval, as a share of those that it is meant to serve. Faint dots: nodes, "
        "functions and intervals, mean over episodes; lines: bands of 25 points of load, with 95 % "
        "intervals over episodes."
    )
    return None if drawn is None else Plot(drawn, found, says)


def _nodes_plot(runs: Sequence[ServingSummary]) -> Plot:
    found = breakdown.by_node(runs)
    says = f"Requests refused by the node that they came to. {_MEANS}"
    return Plot(breakdown.nodes_drawn(found), found, says)


def _functions_plot(found: pd.DataFrame) -> Plot | None:
    if not _differ(found):
        return None
    says = f"Requests refused by function. {_MEANS}"
    return Plot(breakdown.functions_drawn(found), found, says)


def _function_times_plot(found: pd.DataFrame, names: Sequence[str]) -> Plot | None:
    drawn = breakdown.times_drawn(found, names) if _differ(found) else None
    says = (
        "Times of served requests by function, over all of them: dots are medians, and lines reach "
        "to the 99th percentile."
    )
    return None if drawn is None else Plot(drawn, found, says)


def _differ(found: pd.DataFrame) -> bool:
    """Return whether there were requests for more than one function."""
    return found["function"].nunique() > 1


_MEANS: Final = "Dots: means over episodes; lines: 95 % intervals."


def _latency_plot(runs: Sequence[ServingSummary]) -> Plot | None:
    drawn = figures.latencies(runs)
    says = "Percentiles of the times of served requests, over all of them."
    return None if drawn is None else Plot(drawn, _times(runs), says)


def _messages_plot(runs: Sequence[ServingSummary]) -> Plot | None:
    if not any(run.messages.said for run in runs):
        return None
    says = "Messages between nodes so far, mean over episodes."
    return Plot(figures.messages_over_time(runs), _messages_over_time(runs), says)


def _over_time(runs: Sequence[ServingSummary], names: Sequence[str]) -> pd.DataFrame:
    """Return a row per run, window and kind of request: how many there were in all episodes."""
    rows = [
        {"scheduler": name, "run": run.run.id, "window": window, **kind._asdict(), "requests": each}
        for name, run in zip(names, runs, strict=True)
        for window, kind, each in sorted(
            ((window, kind, number) for (window, kind), number in run.over_time.items()),
            key=lambda row: (row[0], _in_order(row[1:])),
        )
    ]
    return pd.DataFrame(rows).astype({"server": "Int64"})


def _times(runs: Sequence[ServingSummary]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"scheduler": name, "run": run.run.id, "node": node, **run.latency(node)._asdict()}
            for name, run in zip(names_of(runs), runs, strict=True)
            for node in range(run.plan.size)
        ]
    )


def _messages_over_time(runs: Sequence[ServingSummary]) -> pd.DataFrame:
    """Return a row per run, episode, node and window: its messages."""
    rows = [
        {"scheduler": name, "run": run.run.id, **window._asdict()}
        for name, run in zip(names_of(runs), runs, strict=True)
        for window in run.windows
    ]
    columns = ["scheduler", "run", "episode", "node", "window", "said", "said_bytes"]
    return pd.DataFrame(rows)[columns]


def _tables(runs: Sequence[ServingSummary]) -> dict[str, pd.DataFrame]:
    names = names_of(runs)
    found = [(run, run.measured(REFUSED_RATE)) for run in runs]
    summary = [
        {
            "run": run.run.id,
            "scheduler": name,
            "driver": run.run.info.driver,
            "state": run.run.state.value,
            "episodes": len(run.episodes),
            "requests": run.count,
            "refused rate": refused.interval.mean,
            "low": refused.interval.low,
            "high": refused.interval.high,
            "forwarded": run.forwarded,
            **run.outcomes,
        }
        for name, (run, refused) in zip(names, found, strict=True)
    ]
    episodes = pd.DataFrame(
        {name: each.by_episode for name, (_, each) in zip(names, found, strict=True)}
    ).sort_index()
    episodes.index.name = "episode"
    traffic = [
        {"scheduler": name, "run": run.run.id, **kind._asdict(), "requests": number}
        for name, run in zip(names, runs, strict=True)
        for kind, number in sorted(run.traffic.items(), key=_in_order)
    ]
    messages = [
        {"scheduler": name, "run": run.run.id, "node": node, **run.messages_of(node)._asdict()}
        for name, run in zip(names, runs, strict=True)
        for node in range(run.plan.size)
    ]
    return {
        "summary": pd.DataFrame(summary),
        "episodes": episodes.reset_index(),
        "traffic": pd.DataFrame(traffic).astype({"server": "Int64"}),
        "over-time": _over_time(runs, names),
        "nodes": breakdown.by_node(runs),
        "functions": breakdown.by_function(runs),
        "times": _times(runs),
        "messages": pd.DataFrame(messages),
    }


def _in_order(counted: tuple[Any, int]) -> tuple[int, int, str, int]:
    kind = counted[0]
    return kind.episode, kind.node, kind.outcome, -1 if kind.server is None else kind.server


def _row(run: ServingSummary) -> dict[str, object]:
    refused = run.measured(REFUSED_RATE).interval
    latency = run.latency()
    return {
        "episodes": len(run.episodes),
        "requests": run.count,
        "refused, %": f"{100 * refused.mean:.1f}",
        "95 % interval": REFUSED_RATE.ends(refused, " to "),
        "at peers, % of served": f"{100 * run.forwarded:.1f}",
        **({"p50, ms": latency.p50, "p99, ms": latency.p99} if latency.served else {}),
    }


def _sections(
    log: TaskLog, runs: Sequence[ServingSummary], drawn: Drawn, tables: Tables
) -> list[Section]:
    shown = runs[:MOST_RUNS]
    names = names_of(runs)[:MOST_RUNS]
    first = [note(f"The first {len(shown)} of {len(runs)} runs.")] if len(shown) < len(runs) else []
    outcomes, servers = [*first], [*first]
    for number, (name, run) in enumerate(zip(names, shown, strict=True)):
        left_out = len({kind.node for kind in run.traffic}) - len(figures.drawn_nodes(run))
        outcomes += [
            heading(name),
            image(drawn, numbered("outcomes", number)),
            *([note(_without(left_out))] if left_out else []),
            frame_table(_by_outcome(run)),
        ]
        servers += [
            heading(name),
            image(drawn, numbered("servers", number)),
            frame_table(_by_server(run)),
        ]
    if "latency" in drawn:
        who = sorted(
            {"client" if run.by_client else "node" for run in runs if run.latency().served}
        )
        told = tables["times"].loc[lambda table: table["served"] > 0].drop(columns="run")
        times = [
            note(
                f"Measured by the {' or the '.join(who)}; requests that were refused are left out."
            ),
            image(drawn, "latency"),
            frame_table(told.rename(columns=lambda name: _TIMES.get(name, name))),
        ]
    else:
        times = [note("These runs log windows only, so no time of a request is known.")]
    if "messages" in drawn:
        messages = [image(drawn, "messages"), frame_table(_messages(runs))]
    else:
        messages = [note("The nodes said nothing to each other.")]
    return [
        Section("Refused in parts", _parts(drawn, tables["nodes"], tables["functions"])),
        Section("Requests by outcome", outcomes),
        Section("Who served them", servers),
        Section("Times of served requests", times),
        Section("Messages", messages),
    ]


def _parts(drawn: Drawn, nodes: pd.DataFrame, functions: pd.DataFrame) -> list[str]:
    """Return what was refused by offered load, by node and by function."""
    times = [image(drawn, "load-times")] if "load-times" in drawn else []
    load = [image(drawn, "load"), *times] if "load" in drawn else [note(_NO_LOAD)]
    left_out = nodes["node"].nunique() - dots.MOST_ROWS
    rest = [note(_without(left_out))] if left_out > 0 else []
    by_function = [frame_table(_shares_table(functions, "function"))]
    if "functions" in drawn:
        times = [image(drawn, "function-times")] if "function-times" in drawn else []
        by_function = [image(drawn, "functions"), *times, *by_function]
    else:
        by_function = [note("All requests are for one function."), *by_function]
    return [
        *(heading("By offered load"), *load),
        *(heading("By node"), image(drawn, "nodes"), *rest),
        frame_table(_shares_table(nodes, "node")),
        *(heading("By function"), *by_function),
    ]


_NO_LOAD: Final = "Nodes are meant to serve nothing, so there is no load to speak of."


def _shares_table(found: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return ``by_node`` or ``by_function`` for the page, without a column that knows nothing."""
    ends = [
        None if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"
        for low, high in zip(found["low"], found["high"], strict=True)
    ]
    times = [name for name in ("service", "p50", "p99") if f"{name}_ms" in found]
    shown = pd.DataFrame(
        {
            what: found[what],
            "scheduler": found["scheduler"],
            "requests": found["requests"],
            "offered load, %": 100 * found["offered_load"],
            "refused, %": 100 * found["mean"],
            "95 % interval": ends,
            **{f"{name}, ms": found[f"{name}_ms"] for name in times},
        }
    )
    return shown.dropna(axis=1, how="all").sort_values(what, kind="stable")


_TIMES: Final = {each: f"{each}, ms" for each in ("mean", "p50", "p95", "p99")}


def _without(nodes: int) -> str:
    return (
        "One node, which fewest requests came to, is not drawn."
        if nodes == 1
        else f"{nodes} nodes, which fewest requests came to, are not drawn."
    )


def _by_outcome(run: ServingSummary) -> pd.DataFrame:
    """Return requests per second by outcome: a row for each node that any came to."""
    outcomes = [name for name, number in run.outcomes.items() if number]
    rows = []
    for node in range(run.plan.size):
        found = run.outcomes_at(node)
        if total := sum(found.values()):
            rates = {figures.NAMES.get(name, name): found[name] / run.seconds for name in outcomes}
            rows.append({"users of node": node, "requests/s": total / run.seconds, **rates})
    return pd.DataFrame(rows)


def _by_server(run: ServingSummary) -> pd.DataFrame:
    """Return served requests per second: a row for each node that any came to."""
    rows = []
    for node in range(run.plan.size):
        if found := run.servers_of(node):
            rates = {
                f"at node {server}": found.get(server, 0) / run.seconds
                for server in range(run.plan.size)
            }
            rows.append({"users of node": node, **rates})
    return pd.DataFrame(rows)


def _messages(runs: Sequence[ServingSummary]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "scheduler": name,
                **{key.replace("_", " "): each for key, each in run.messages._asdict().items()},
                "bytes/s": run.messages.said_bytes / run.seconds,
            }
            for name, run in zip(names_of(runs), runs, strict=True)
        ]
    )


def _network(runs: Sequence[ServingSummary], drawn: Drawn) -> list[Section]:
    return []


def _timings(certificate: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "measured": name,
                "value": term["value"],
                "unit": term["unit"],
                "at least": "" if term["low"] is None else f"{term['low']:g}",
                "at most": "" if term["high"] is None else f"{term['high']:g}",
            }
            for name, term in certificate.get("terms", {}).items()
        ]
    )


def _latency(runs: Sequence[ServingSummary], logs: Sequence[TaskLog]) -> Figure:
    drawn = figures.latencies(runs)
    if drawn is None:
        raise UsageError("these runs log windows only, so no time of a request is known")
    return drawn


def _load(runs: Sequence[ServingSummary], logs: Sequence[TaskLog]) -> Figure:
    drawn = breakdown.load_drawn(breakdown.by_load(runs), "refused_rate")
    if drawn is None:
        raise UsageError("nodes of these runs are meant to serve nothing, so there is no load")
    return drawn


REPORT: Final = FamilyReport(
    standard=REFUSED_RATE,
    heading="Requests refused",
    plots=_plots,
    tables=_tables,
    row=_row,
    sections=_sections,
    network=_network,
    timings=_timings,
    figures={
        "refused": lambda runs, logs: figures.refused_rates(runs),
        "outcomes": lambda runs, logs: figures.outcomes_over_time(runs[0]),
        "servers": lambda runs, logs: figures.servers_over_time(runs[0]),
        "load": _load,
        "nodes": lambda runs, logs: breakdown.nodes_drawn(breakdown.by_node(runs)),
        "functions": lambda runs, logs: breakdown.functions_drawn(breakdown.by_function(runs)),
        "latency": _latency,
        "messages": lambda runs, logs: figures.messages_over_time(runs),
        "metric": lambda runs, logs: figures.refused_rates(runs),
    },
)
