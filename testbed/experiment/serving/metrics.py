"""Metrics of serving runs; ``testbed.experiment.metrics`` finds them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from testbed.experiment.metrics import Metric
from testbed.model.serving.record import RequestOutcome

if TYPE_CHECKING:
    import pandas as pd

    from testbed.experiment.metrics import ByEpisode

TRAFFIC: Final = "traffic"
"""Frame with a row for each episode, node, outcome and server: ``requests`` is their number."""

REQUESTS: Final = "requests"
"""Frame with a row for each request, and its ``latency``; empty where none is logged."""

WINDOWS: Final = "windows"
"""Frame with a row for each window of each node: its messages."""


def _share(*outcomes: RequestOutcome) -> Callable[[pd.DataFrame], ByEpisode]:
    """Return the function of the share of requests with these outcomes."""
    return _part(lambda traffic: traffic["outcome"].isin(outcomes))


def _part(
    of: Callable[[pd.DataFrame], pd.Series[bool]],
    among: Callable[[pd.DataFrame], pd.Series[bool]] | None = None,
) -> Callable[[pd.DataFrame], ByEpisode]:
    """Return the function of the share of requests ``of``, ``among`` some or all."""

    def values(traffic: pd.DataFrame) -> ByEpisode:
        rows = traffic if among is None else traffic[among(traffic)]
        total = rows.groupby("episode")["requests"].sum()
        found = rows[of(rows)].groupby("episode")["requests"].sum()
        share: ByEpisode = found.reindex(total.index, fill_value=0) / total
        return share

    return values


def _served(traffic: pd.DataFrame) -> pd.Series[bool]:
    return traffic["outcome"] == RequestOutcome.SERVED


def _away(traffic: pd.DataFrame) -> pd.Series[bool]:
    return traffic["server"] != traffic["node"]


def _latency(name: str, share: float, title: str) -> Metric:
    """Return the metric of a quantile of the times of served requests."""

    def values(requests: pd.DataFrame) -> ByEpisode:
        served = requests[requests["outcome"] == RequestOutcome.SERVED]
        times = served["latency"].astype(float) / 1000
        found: ByEpisode = times.groupby(served["episode"]).quantile(share)
        return found

    return Metric(
        name=f"latency-{name}",
        title=title,
        values=values,
        unit="ms",
        better="lower",
        frame=REQUESTS,
    )


def _sum(column: str) -> Callable[[pd.DataFrame], ByEpisode]:
    def values(windows: pd.DataFrame) -> ByEpisode:
        found: ByEpisode = windows.groupby("episode")[column].sum()
        return found

    return values


REFUSED_RATE: Final = Metric(
    name="refused-rate",
    title="share of requests that were not served",
    values=_share(*(each for each in RequestOutcome if each is not RequestOutcome.SERVED)),
    better="lower",
    frame=TRAFFIC,
)
"""Share of the requests of an episode that no service answered, whatever the reason."""

SERVED_RATE: Final = Metric(
    name="served-rate",
    title="share of requests that were served",
    values=_share(RequestOutcome.SERVED),
    better="higher",
    frame=TRAFFIC,
)

NO_PEER_RATE: Final = Metric(
    name="no-peer-rate",
    title="share of requests above the cap without a neighbour to take them (503)",
    values=_share(RequestOutcome.NO_PEER, RequestOutcome.OVERLOAD),
    better="lower",
    frame=TRAFFIC,
)

OVER_LIMIT_RATE: Final = Metric(
    name="over-limit-rate",
    title="share of requests above the limit of a neighbour (429)",
    values=_share(RequestOutcome.OVER_LIMIT),
    better="lower",
    frame=TRAFFIC,
)

UNREACHABLE_RATE: Final = Metric(
    name="unreachable-rate",
    title="share of requests forwarded to a neighbour that did not answer (502)",
    values=_share(RequestOutcome.UNREACHABLE),
    better="lower",
    frame=TRAFFIC,
)

FORWARDED: Final = Metric(
    name="forwarded",
    title="share of served requests that a neighbour served",
    values=_part(_away, among=_served),
    better=None,
    frame=TRAFFIC,
)

LATENCY_P50: Final = _latency("p50", 0.5, "median time of served requests")
LATENCY_P95: Final = _latency("p95", 0.95, "95th percentile of the times of served requests")
LATENCY_P99: Final = _latency("p99", 0.99, "99th percentile of the times of served requests")

MESSAGES: Final = Metric(
    name="messages",
    title="messages between nodes",
    values=_sum("said"),
    unit="messages",
    better="lower",
    digits=0,
    frame=WINDOWS,
)

MESSAGE_BYTES: Final = Metric(
    name="message-bytes",
    title="bytes of messages between nodes",
    values=_sum("said_bytes"),
    unit="bytes",
    better="lower",
    digits=0,
    frame=WINDOWS,
)
