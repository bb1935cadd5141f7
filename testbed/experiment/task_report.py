"""The part of a report that is for runs of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import breakdown, dots, figures, timeline
from testbed.experiment.frames import flows, queue_lengths
from testbed.experiment.measured import names_of
from testbed.experiment.metrics import SUCCESS_RATE
from testbed.experiment.page import Section, frame_table, heading, note
from testbed.experiment.reporting import (
    Drawn,
    FamilyReport,
    Plot,
    Plots,
    Tables,
    by_episode,
    image,
)
from testbed.experiment.statistics import in_per_cent
from testbed.experiment.task_summary import RunSummary
from testbed.storage.tasklog import TaskLog

_MEANS: Final = "Dots: means over episodes; lines: 95 % intervals."


def _plots(log: TaskLog, runs: Sequence[RunSummary]) -> Plots:
    plots: dict[str, Callable[[], Plot | None]] = {
        SUCCESS_RATE.name: lambda: Plot(
            figures.success_rates(runs),
            by_episode(runs, [run.measured(SUCCESS_RATE) for run in runs]),
            "Success rate of each run: mean over episodes with its 95 % interval; faint dots are "
            "episodes.",
        ),
        "outcomes": lambda: Plot(
            figures.outcome_shares(runs),
            _outcomes(runs),
            "How tasks ended: shares of the tasks of an episode, mean over episodes.",
        ),
        "load": lambda: Plot(
            breakdown.load_drawn(load := breakdown.by_load(runs)),
            load,
            "Success rate of each episode against its offered load: the work of the tasks that "
            "arrived, as a share of what all processors could execute meanwhile. Where a run has "
            "episodes enough: means of its three groups of episodes by load, with 95 % intervals.",
        ),
        "nodes": lambda: Plot(
            breakdown.nodes_drawn(nodes := breakdown.by_node(runs), "success rate, %"),
            nodes,
            f"Success of tasks by the node at which they arrived. {_MEANS}",
        ),
        "processors": lambda: Plot(
            breakdown.nodes_drawn(
                used := breakdown.processors(runs), "processor in use, % of time"
            ),
            used,
            f"Share of the time of an episode in which each node executed a task. {_MEANS}",
        ),
        "sizes": lambda: _sizes(runs),
        "latency": lambda: Plot(
            figures.latency_breakdown(runs),
            _times(runs),
            "Where succeeded tasks spent their time: mean by stage, over all of them; the line "
            "reaches to the 95th percentile of the total.",
        ),
        "links": lambda: _links(runs),
        "queues": lambda: _queue_plot(log, runs),
        "topology": lambda: _topology(runs),
    }
    return plots


def _sizes(runs: Sequence[RunSummary]) -> Plot | None:
    found = breakdown.by_size(runs)
    if found.empty:
        return None
    says = f"Success of tasks by size, in quarters of all tasks. {_MEANS}"
    return Plot(breakdown.sizes_drawn(found), found, says)


def _links(runs: Sequence[RunSummary]) -> Plot | None:
    found = breakdown.links(runs)
    if found.empty:
        return None
    says = f"Share of the time of an episode in which a link carried a task. {_MEANS}"
    return Plot(breakdown.links_drawn(found, names_of(runs)), found, says)


def _queue_plot(log: TaskLog, runs: Sequence[RunSummary]) -> Plot | None:
    read = [(run, queue_lengths(log, run.run.id)) for run in runs]
    lengths = [(run, frame) for run, frame in read if not frame.empty]
    if not lengths:
        return None
    says = "Length of the execution queues by slot, mean over episodes."
    return Plot(figures.queues_over_time(lengths), _queues_by_slot(lengths), says)


def _topology(runs: Sequence[RunSummary]) -> Plot:
    names = names_of(runs)
    best = max(range(len(runs)), key=lambda number: runs[number].success_rate.mean)
    says = f"The network, and where tasks went under {names[best]}."
    if len(runs) > 1:
        says += " The CSV file has where they went under all schedulers."
    data = pd.concat(_flows(name, run) for name, run in zip(names, runs, strict=True))
    return Plot(figures.topology(runs[best].run.plan.topology, runs[best]), data, says)


def _outcomes(runs: Sequence[RunSummary]) -> pd.DataFrame:
    rows = [
        (name, run.run.id, outcome, run.outcomes[outcome], share)
        for name, run in zip(names_of(runs), runs, strict=True)
        for outcome, share in run.outcome_shares.items()
    ]
    return pd.DataFrame(rows, columns=["scheduler", "run", "outcome", "tasks", "share"])


def _times(runs: Sequence[RunSummary]) -> pd.DataFrame:
    keys = zip(names_of(runs), (run.run.id for run in runs), strict=True)
    times = dict(zip(keys, (run.times for run in runs), strict=True))
    return pd.concat(times, names=["scheduler", "run", "time"]).reset_index()


def _queues_by_slot(lengths: Sequence[tuple[RunSummary, pd.DataFrame]]) -> pd.DataFrame:
    runs = [run for run, _ in lengths]
    parts = []
    for name, (run, frame) in zip(names_of(runs), lengths, strict=True):
        part = figures.queues_by_slot(frame).reset_index()
        part.insert(0, "scheduler", name)
        part.insert(1, "run", run.run.id)
        parts.append(part)
    return pd.concat(parts)


def _flows(name: str, run: RunSummary) -> pd.DataFrame:
    """Return a row per pair of nodes: where tasks went, and the rate of the link."""
    network = run.run.plan.topology
    sent = flows(run, network.size)
    rows = [
        (
            *(name, run.run.id, source, destination, sent[source, destination]),
            network.link_rate[source][destination] / 1e6 if source != destination else None,
            *(network.capacity_hz[source] / 1e9, network.arrival_probability[source]),
        )
        for source in range(network.size)
        for destination in range(network.size)
    ]
    columns = ["scheduler", "run", "source", "destination", "share_of_tasks", "link_mb_per_s"]
    return pd.DataFrame(rows, columns=[*columns, "source_ghz", "source_arrival_probability"])


def _tables(runs: Sequence[RunSummary]) -> dict[str, pd.DataFrame]:
    summary = pd.DataFrame(
        [
            {
                "run": run.run.id,
                "scheduler": name,
                "driver": run.run.info.driver,
                "state": run.run.state.value,
                "episodes": run.success_rate.count,
                "tasks": run.task_count,
                "success rate": run.success_rate.mean,
                "low": run.success_rate.low,
                "high": run.success_rate.high,
                "offloaded": run.offloaded,
                **run.outcomes,
            }
            for name, run in zip(names_of(runs), runs, strict=True)
        ]
    )
    episodes = pd.DataFrame(
        {name: run.by_episode for name, run in zip(names_of(runs), runs, strict=True)}
    ).sort_index()
    episodes.index.name = "episode"
    return {"summary": summary, "episodes": episodes.reset_index(), "times": _times(runs)}


def _row(run: RunSummary) -> dict[str, object]:
    return {
        "episodes": run.success_rate.count,
        "tasks": run.task_count,
        "success rate, %": SUCCESS_RATE.mean(run.success_rate),
        "95 % interval": SUCCESS_RATE.ends(run.success_rate, " to "),
        "sent to peers, % of decided": f"{100 * run.offloaded:.1f}",
    }


def outcome_table(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return the shares of outcomes in per cent, as texts that add up to 100.0 in each row."""
    came = [each for each in runs[0].outcomes if any(run.outcomes[each] for run in runs)]
    shown = ["succeeded", *(each for each in came if each != "succeeded")]
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        # A whole has at least two parts; without failures the second is not shown, and is 0.
        shares = in_per_cent([*(run.outcome_shares[each] for each in shown), 0.0])
        told = {
            f"{each.replace('_', ' ')}, %": f"{share:.1f}"
            for each, share in zip(shown, shares, strict=False)
        }
        rows.append({"scheduler": name, **told, "sum": f"{sum(shares):.1f}"})
    return pd.DataFrame(rows)


def _sections(
    log: TaskLog, runs: Sequence[RunSummary], drawn: Drawn, tables: Tables
) -> list[Section]:
    parts = [heading("By load"), image(drawn, "load")]
    parts.append(
        note(
            "`testbed sweep SCENARIO --over nodes.arrivalProbability=...` varies the load on "
            "purpose, over more than the chance of arrivals does."
        )
    )
    parts += [heading("By node"), image(drawn, "nodes"), *_cut(runs), image(drawn, "processors")]
    parts.append(heading("By task size"))
    parts.append(image(drawn, "sizes") if "sizes" in drawn else note("All tasks have one size."))
    times = tables["times"].drop(columns="run").rename(columns=_TIMES)
    times["stage"] = times["stage"].str.replace("_", " ")
    used = [image(drawn, "links")] if "links" in drawn else [note("No task was sent to a peer.")]
    found = [
        Section(
            "How tasks ended",
            [
                image(drawn, "outcomes"),
                frame_table(outcome_table(runs)),
                note(
                    "Shares of the tasks of an episode, mean over episodes; rounding errors are "
                    "evened out, so that each row adds up to 100.0."
                ),
            ],
        ),
        Section("Success in parts", parts),
        Section("Where time went", [image(drawn, "latency"), frame_table(times)]),
        Section("Use of links", used),
    ]
    if "queues" in drawn:
        found.append(Section("Queues", [image(drawn, "queues")]))
    return [*found, Section("Time lines", timeline.parts(log, runs), style=timeline.STYLE)]


_TIMES: Final = {"time": "stage", "mean_ms": "mean, ms", "p50_ms": "p50, ms", "p95_ms": "p95, ms"}


def _cut(runs: Sequence[RunSummary]) -> list[str]:
    size = max(run.run.plan.topology.size for run in runs)
    if size <= dots.MOST_ROWS:
        return []
    return [note(f"{dots.MOST_ROWS} of {size} nodes are drawn; the CSV file has all.")]


def _network(runs: Sequence[RunSummary], drawn: Drawn) -> list[Section]:
    return [Section("Network", [image(drawn, "topology")])]


def _timings(certificate: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for what in ("transmission", "execution"):
        timing = certificate[what]
        error = timing["error"]
        rows.append(
            {
                "measured against configured": what,
                "count": error["count"],
                "p50, ms": error["p50"] / 1000,
                "p95, ms": error["p95"] / 1000,
                "p99, ms": error["p99"] / 1000,
                "max, ms": error["max"] / 1000,
            }
        )
    return pd.DataFrame(rows)


def _queues(runs: Sequence[RunSummary], logs: Sequence[TaskLog]) -> Figure:
    read = zip(runs, logs, strict=True)
    return figures.queues_over_time([(run, queue_lengths(log, run.run.id)) for run, log in read])


REPORT: Final = FamilyReport(
    standard=SUCCESS_RATE,
    heading="Success rate",
    plots=_plots,
    tables=_tables,
    row=_row,
    sections=_sections,
    network=_network,
    timings=_timings,
    figures={
        "success": lambda runs, logs: figures.success_rates(runs),
        "outcomes": lambda runs, logs: figures.outcome_shares(runs),
        "latency": lambda runs, logs: figures.latency_breakdown(runs),
        "queues": _queues,
        "topology": lambda runs, logs: figures.topology(runs[0].run.plan.topology, runs[0]),
        "load": lambda runs, logs: breakdown.load_drawn(breakdown.by_load(runs)),
        "nodes": lambda runs, logs: breakdown.nodes_drawn(
            breakdown.by_node(runs), "success rate, %"
        ),
        "metric": lambda runs, logs: figures.success_rates(runs),
    },
)
