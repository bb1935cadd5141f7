"""The part of a report that is for serving runs."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from testbed.errors import UsageError
from testbed.experiment.reporting import (
    Drawn,
    FamilyReport,
    Tables,
    html_table,
    image,
    note,
    numbered,
)
from testbed.experiment.serving import figures
from testbed.experiment.serving.metrics import REFUSED_RATE
from testbed.experiment.serving.summary import ServingSummary
from testbed.storage.tasklog import TaskLog

MOST_RUNS: Final = 4
"""Runs whose requests are drawn over time."""


def _draw(log: TaskLog, runs: Sequence[ServingSummary]) -> dict[str, Figure]:
    drawn = {REFUSED_RATE.name: figures.refused_rates(runs)}
    for number, run in enumerate(runs[:MOST_RUNS]):
        drawn[numbered("outcomes", number)] = figures.outcomes_over_time(run)
        drawn[numbered("servers", number)] = figures.servers_over_time(run)
    times = figures.latencies(runs)
    if times is not None:
        drawn["latency"] = times
    if any(run.messages.said for run in runs):
        drawn["messages"] = figures.messages_over_time(runs)
    return drawn


def _tables(runs: Sequence[ServingSummary]) -> dict[str, pd.DataFrame]:
    found = [(run, run.measured(REFUSED_RATE)) for run in runs]
    summary = [
        {
            "run": run.run.id,
            "scheduler": run.title,
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
        for run, refused in found
    ]
    episodes = pd.DataFrame({run.run.id: each.by_episode for run, each in found}).sort_index()
    episodes.index.name = "episode"
    traffic = [
        {"run": run.run.id, **kind._asdict(), "requests": number}
        for run in runs
        for kind, number in sorted(run.traffic.items(), key=_in_order)
    ]
    over_time = [
        {"run": run.run.id, "window": window, **kind._asdict(), "requests": number}
        for run in runs
        for window, kind, number in sorted(
            ((window, kind, number) for (window, kind), number in run.over_time.items()),
            key=lambda row: (row[0], _in_order(row[1:])),
        )
    ]
    times = [
        {"run": run.run.id, "node": node, **run.latency(node)._asdict()}
        for run in runs
        for node in range(run.plan.size)
    ]
    messages = [
        {"run": run.run.id, "node": node, **run.messages_of(node)._asdict()}
        for run in runs
        for node in range(run.plan.size)
    ]
    return {
        "summary": pd.DataFrame(summary),
        "episodes": episodes.reset_index(),
        "traffic": pd.DataFrame(traffic).astype({"server": "Int64"}),
        "over-time": pd.DataFrame(over_time).astype({"server": "Int64"}),
        "times": pd.DataFrame(times),
        "messages": pd.DataFrame(messages),
    }


def _in_order(counted: tuple[Any, int]) -> tuple[int, int, str, int]:
    kind = counted[0]
    return kind.episode, kind.node, kind.outcome, -1 if kind.server is None else kind.server


def _row(run: ServingSummary) -> dict[str, object]:
    refused = run.measured(REFUSED_RATE).interval
    latency = run.latency()
    return {
        "run": run.run.id,
        "scheduler": run.title,
        "driver": run.run.info.driver,
        "state": run.run.state.value,
        "episodes": len(run.episodes),
        "requests": run.count,
        "refused, %": f"{100 * refused.mean:.1f}",
        "95 % interval": REFUSED_RATE.ends(refused, " to "),
        "served at peers, %": f"{100 * run.forwarded:.0f}",
        **({"p50, ms": latency.p50, "p99, ms": latency.p99} if latency.served else {}),
    }


def _sections(
    log: TaskLog, runs: Sequence[ServingSummary], drawn: Drawn, tables: Tables
) -> list[str]:
    shown = runs[:MOST_RUNS]
    parts = ["<h2>Requests by outcome</h2>"]
    if len(shown) < len(runs):
        parts.append(note(f"The first {len(shown)} of {len(runs)} runs."))
    for number, run in enumerate(shown):
        left_out = len({kind.node for kind in run.traffic}) - len(figures.drawn_nodes(run))
        parts += [
            f"<p>{html.escape(run.title)}</p>",
            image(drawn[numbered("outcomes", number)], f"requests by outcome, {run.title}"),
            *([note(_without(left_out))] if left_out else []),
            html_table(_by_outcome(run)),
        ]
    parts.append("<h2>Who served them</h2>")
    for number, run in enumerate(shown):
        parts += [
            f"<p>{html.escape(run.title)}</p>",
            image(drawn[numbered("servers", number)], f"requests by server, {run.title}"),
            html_table(_by_server(run)),
        ]
    parts.append("<h2>Times of served requests</h2>")
    if "latency" in drawn:
        who = sorted(
            {"client" if run.by_client else "node" for run in runs if run.latency().served}
        )
        parts += [
            note(
                f"Measured by the {' or the '.join(who)}; requests that were refused are left out."
            ),
            image(drawn["latency"], "percentiles of times"),
            html_table(tables["times"].loc[lambda table: table["served"] > 0]),
        ]
    else:
        parts.append(note("These runs log windows only, so no time of a request is known."))
    parts.append("<h2>Messages</h2>")
    if "messages" in drawn:
        parts += [
            image(drawn["messages"], "messages over time"),
            html_table(_messages(runs)),
        ]
    else:
        parts.append(note("The nodes said nothing to each other."))
    return parts


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
                "run": run.run.id,
                "scheduler": run.title,
                **run.messages._asdict(),
                "bytes/s": run.messages.said_bytes / run.seconds,
            }
            for run in runs
        ]
    )


def _network(runs: Sequence[ServingSummary], drawn: Drawn) -> list[str]:
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


REPORT: Final = FamilyReport(
    standard=REFUSED_RATE,
    heading="Requests refused",
    draw=_draw,
    tables=_tables,
    row=_row,
    sections=_sections,
    network=_network,
    timings=_timings,
    figures={
        "refused": lambda runs, logs: figures.refused_rates(runs),
        "outcomes": lambda runs, logs: figures.outcomes_over_time(runs[0]),
        "servers": lambda runs, logs: figures.servers_over_time(runs[0]),
        "latency": _latency,
        "messages": lambda runs, logs: figures.messages_over_time(runs),
        "metric": lambda runs, logs: figures.refused_rates(runs),
    },
)
