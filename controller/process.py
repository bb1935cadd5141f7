"""The controller's process: everything made, connected, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from controller import recording as task_recording
from controller.claims import Claims
from controller.link import NodeLink
from controller.marker import RunMarker
from controller.registry import Node, Registry
from controller.run import AnyRun, Order
from controller.service import Operator
from controller.serving import recording as serving_recording
from controller.serving.standby import Standby
from controller.task_run import TaskRun
from controller.writer import LogWriter, Pending
from testbed.errors import PermanentError, TemporaryError, TestbedError
from testbed.files import write_atomically
from testbed.rpc.channels import REQUEST_LIMIT, listen, listen_for_probes, new_server
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.operator import NODES_SERVICE
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, PlanHead
from testbed.scenario.secrets import without_password
from testbed.storage.tasklog import TaskLog, open_task_log, utc_now
from testbed.version import __version__

if TYPE_CHECKING:
    from controller.metrics import ControllerMetrics

_log = structlog.get_logger("controller")

ADDRESS_FILE: Final = "controller.json"
"""In the run directory: ``{"address": ..., "pid": ...}`` while the controller serves."""

STORE_PAUSE_S: Final = 0.5
"""Between two attempts to open a task log whose server does not answer yet."""

CALLS: Final = 128
CALLS_PER_NODE: Final = 4
"""Calls that a controller serves at a time: operators and probes, and what a node asks."""

Failed: TypeAlias = Callable[[Exception], None]


class Between(Protocol):
    """Something that nodes do while there is no run."""

    @property
    def ready(self) -> bool:
        """Whether all healthy nodes do it, or are with a run."""
        ...

    def look(self) -> None:
        """See which nodes have come and gone."""
        ...

    async def pause(self) -> None:
        """Let a run have the nodes."""
        ...

    def resume(self) -> None:
        """Take the nodes back: the run is over, or did not begin."""
        ...

    async def close(self) -> None:
        """Ask nothing of nodes any more."""
        ...


class Family(NamedTuple):
    """Runs of one family of work; all of it takes the plan of that family.

    ``begin`` begins a run, given plan, order, registry, writer and marker. ``left_behind`` returns
    what is to be stored of a batch of a run that is over, given plan, batch, and what to call when
    it is stored and when it cannot be; it raises ValueError if the batch cannot be read.
    ``between`` has the nodes do something while there is no run, given plan, registry, and
    what to call when they do.
    """

    begin: Callable[..., Coroutine[Any, Any, AnyRun]]
    left_behind: Callable[[Any, pb.EventBatch, Callable[[], None], Failed], Pending]
    between: Callable[[Any, Registry, Callable[[], None]], Between] | None = None


async def _begin_serving(*of_run: Any) -> AnyRun:
    # Imported here: it needs an HTTP client, which runs of tasks do not.
    from controller.serving.run import ServingRun

    return await ServingRun.begin(*of_run)


RUNS: Final[ByModel[Family]] = ByModel(
    "the controller",
    {
        TASKS: Family(TaskRun.begin, task_recording.left_behind),
        SERVING: Family(_begin_serving, serving_recording.left_behind, Standby),
    },
)
"""Runs by the model of their plan."""

ENDING_S: Final = 20.0
"""Seconds that a change and a run under way may take, together, to end when the controller is
told to. On a quiet machine it is a fraction of a second. What is not over by then is entered as
stopped by whoever comes next."""

WRITER_S: Final = 3.0
"""Seconds that storing the rest may take after that."""


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Settings of a controller.

    ``bind`` is host:port, port 0 for one the system chooses, or unix:/path; ``me`` are the
    controller's credentials; ``probes`` is where the health service is open to anybody, nowhere if
    empty; ``metrics`` is where metrics are, as open, nowhere if empty. ``store`` is the URL of the
    task log, whose server may take ``store_patience_s`` seconds to answer. ``scenario`` is the text
    of the scenario file, if there was one. With ``keep_nodes``, nodes go on when this
    controller ends, and wait for the next one. ``claims`` is the folder for claims of runs, None
    for none.
    """

    plan: PlanHead
    name: str
    bind: str
    directory: Path
    store: str
    me: Credentials
    probes: str = ""
    metrics: str = ""
    scenario: str | None = None
    store_patience_s: float = 0.0
    keep_nodes: bool = False
    claims: Path | None = None


class Controller:
    """One testbed's controller; make it and ``serve``."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._ending = asyncio.Event()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._health_tasks: set[asyncio.Task[None]] = set()
        self._unstored: set[tuple[NodeLink, str]] = set()
        self._started = utc_now()
        self._address = ""
        plan = settings.plan
        self._registry = Registry(
            settings.name,
            plan.size,
            settings.me,
            on_events=self._take,
            changed=self._node_changed,
        )
        self._operator = Operator(
            plan,
            self._registry,
            settings.directory,
            begin=self._begin,
            describe=self._describe,
            shutdown=self._ending.set,
        )
        folder = settings.claims
        self._claims = None if folder is None else Claims(folder, settings.store)
        self._marker = RunMarker(settings.directory, settings.scenario, self._claims)
        self._writer: LogWriter
        self._between: Between | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until told to end; ``ready`` is called with the address when serving.

        Raises: PermanentError: the address is taken, or the task log cannot be used.
        TemporaryError: its server does not answer.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._ending.set)
        log = await self._open_log()
        if log is None:
            return
        try:
            try:
                if (settled := self._marker.settle(log)) is not None:
                    _log.warning("run left open", run=settled[0], state=settled[1].value)
                if self._claims is not None:
                    for run, state in self._claims.settle(log):
                        _log.warning("run left open", run=run, state=state.value)
            except TestbedError as error:
                _log.warning("the run left open is still open in the task log", problem=str(error))
            self._writer = LogWriter(log)
            server = new_server(
                self._settings.me,
                calls=CALLS + CALLS_PER_NODE * self._settings.plan.size,
                message_limit=REQUEST_LIMIT,
            )
            pb_grpc.add_RegistryServicer_to_server(self._registry, server)
            pb_grpc.add_OperatorServicer_to_server(self._operator, server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            self._address = _bind(server, self._settings)
            await self._health.set(NODES_SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
            await server.start()
            probes = await self._serve_probes()
            metrics = self._serve_metrics()
            await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
            address_file = self._settings.directory / ADDRESS_FILE
            write_atomically(
                address_file, json.dumps({"address": self._address, "pid": os.getpid()})
            )
            if (between := RUNS.of(self._settings.plan).between) is not None:
                self._between = between(self._settings.plan, self._registry, self._tell_health)
            ready(self._address)
            self._registry.pulse.start(self._registry.look)
            _log.info("serving", address=self._address, testbed=self._settings.name)
            await self._ending.wait()
            await self._end(server)
            if metrics is not None:
                metrics.close()
            if probes is not None:
                await probes.stop(0.1)
            address_file.unlink(missing_ok=True)
        finally:
            log.close()

    async def _serve_probes(self) -> grpc.aio.Server | None:
        """Open the health service to those who prove nothing, if that was asked for."""
        if not self._settings.probes:
            return None
        add = health_pb2_grpc.add_HealthServicer_to_server
        probes = listen_for_probes(lambda server: add(self._health, server), self._settings.probes)
        await probes.start()
        return probes

    def _serve_metrics(self) -> ControllerMetrics | None:
        """Open the metrics, if that was asked for."""
        bind = self._settings.metrics
        if not bind:
            return None
        # Loaded where it is used: few controllers are scraped.
        from controller.metrics import ControllerMetrics

        metrics = ControllerMetrics(
            bind,
            self._settings.plan,
            self._registry,
            self._writer,
            runs=self._operator.runs.values,
            policy=lambda: self._operator.policy,
        )
        _log.info("metrics", address=metrics.address)
        return metrics

    async def _open_log(self) -> TaskLog | None:
        """Open the task log once its server answers; return None if the controller ends first."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.store_patience_s
        told = False
        while not self._ending.is_set():
            try:
                return open_task_log(self._settings.store)
            except TemporaryError as error:
                if loop.time() >= until:
                    raise
                if not told:
                    _log.warning("waiting for the task log", problem=str(error))
                    told = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), STORE_PAUSE_S)
        return None

    async def _end(self, server: grpc.aio.Server) -> None:
        _log.info("ending")
        loop = asyncio.get_running_loop()
        until = loop.time() + ENDING_S
        self._stop_run()
        await self._operator.close(ENDING_S / 2)
        # A run may have begun meanwhile, because its start was under way.
        run = self._stop_run()
        if run is not None:
            try:
                await asyncio.wait_for(run.wait(), until - loop.time())
            except TimeoutError:
                _log.warning("run still ending", run=run.id)
        if (run is None or not run.active) and self._marker.exists:
            # The log may take now what it could not take before.
            with contextlib.suppress(TestbedError, TimeoutError):
                await asyncio.wait_for(self._writer.call(self._marker.settle), WRITER_S)
        if self._between is not None:
            await self._between.close()
        self._registry.end()
        if not self._settings.keep_nodes:
            links = [node.link for node in self._registry.nodes if node.link is not None]
            await asyncio.gather(*(link.shutdown() for link in links))
        await self._registry.close()
        await self._health.enter_graceful_shutdown()
        await server.stop(0.1)
        await self._writer.close(WRITER_S)

    def _stop_run(self) -> AnyRun | None:
        """Mark the run under way as stopped, even if it does not get the time; None if none."""
        run = self._operator.current
        if run is None or not run.active:
            return None
        self._marker.ending(run.id)
        run.stop(wait=False)
        return run

    async def _begin(self, order: Order) -> AnyRun:
        settings, between = self._settings, self._between
        if between is not None:
            await between.pause()
        try:
            run = await RUNS.of(settings.plan).begin(
                settings.plan, order, self._registry, self._writer, self._marker
            )
        except BaseException:
            if between is not None:
                between.resume()
            raise
        if between is not None:
            over = asyncio.get_running_loop().create_task(run.wait())
            self._waiting.add(over)
            over.add_done_callback(self._waiting.discard)
            over.add_done_callback(lambda _: between.resume())
        return run

    def _describe(self) -> dict[str, str | int]:
        return {
            "testbed": self._settings.name,
            "version": __version__,
            "address": self._address,
            "pid": os.getpid(),
            "started": self._started,
            "store": without_password(self._settings.store),
        }

    async def _take(self, link: NodeLink, batch: pb.EventBatch) -> None:
        await self._writer.room()
        run = self._operator.runs.get(batch.run)
        if run is not None and run.takes_batches:
            run.take(link, batch)
            return
        # What a node still has of a run that is over, for instance of an earlier controller's.
        if (link, batch.run) in self._unstored:
            return

        def stored() -> None:
            if (link, batch.run) not in self._unstored:
                link.acknowledge(batch.run, batch.number)

        def failed(error: Exception) -> None:
            self._leave(link, batch.run, str(error))

        plan = self._settings.plan
        try:
            self._writer.append(RUNS.of(plan).left_behind(plan, batch, stored, failed))
        except ValueError as error:
            failed(error)

    def _leave(self, link: NodeLink, run: str, problem: str) -> None:
        """Leave the rest of what a node has of a run where it is, for the next connection."""
        if (link, run) not in self._unstored:
            self._unstored.add((link, run))
            _log.warning("left with the node", node=link.node, run=run, problem=problem)

    def _node_changed(self, node: Node) -> None:
        run = self._operator.current
        if run is not None and run.active:
            run.node_changed(node)
        if self._between is not None:
            self._between.look()
        self._tell_health()

    def _tell_health(self) -> None:
        """Report to callers of the health service whether all nodes are ready."""
        state = health_pb2.HealthCheckResponse
        ready = self._registry.healthy and (self._between is None or self._between.ready)
        serving = state.SERVING if ready else state.NOT_SERVING
        telling = asyncio.get_running_loop().create_task(self._health.set(NODES_SERVICE, serving))
        self._health_tasks.add(telling)
        telling.add_done_callback(self._health_tasks.discard)


def _bind(server: grpc.aio.Server, settings: ControllerSettings) -> str:
    try:
        return str(listen(server, settings.bind, settings.me))
    except PermanentError as error:
        raise PermanentError(f"the controller {error}; choose another port, or 0 for any") from None
