"""Metrics of a process for Prometheus, served over HTTP at ``/metrics``.

They are open to whoever reaches the address, like the health service for probes: they say how the
testbed is, and nothing can be done with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from testbed.errors import PrerequisiteMissing
from testbed.rpc.addresses import TcpAddress, parse

PREFIX: Final = "edge_testbed_"
"""Begins the name of every metric."""

PATIENCE_S: Final = 5.0
"""Seconds that a scrape waits for a process that is busy."""

PORT: Final = 7443
"""Where pods serve their metrics."""


class MetricsServer:
    """Serves ``collect()`` at ``bind``, and what is registered in ``registry``; until ``close``.

    Scrapes come in threads of their own; ``collect`` is called in the event loop that made this.

    Raises: PrerequisiteMissing: the address cannot be used. UsageError: it is none.
    """

    def __init__(self, bind: str, collect: Callable[[], Iterable[Metric]]) -> None:
        address = parse(bind)
        if not isinstance(address, TcpAddress):
            raise PrerequisiteMissing(
                f"metrics cannot be served at {bind}", "name an address as host:port"
            )
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_OnLoop(asyncio.get_running_loop(), collect))
        try:
            self._server, self._thread = start_http_server(
                address.port, address.host.strip("[]"), self.registry
            )
        except OSError as error:
            raise PrerequisiteMissing(
                f"metrics cannot be served at {bind}: {error.strerror or error}",
                "name an address of this host with a free port, or port 0 for any",
            ) from error
        self.address = str(TcpAddress(address.host, self._server.server_port))

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _OnLoop(Collector):
    """Collects in an event loop, whose state no other thread may read."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, collect: Callable[[], Iterable[Metric]]
    ) -> None:
        self._loop = loop
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now.

        Raises: TimeoutError: the loop is busy; the scrape fails, as it should.
        """
        found: Future[list[Metric]] = Future()

        def work() -> None:
            try:
                found.set_result(list(self._collect()))
            except Exception as error:  # noqa: BLE001 - handed to the scrape
                found.set_exception(error)

        self._loop.call_soon_threadsafe(work)
        return found.result(PATIENCE_S)


def gauge(
    name: str, about: str, values: Iterable[tuple[Sequence[str], float]], labels: Sequence[str] = ()
) -> Metric:
    """Return a gauge with a value for each combination of labels."""
    return _filled(GaugeMetricFamily(PREFIX + name, about, labels=labels), values)


def counter(
    name: str, about: str, values: Iterable[tuple[Sequence[str], float]], labels: Sequence[str] = ()
) -> Metric:
    """Return a counter, as ``gauge``; its name gets the ending ``_total``."""
    return _filled(CounterMetricFamily(PREFIX + name, about, labels=labels), values)


def _filled(
    metric: GaugeMetricFamily | CounterMetricFamily,
    values: Iterable[tuple[Sequence[str], float]],
) -> Metric:
    for given, value in values:
        metric.add_metric(given, value)
    return metric
