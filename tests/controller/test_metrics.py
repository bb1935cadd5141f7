"""What controller and nodes say of themselves, as a real Prometheus reads it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from testbed.errors import PrerequisiteMissing
from testbed.rpc.metrics import PREFIX, MetricsServer, gauge
from testbed.rpc.operator import OperatorClient, Progress
from testbed.runtime.hosting import Hosting
from testbed.runtime.local import LocalRuntime
from testbed.storage.tasklog import open_task_log
from testbed.testing.runtime import small_plan
from tests.edgenode.standing import a_node
from tests.services.ports import free_ports
from tests.services.prometheus import Prometheus

DASHBOARD = Path(__file__).parents[2] / "manifests" / "components" / "monitoring" / "dashboard.json"
NODES = 3


@dataclass(frozen=True)
class Scraped:
    """A run that a Prometheus has watched."""

    prometheus: Prometheus
    run: Progress
    link_bytes: dict[tuple[int, int], int]
    metrics: str


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    home = tmp_path_factory.mktemp("home")
    (port,) = free_ports(1)
    runtime = LocalRuntime(home, orphan_timeout_s=0.5, hosting=Hosting(metrics_port=port))
    with Prometheus(tmp_path_factory.mktemp("db"), {"bench": [f"127.0.0.1:{port}"]}) as prometheus:
        up = runtime.up(small_plan(NODES, slots=20), "bench")
        try:
            with OperatorClient(up.address, up.token, timeout=30.0) as operator:
                *_, last = operator.watch_run(operator.start_run(scheduler="random"))
            with open_task_log(up.store, create=False) as log:
                sent = [
                    row
                    for row in log.tasks(last.run)
                    if row.destination != row.source and row.execution_waiting is not None
                ]
            links: dict[tuple[int, int], int] = {}
            for row in sent:
                assert row.destination is not None
                link = (row.source, row.destination)
                links[link] = links.get(link, 0) + row.size_bytes
            # A scrape after the end of the run, when all is stored.
            over = f"sum({PREFIX}tasks_total) - 1e9 * sum({PREFIX}run_active)"
            prometheus.until(over, last.ended)
            yield Scraped(prometheus, last, links, _served(port))
        finally:
            runtime.down("bench")


@pytest.mark.prometheus
def test_tasks_and_their_times(scraped: Scraped) -> None:
    tasks = scraped.prometheus.query(f"{PREFIX}tasks_total")
    by_outcome = {dict(labels)["outcome"]: value for labels, value in tasks.items()}
    assert by_outcome == dict(scraped.run.outcomes)
    assert {dict(labels)["scheduler"] for labels in tasks} == {"random"}
    counted = scraped.prometheus.query(f"{PREFIX}task_duration_seconds_count")
    assert sum(counted.values()) == scraped.run.ended
    (longest,) = scraped.prometheus.query(
        f'sum({PREFIX}task_duration_seconds_bucket{{le="60.0"}})'
    ).values()
    assert longest == scraped.run.ended


@pytest.mark.prometheus
def test_links_nodes_and_the_task_log(scraped: Scraped) -> None:
    links = scraped.prometheus.query(f"{PREFIX}link_bytes_total")
    found = {
        (int(dict(labels)["source"]), int(dict(labels)["destination"])): value
        for labels, value in links.items()
    }
    assert found == scraped.link_bytes
    healthy = scraped.prometheus.query(f'{PREFIX}node_condition{{condition="healthy"}} == 1')
    assert len(healthy) == NODES
    assert len(scraped.prometheus.query(f"{PREFIX}node_heartbeat_age_seconds < 60")) == NODES
    assert len(scraped.prometheus.query(f"{PREFIX}node_queue_length")) == NODES
    (commits,) = scraped.prometheus.query(f"{PREFIX}store_commit_seconds_count").values()
    assert commits >= 1
    (rows,) = scraped.prometheus.query(f"{PREFIX}store_rows_total").values()
    assert rows > scraped.run.ended
    assert set(scraped.prometheus.targets().values()) == {"up"}


@pytest.fixture(scope="module")
def of_a_node(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a node serves that has no run."""
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("node")

    async def served() -> str:
        async with a_node(folder, "--metrics", f"127.0.0.1:{port}"):
            return await asyncio.to_thread(_served, port)

    return asyncio.run(served())


def _served(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_a_node_says_how_it_is(of_a_node: str) -> None:
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(of_a_node)
        for sample in family.samples
    }
    assert found[f"{PREFIX}local_queue_length"] == 0
    assert found[f"{PREFIX}local_spool_batches"] == 0
    assert found[f"{PREFIX}local_resident_bytes"] > 1e6
    assert found[f"{PREFIX}local_cpu_seconds_total"] > 0


@pytest.mark.prometheus
def test_every_panel_asks_for_what_is_there(scraped: Scraped, of_a_node: str) -> None:
    """Each query is one that Prometheus understands, about metrics that are served."""
    families = list(text_string_to_metric_families(scraped.metrics + of_a_node))
    names = {family.name for family in families} | {
        sample.name for family in families for sample in family.samples
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 20
    for query in queries:
        asked = set(re.findall(rf"{PREFIX}\w+", query))
        assert asked, query
        assert asked <= names, query
        scraped.prometheus.query(query.replace("$job", "bench"))


async def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PrerequisiteMissing, match=f"metrics cannot be served at {bind}"):
            MetricsServer(bind, list)
    with pytest.raises(PrerequisiteMissing, match="host:port"):
        MetricsServer("unix:/tmp/metrics", list)


async def test_what_is_served_is_collected_in_the_event_loop() -> None:
    loop = asyncio.get_running_loop()

    def collect() -> list[Metric]:
        assert asyncio.get_running_loop() is loop
        return [gauge("answer", "An answer", [(("a",), 42.0)], ("who",))]

    server = MetricsServer("127.0.0.1:0", collect)
    try:
        text = await asyncio.to_thread(_served, int(server.address.rpartition(":")[2]))
    finally:
        await asyncio.to_thread(server.close)
    assert 'edge_testbed_answer{who="a"} 42.0' in text
