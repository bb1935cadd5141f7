"""The operator's view of a testbed, and the client that fetches it.

``Status`` and ``Progress`` travel as JSON documents, so that commands can print them unchanged.
Every call has a deadline. Errors of the wire come out as the toolkit's own: what the controller
refuses is a ``UsageError``, a controller that does not answer is a ``TemporaryError``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

import grpc
import msgspec

from testbed.errors import PermanentError, TemporaryError, UsageError
from testbed.model.certificate import TermSoFar
from testbed.model.faults import Fault
from testbed.model.run_state import RunState
from testbed.model.units import Micros
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import of_operator
from testbed.rpc.failures import received
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER
from testbed.scenario.plan import SUCCESS_RATE, PlanHead, load

NODES_SERVICE: Final = "edge_testbed.nodes"
"""Name under which the controller's health service tells whether all nodes are healthy."""

STOP_TIMEOUT_S: Final = 120.0
"""Seconds that a run may take to end in order: its last tasks may run to their deadlines."""

NodeCondition: TypeAlias = Literal["starting", "healthy", "suspect", "unreachable", "dead"]
"""``suspect``: not heard for a while and being asked; ``unreachable``: does not answer, although it
may live; ``dead``: its process has ended."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node. ``reason`` says why it is not healthy; what it did not tell is None.

    ``backlog`` is emulated microseconds, ``lag`` (worst timer lateness since the last beat) real
    ones, ``cpu`` the processor time used since its start. ``http`` is where it takes requests of
    users, as host:port; None where there are none.
    """

    node: int
    condition: NodeCondition
    reason: str = ""
    address: str | None = None
    pid: int | None = None
    version: str | None = None
    scheduler: str | None = None
    queue_length: int | None = None
    backlog: Micros | None = None
    held: int | None = None
    unacknowledged: int | None = None
    resident_bytes: int | None = None
    lag: Micros | None = None
    cpu: Micros | None = None
    http: str | None = None


@dataclass(frozen=True, slots=True)
class SchedulerChange:
    """A change of scheduler during a run: who acknowledged it, and why it was refused if it was."""

    episode: int
    slot: int
    scheduler: str
    nodes: tuple[int, ...]
    accepted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run.

    ``episode`` is the number of the current one (from ``first_episode``), ``completed`` how many
    are over. ``outcomes`` counts ended tasks by outcome, ``completed_outcomes`` only those of the
    episodes that are over; ``success_rate`` is the share of the ended ones that succeeded.
    ``queue_lengths`` has one entry per node as last logged, None if unknown. ``dead_nodes`` are out
    of the run now, for whatever cause; ``absences`` says of each that was out at any time when and
    what was seen, a line each. ``degraded`` says that nodes were out or tasks were lost. ``reason``
    says why the run failed, or why an episode ran into its bound. ``valid`` is the verdict of the
    fidelity certificate, None while running. ``code_failures`` says at how many tasks a
    user's own scheduler or application failed, and why at the first.

    ``work`` names what ``generated`` and ``outcomes`` count: tasks, or requests of a serving run;
    ``success`` is the outcome of what went well, ``objective`` names the metric that the run is
    scored by. ``latency_p50`` and
    ``latency_p99`` are times until those that were served were answered, as their client saw them,
    in emulated microseconds and at most 7 % too high; None of other runs, and before the first
    answer. ``seconds_left`` are the real seconds in which requests will be sent.
    """

    run: str
    state: RunState
    scheduler: str
    first_episode: int
    episodes: int
    episode: int
    completed: int
    slot: int
    slots: int
    generated: int
    outcomes: Mapping[str, int]
    completed_outcomes: Mapping[str, int]
    queue_lengths: tuple[int | None, ...]
    dead_nodes: tuple[int, ...] = ()
    degraded: bool = False
    reason: str = ""
    valid: bool | None = None
    invalid_because: tuple[str, ...] = ()
    code_failures: tuple[str, ...] = ()
    absences: tuple[str, ...] = ()
    latency_p50: Micros | None = None
    latency_p99: Micros | None = None
    seconds_left: float | None = None
    work: str = "tasks"
    success: str = "succeeded"
    objective: str = SUCCESS_RATE

    @property
    def ended(self) -> int:
        """How much work has ended."""
        return sum(self.outcomes.values())

    @property
    def lost(self) -> int:
        """How much of it ended as lost."""
        return self.outcomes.get("lost", 0)

    @property
    def success_rate(self) -> float | None:
        """Succeeded / ended so far; None before anything has ended."""
        return self.outcomes.get(self.success, 0) / self.ended if self.ended else None

    def to_json(self) -> str:
        """Return one JSON object, with ``ended``, ``lost`` and ``success_rate`` worked out."""
        derived = {"ended": self.ended, "lost": self.lost, "success_rate": self.success_rate}
        return json.dumps({**asdict(self), **derived})

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Inverse of ``to_json``."""
        return cls.from_document(json.loads(text))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Progress:
        """Return the progress of a parsed JSON object; unknown keys are left out."""
        values = _known(cls, document)
        for name in (
            "queue_lengths",
            "dead_nodes",
            "invalid_because",
            "code_failures",
            "absences",
        ):
            values[name] = tuple(values.get(name, ()))
        values["state"] = RunState(values["state"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run of this controller: how far it is, and the scheduler changes made while it ran.

    ``faults`` names in words those of the scenario and by hand that have begun.
    """

    progress: Progress
    label: str = ""
    changes: tuple[SchedulerChange, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """A testbed as its controller sees it. ``run`` is the current run, or else the last one.

    ``started`` is when the controller started, as ISO 8601 in UTC; ``store`` the URL of the task
    log without its password; ``policy`` the key of the policy deployed here, empty if none was;
    ``artifacts`` the URL of the store that nodes fetch policies from.
    """

    testbed: str
    version: str
    address: str
    pid: int
    started: str
    store: str
    scenario: str
    scenario_hash: str
    scheduler: str
    nodes: tuple[NodeStatus, ...]
    run: RunStatus | None = None
    runs: tuple[str, ...] = field(default=())
    policy: str = ""
    artifacts: str = ""

    @property
    def healthy(self) -> bool:
        """Whether all nodes are healthy."""
        return all(node.condition == "healthy" for node in self.nodes)

    def to_json(self) -> str:
        """Return one JSON object, with ``healthy`` worked out."""
        document = {**asdict(self), "healthy": self.healthy}
        if self.run is not None:
            document["run"]["progress"] = json.loads(self.run.progress.to_json())
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Status:
        """Inverse of ``to_json``."""
        values = _known(cls, json.loads(text))
        values["nodes"] = tuple(NodeStatus(**_known(NodeStatus, n)) for n in values["nodes"])
        values["runs"] = tuple(values["runs"])
        if (run := values["run"]) is not None:
            values["run"] = RunStatus(
                progress=Progress.from_document(run["progress"]),
                label=run["label"],
                changes=tuple(
                    SchedulerChange(**{**change, "nodes": tuple(change["nodes"])})
                    for change in run["changes"]
                ),
                faults=tuple(run.get("faults", ())),
            )
        return cls(**values)


NodePolicy: TypeAlias = Literal["deciding", "ready", "refused", "unchanged", "lost"]
"""Outcome of a deployment at a node: the policy decides there; it is loaded and another scheduler
decides; the node refused it or did not answer; it was loaded and dropped, because another node
refused; it was loaded, and the node did not answer when told to use it."""


@dataclass(frozen=True, slots=True)
class NodeDeployment:
    """A deploy at one node; ``scheduler`` is what decides there now, empty if it is not known."""

    node: int
    state: NodePolicy
    scheduler: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PolicyDeployment:
    """A policy brought to nodes. ``accepted``: all had loaded it, so all were told to use it.

    Not accepted, nothing has changed at any node. ``seconds`` is real time until the last answer.
    """

    policy: str
    key: str
    accepted: bool
    nodes: tuple[NodeDeployment, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every node has it."""
        return self.accepted and all(each.state in {"deciding", "ready"} for each in self.nodes)

    @property
    def failures(self) -> tuple[NodeDeployment, ...]:
        """The nodes that kept it from being complete."""
        return tuple(each for each in self.nodes if each.state in {"refused", "lost"})

    def to_json(self) -> str:
        """Return one JSON object, with ``complete`` worked out."""
        return json.dumps({**asdict(self), "complete": self.complete})

    @classmethod
    def from_json(cls, text: str) -> PolicyDeployment:
        """Inverse of ``to_json``."""
        values = _known(cls, json.loads(text))
        values["nodes"] = tuple(
            NodeDeployment(**_known(NodeDeployment, each)) for each in values["nodes"]
        )
        values["warnings"] = tuple(values["warnings"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class FaultStatus:
    """A fault of the present episode; instants are emulated microseconds since its beginning."""

    id: str
    kind: str
    what: str
    begin: Micros
    end: Micros
    state: Literal["to come", "active", "over"]
    by_hand: bool


@dataclass(frozen=True, slots=True)
class FaultList:
    """The faults of the run under way; ``run`` is empty if there is none.

    ``changed`` are the ids of those that the call injected or released.
    """

    run: str = ""
    episode: int = 0
    now: Micros = 0
    faults: tuple[FaultStatus, ...] = ()
    changed: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FaultList:
        """Inverse of ``to_json``."""
        values = _known(cls, json.loads(text))
        values["faults"] = tuple(
            FaultStatus(**_known(FaultStatus, each)) for each in values["faults"]
        )
        values["changed"] = tuple(values["changed"])
        return cls(**values)


class NodeNow(NamedTuple):
    """A node as its controller knows it without asking.

    ``load`` is the number of tasks in its execution queue at its last decision, or of requests that
    came to it in its last window; ``backlog`` (emulated microseconds) that of its last decision.
    None where that is not known. ``lag`` and ``cpu`` as in ``NodeStatus``.
    """

    condition: NodeCondition
    reason: str
    scheduler: str
    load: int | None
    backlog: Micros | None
    lag: Micros
    cpu: Micros
    resident_bytes: int


class LinkNow(NamedTuple):
    """Work that has gone over a link in the run, and its bytes (0 where none are counted)."""

    source: int
    destination: int
    work: int
    bytes: int


class EpisodeCount(NamedTuple):
    """Work of an episode that is over: how much has ended, and how much of it well."""

    episode: int
    ended: int
    good: int


class MachineNow(NamedTuple):
    """The controller's machine.

    ``busy`` are the seconds in which its processors worked, all of them together, and ``stalled``
    those in which something waited for one, both since it was started; None where nobody counts.
    """

    cpus: int
    load_average: float
    busy: float | None
    stalled: float | None


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a controller knows of its testbed at one instant; no node is asked for it.

    ``at`` are seconds on a clock of the controller. ``run`` is the current run, or else the last
    one; what follows is of that run. ``episodes`` are those that the caller did not name.
    ``latencies`` are p50, p95 and p99 of the times of successful work, in emulated microseconds and
    at most 7 % too high.
    """

    at: float
    nodes: tuple[NodeNow, ...]
    machine: MachineNow
    policy: str = ""
    run: RunStatus | None = None
    links: tuple[LinkNow, ...] = ()
    latencies: tuple[Micros, Micros, Micros] | None = None
    fidelity: tuple[TermSoFar, ...] = ()
    episodes: tuple[EpisodeCount, ...] = ()
    faults: FaultList = FaultList()

    def to_json(self) -> bytes:
        """Return one JSON object."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes) -> LiveState:
        """Inverse of ``to_json``. Raises: ValueError: this is something else."""
        try:
            return _LIVE.decode(text)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not the state of a testbed: {error}") from None


_LIVE: Final = msgspec.json.Decoder(LiveState)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One node's answer to a change of scheduler; ``scheduler`` is what decides there now."""

    node: int
    accepted: bool
    scheduler: str
    reason: str = ""


class OperatorClient:
    """Talks to the controller of one testbed; use it as a context manager.

    ``token`` proves the operator: a token, or the PEM of a certificate with its key. A token goes
    over a network only with ``plaintext``, for a controller that was started so.
    ``timeout`` is the deadline of each call in seconds, except of ``watch_run``, which lasts as
    long as the run.
    """

    def __init__(
        self, address: str, token: str, *, timeout: float = 10.0, plaintext: bool = False
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._channel = connect_blocking(
            address, of_operator(token, plaintext=plaintext), CONTROLLER
        )
        self._stub = pb_grpc.OperatorStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the client is of no use afterwards."""
        self._channel.close()

    def status(self) -> Status:
        """Return the testbed now; asks every node."""
        with self._errors():
            reply = self._stub.Status(pb.Empty(), timeout=self._timeout)
        return Status.from_json(reply.json)

    def plan(self) -> PlanHead:
        """Return the plan of the testbed: its network, and what all its runs have in common."""
        with self._errors():
            reply = self._stub.Plan(pb.Empty(), timeout=self._timeout)
        return load(reply.json)

    def live(self, run: str = "", episodes: int = 0) -> LiveState:
        """Return what the controller knows; cheap enough to be asked several times a second.

        Of ``run``, the first ``episodes`` that are over are left out.

        Raises: PermanentError: the controller is of another version.
        """
        request = pb.LiveRequest(run=run, episodes=episodes)
        with self._errors():
            reply = self._stub.Live(request, timeout=self._timeout)
        try:
            return LiveState.from_json(reply.json)
        except ValueError as error:
            raise PermanentError(f"the controller at {self._address}: {error}") from None

    def start_run(
        self,
        *,
        scheduler: str = "",
        options: Mapping[str, Any] | None = None,
        episodes: int = 0,
        first_episode: int = 0,
        label: str = "",
        faults: Mapping[int, Sequence[Fault]] | None = None,
        time_scale: float = 0.0,
    ) -> str:
        """Start a run and return its id; empty ``scheduler`` and 0 ``episodes``: the scenario's.

        Runs that start at the same ``first_episode`` share arrivals and fates. ``faults``, by
        episode, are met beside those of the scenario; their instants are those of the episode.
        ``time_scale`` is in real seconds per emulated second, 0 for the scenario's.
        Raises: UsageError: unknown scheduler, another run is active, a node is not healthy, or a
        fault cannot be had in this network.
        """
        request = pb.StartRunRequest(
            scheduler=scheduler,
            episodes=episodes,
            first_episode=first_episode,
            options_json=json.dumps(options) if options else "",
            label=label,
            time_scale=time_scale,
            faults=[
                pb.EpisodeFaults(
                    episode=episode,
                    faults=[json.dumps(fault.to_document()).encode() for fault in given],
                )
                for episode, given in (faults or {}).items()
            ],
        )
        with self._errors():
            # Longer than a call: every node loads its scheduler before the run has begun.
            reply = self._stub.StartRun(request, timeout=60.0)
        return str(reply.run)

    def watch_run(self, run: str) -> Iterator[Progress]:
        """Progress of a run whenever it changes, at most about five a second, until it is over.

        The last one has the final state. Raises: UsageError: this controller has no such run.
        """
        with self._errors():
            call = self._stub.WatchRun(pb.WatchRunRequest(run=run))
            try:
                for message in call:
                    yield Progress.from_json(message.json)
            finally:
                call.cancel()

    def stop_run(self, run: str = "") -> None:
        """End a run cleanly (the current one if not named); returns when it is over.

        No-op if it is over already. Raises: UsageError: this controller has no such run.
        """
        with self._errors():
            self._stub.StopRun(pb.StopRunRequest(run=run), timeout=STOP_TIMEOUT_S)

    def change_scheduler(
        self,
        scheduler: str,
        *,
        nodes: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Acknowledgement, ...]:
        """Change the scheduler of ``nodes`` (all if empty) of the current run.

        All or nothing: when a node refuses, those that had accepted go back, and the answers say
        who refused and why. Raises: UsageError: no run is active, or there is no such node.
        """
        request = pb.ChangeSchedulerRequest(
            scheduler=scheduler,
            nodes=nodes,
            options_json=json.dumps(options) if options else "",
        )
        with self._errors():
            reply = self._stub.ChangeScheduler(request, timeout=30.0)
        return tuple(
            Acknowledgement(node, answer.accepted, answer.scheduler, answer.reason)
            for node, answer in zip(reply.nodes, reply.replies, strict=True)
        )

    def deploy_policy(self, policy: str, *, nodes: Sequence[int] = ()) -> PolicyDeployment:
        """Bring a policy of the testbed's artifact store to ``nodes`` (all living ones if empty).

        All or none, see ``PolicyDeployment``. Where ``drl`` decides, the policy does from then on;
        elsewhere it is loaded. A deploy to all is what runs under ``drl`` begin with from then on.

        Raises: UsageError: no such policy, it does not fit, no such node, or nodes are named and no
        run is active. PermanentError: the artifact is damaged.
        """
        request = pb.DeployPolicyRequest(policy=policy, nodes=nodes)
        with self._errors():
            reply = self._stub.DeployPolicy(request, timeout=60.0)
        return PolicyDeployment.from_json(reply.json)

    def roll_back_policy(self) -> PolicyDeployment:
        """Undo the last deploy that was accepted, by deploying what decided before it.

        Raises: UsageError: there was none.
        """
        with self._errors():
            reply = self._stub.RollBackPolicy(pb.Empty(), timeout=60.0)
        return PolicyDeployment.from_json(reply.json)

    def inject_fault(self, fault: Fault) -> FaultList:
        """Inject a fault into the run under way, at once; its ``end`` is how long it lasts.

        Raises: UsageError: no run is under way, or there are no such nodes. TemporaryError: a node
        did not answer; then the fault is nowhere.
        """
        request = pb.InjectFaultRequest(fault_json=json.dumps(fault.to_document()))
        with self._errors():
            reply = self._stub.InjectFault(request, timeout=30.0)
        return FaultList.from_json(reply.json)

    def clear_faults(self) -> FaultList:
        """Release all faults that were injected by hand.

        Raises: UsageError: no run is under way.
        """
        with self._errors():
            reply = self._stub.ClearFaults(pb.Empty(), timeout=30.0)
        return FaultList.from_json(reply.json)

    def list_faults(self) -> FaultList:
        """Return the faults of the present episode, those of the scenario included."""
        with self._errors():
            reply = self._stub.ListFaults(pb.Empty(), timeout=self._timeout)
        return FaultList.from_json(reply.json)

    def shutdown(self) -> None:
        """End the current run, if any, and the controller; its nodes then end by themselves."""
        with self._errors():
            self._stub.Shutdown(pb.Empty(), timeout=self._timeout)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            if (told := received(error)) is not None:
                raise told from None
            code, details = error.code(), error.details() or ""
            if code in _REFUSALS:
                raise UsageError(details) from None
            if code in _NOT_LET_IN:
                raise PermanentError(f"the controller at {self._address}: {details}") from None
            if code is grpc.StatusCode.ABORTED:
                raise TemporaryError(details) from None
            if code is grpc.StatusCode.DATA_LOSS:
                raise PermanentError(details) from None
            if code in _TEMPORARY:
                raise TemporaryError(
                    f"the controller at {self._address} does not answer ({code.name.lower()}); "
                    "see what is up: testbed status"
                ) from None
            raise PermanentError(
                f"the controller at {self._address} failed: {code.name} {details}"
            ) from None


_NOT_LET_IN: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
    }
)
_TEMPORARY: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)


def _known(cls: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``document`` that the dataclass ``cls`` has a field for."""
    return {each.name: document[each.name] for each in fields(cls) if each.name in document}
