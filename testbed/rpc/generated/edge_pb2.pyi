from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(_message.Message):
    __slots__ = ("id", "episode", "slot", "source", "size_bytes", "cycles", "deadline")
    ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CYCLES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    id: int
    episode: int
    slot: int
    source: int
    size_bytes: int
    cycles: int
    deadline: int
    def __init__(self, id: _Optional[int] = ..., episode: _Optional[int] = ..., slot: _Optional[int] = ..., source: _Optional[int] = ..., size_bytes: _Optional[int] = ..., cycles: _Optional[int] = ..., deadline: _Optional[int] = ...) -> None: ...

class PeerState(_message.Message):
    __slots__ = ("overloaded", "queue_length", "backlog", "inbound", "at", "inbound_work")
    OVERLOADED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    INBOUND_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    INBOUND_WORK_FIELD_NUMBER: _ClassVar[int]
    overloaded: bool
    queue_length: int
    backlog: int
    inbound: int
    at: int
    inbound_work: int
    def __init__(self, overloaded: _Optional[bool] = ..., queue_length: _Optional[int] = ..., backlog: _Optional[int] = ..., inbound: _Optional[int] = ..., at: _Optional[int] = ..., inbound_work: _Optional[int] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Arrivals(_message.Message):
    __slots__ = ("run", "episode", "number", "first", "until", "tasks")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    run: str
    episode: int
    number: int
    first: int
    until: int
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    def __init__(self, run: _Optional[str] = ..., episode: _Optional[int] = ..., number: _Optional[int] = ..., first: _Optional[int] = ..., until: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ...) -> None: ...

class ArrivalsTaken(_message.Message):
    __slots__ = ("number", "first", "next")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    first: int
    next: int
    def __init__(self, number: _Optional[int] = ..., first: _Optional[int] = ..., next: _Optional[int] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("task_id", "round", "bits_only", "sender", "episode")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BITS_ONLY_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    round: int
    bits_only: bool
    sender: int
    episode: int
    def __init__(self, task_id: _Optional[int] = ..., round: _Optional[int] = ..., bits_only: _Optional[bool] = ..., sender: _Optional[int] = ..., episode: _Optional[int] = ...) -> None: ...

class ProbeReply(_message.Message):
    __slots__ = ("task_id", "round", "overloaded", "state")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    OVERLOADED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    round: int
    overloaded: bool
    state: PeerState
    def __init__(self, task_id: _Optional[int] = ..., round: _Optional[int] = ..., overloaded: _Optional[bool] = ..., state: _Optional[_Union[PeerState, _Mapping]] = ...) -> None: ...

class Announce(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("task_id", "data")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    data: bytes
    def __init__(self, task_id: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Withdraw(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    def __init__(self, task_id: _Optional[int] = ...) -> None: ...

class HandOver(_message.Message):
    __slots__ = ("task", "elapsed", "seq", "payload_bytes")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    task: Task
    elapsed: int
    seq: int
    payload_bytes: int
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., elapsed: _Optional[int] = ..., seq: _Optional[int] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class TransferFrame(_message.Message):
    __slots__ = ("sender", "episode", "announce", "chunk", "withdraw", "hand_over", "state")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    HAND_OVER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    sender: int
    episode: int
    announce: Announce
    chunk: Chunk
    withdraw: Withdraw
    hand_over: HandOver
    state: PeerState
    def __init__(self, sender: _Optional[int] = ..., episode: _Optional[int] = ..., announce: _Optional[_Union[Announce, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ..., hand_over: _Optional[_Union[HandOver, _Mapping]] = ..., state: _Optional[_Union[PeerState, _Mapping]] = ...) -> None: ...

class HandOverTaken(_message.Message):
    __slots__ = ("task_id", "accepted", "reason", "down")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DOWN_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    accepted: bool
    reason: str
    down: bool
    def __init__(self, task_id: _Optional[int] = ..., accepted: _Optional[bool] = ..., reason: _Optional[str] = ..., down: _Optional[bool] = ...) -> None: ...

class Said(_message.Message):
    __slots__ = ("sender", "run", "episode", "number", "content")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    sender: int
    run: str
    episode: int
    number: int
    content: bytes
    def __init__(self, sender: _Optional[int] = ..., run: _Optional[str] = ..., episode: _Optional[int] = ..., number: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class PeerFrames(_message.Message):
    __slots__ = ("probes", "reset", "frames")
    PROBES_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    probes: _containers.RepeatedCompositeFieldContainer[ProbeRequest]
    reset: bool
    frames: _containers.RepeatedCompositeFieldContainer[TransferFrame]
    def __init__(self, probes: _Optional[_Iterable[_Union[ProbeRequest, _Mapping]]] = ..., reset: _Optional[bool] = ..., frames: _Optional[_Iterable[_Union[TransferFrame, _Mapping]]] = ...) -> None: ...

class PeerReplies(_message.Message):
    __slots__ = ("probes", "taken")
    PROBES_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    probes: _containers.RepeatedCompositeFieldContainer[ProbeReply]
    taken: _containers.RepeatedCompositeFieldContainer[HandOverTaken]
    def __init__(self, probes: _Optional[_Iterable[_Union[ProbeReply, _Mapping]]] = ..., taken: _Optional[_Iterable[_Union[HandOverTaken, _Mapping]]] = ...) -> None: ...

class PeerAddress(_message.Message):
    __slots__ = ("node", "address", "trunk", "http")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TRUNK_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    node: int
    address: str
    trunk: str
    http: str
    def __init__(self, node: _Optional[int] = ..., address: _Optional[str] = ..., trunk: _Optional[str] = ..., http: _Optional[str] = ...) -> None: ...

class ConfigureRequest(_message.Message):
    __slots__ = ("run", "plan_json", "peers", "scheduler", "options_json", "standby", "http_tokens")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    HTTP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    run: str
    plan_json: str
    peers: _containers.RepeatedCompositeFieldContainer[PeerAddress]
    scheduler: str
    options_json: str
    standby: bool
    http_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., plan_json: _Optional[str] = ..., peers: _Optional[_Iterable[_Union[PeerAddress, _Mapping]]] = ..., scheduler: _Optional[str] = ..., options_json: _Optional[str] = ..., standby: _Optional[bool] = ..., http_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class ConfigureReply(_message.Message):
    __slots__ = ("scheduler",)
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    def __init__(self, scheduler: _Optional[str] = ...) -> None: ...

class PrepareEpisodeRequest(_message.Message):
    __slots__ = ("run", "episode", "faults", "arrivals")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    run: str
    episode: int
    faults: _containers.RepeatedScalarFieldContainer[bytes]
    arrivals: Arrivals
    def __init__(self, run: _Optional[str] = ..., episode: _Optional[int] = ..., faults: _Optional[_Iterable[bytes]] = ..., arrivals: _Optional[_Union[Arrivals, _Mapping]] = ...) -> None: ...

class StartEpisodeRequest(_message.Message):
    __slots__ = ("run", "episode", "clock", "start_at", "start_in")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    START_AT_FIELD_NUMBER: _ClassVar[int]
    START_IN_FIELD_NUMBER: _ClassVar[int]
    run: str
    episode: int
    clock: str
    start_at: int
    start_in: int
    def __init__(self, run: _Optional[str] = ..., episode: _Optional[int] = ..., clock: _Optional[str] = ..., start_at: _Optional[int] = ..., start_in: _Optional[int] = ...) -> None: ...

class SetFaultsRequest(_message.Message):
    __slots__ = ("run", "episode", "faults")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    episode: int
    faults: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, run: _Optional[str] = ..., episode: _Optional[int] = ..., faults: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EndEpisodeRequest(_message.Message):
    __slots__ = ("run", "episode")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    run: str
    episode: int
    def __init__(self, run: _Optional[str] = ..., episode: _Optional[int] = ...) -> None: ...

class EndEpisodeReply(_message.Message):
    __slots__ = ("last_batch", "unfinished")
    LAST_BATCH_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    last_batch: int
    unfinished: int
    def __init__(self, last_batch: _Optional[int] = ..., unfinished: _Optional[int] = ...) -> None: ...

class SetSchedulerRequest(_message.Message):
    __slots__ = ("scheduler", "options_json")
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    options_json: str
    def __init__(self, scheduler: _Optional[str] = ..., options_json: _Optional[str] = ...) -> None: ...

class SetSchedulerReply(_message.Message):
    __slots__ = ("accepted", "scheduler", "reason")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    scheduler: str
    reason: str
    def __init__(self, accepted: _Optional[bool] = ..., scheduler: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PreparePolicyRequest(_message.Message):
    __slots__ = ("deployment", "key", "sha256", "size_bytes", "store")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    key: str
    sha256: str
    size_bytes: int
    store: str
    def __init__(self, deployment: _Optional[str] = ..., key: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., store: _Optional[str] = ...) -> None: ...

class PreparePolicyReply(_message.Message):
    __slots__ = ("accepted", "reason")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    reason: str
    def __init__(self, accepted: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class PreparedPolicy(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    def __init__(self, deployment: _Optional[str] = ...) -> None: ...

class CommitPolicyReply(_message.Message):
    __slots__ = ("accepted", "scheduler", "reason")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    scheduler: str
    reason: str
    def __init__(self, accepted: _Optional[bool] = ..., scheduler: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class NodeDescription(_message.Message):
    __slots__ = ("node", "address", "pid", "version", "run", "episode", "scheduler", "queue_length", "backlog", "receiving", "sending", "resident_bytes", "unacknowledged", "held", "process", "http", "open_requests")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    RECEIVING_FIELD_NUMBER: _ClassVar[int]
    SENDING_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    node: int
    address: str
    pid: int
    version: str
    run: str
    episode: int
    scheduler: str
    queue_length: int
    backlog: int
    receiving: _containers.RepeatedScalarFieldContainer[int]
    sending: _containers.RepeatedScalarFieldContainer[int]
    resident_bytes: int
    unacknowledged: int
    held: int
    process: str
    http: str
    open_requests: int
    def __init__(self, node: _Optional[int] = ..., address: _Optional[str] = ..., pid: _Optional[int] = ..., version: _Optional[str] = ..., run: _Optional[str] = ..., episode: _Optional[int] = ..., scheduler: _Optional[str] = ..., queue_length: _Optional[int] = ..., backlog: _Optional[int] = ..., receiving: _Optional[_Iterable[int]] = ..., sending: _Optional[_Iterable[int]] = ..., resident_bytes: _Optional[int] = ..., unacknowledged: _Optional[int] = ..., held: _Optional[int] = ..., process: _Optional[str] = ..., http: _Optional[str] = ..., open_requests: _Optional[int] = ...) -> None: ...

class RouterFailure(_message.Message):
    __slots__ = ("node", "reason")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    node: int
    reason: str
    def __init__(self, node: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class EventBatch(_message.Message):
    __slots__ = ("run", "number", "records", "decisions", "faults", "requests", "windows", "ticks", "failures")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    run: str
    number: int
    records: _containers.RepeatedScalarFieldContainer[bytes]
    decisions: _containers.RepeatedScalarFieldContainer[bytes]
    faults: _containers.RepeatedScalarFieldContainer[bytes]
    requests: _containers.RepeatedScalarFieldContainer[bytes]
    windows: _containers.RepeatedScalarFieldContainer[bytes]
    ticks: _containers.RepeatedScalarFieldContainer[int]
    failures: _containers.RepeatedCompositeFieldContainer[RouterFailure]
    def __init__(self, run: _Optional[str] = ..., number: _Optional[int] = ..., records: _Optional[_Iterable[bytes]] = ..., decisions: _Optional[_Iterable[bytes]] = ..., faults: _Optional[_Iterable[bytes]] = ..., requests: _Optional[_Iterable[bytes]] = ..., windows: _Optional[_Iterable[bytes]] = ..., ticks: _Optional[_Iterable[int]] = ..., failures: _Optional[_Iterable[_Union[RouterFailure, _Mapping]]] = ...) -> None: ...

class BatchAck(_message.Message):
    __slots__ = ("run", "number")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    run: str
    number: int
    def __init__(self, run: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("node", "address", "pid", "version", "session", "process", "trunk", "nodes", "log", "http", "http_key")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    TRUNK_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    HTTP_KEY_FIELD_NUMBER: _ClassVar[int]
    node: int
    address: str
    pid: int
    version: str
    session: str
    process: str
    trunk: str
    nodes: int
    log: int
    http: str
    http_key: str
    def __init__(self, node: _Optional[int] = ..., address: _Optional[str] = ..., pid: _Optional[int] = ..., version: _Optional[str] = ..., session: _Optional[str] = ..., process: _Optional[str] = ..., trunk: _Optional[str] = ..., nodes: _Optional[int] = ..., log: _Optional[int] = ..., http: _Optional[str] = ..., http_key: _Optional[str] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("testbed", "heartbeat_interval")
    TESTBED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    testbed: str
    heartbeat_interval: int
    def __init__(self, testbed: _Optional[str] = ..., heartbeat_interval: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("node", "resident_bytes", "lag", "cpu", "session")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    node: int
    resident_bytes: int
    lag: int
    cpu: int
    session: str
    def __init__(self, node: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., lag: _Optional[int] = ..., cpu: _Optional[int] = ..., session: _Optional[str] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class PlanReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class LiveRequest(_message.Message):
    __slots__ = ("run", "episodes")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    run: str
    episodes: int
    def __init__(self, run: _Optional[str] = ..., episodes: _Optional[int] = ...) -> None: ...

class LiveReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("scheduler", "episodes", "first_episode", "options_json", "label", "faults", "time_scale")
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    FIRST_EPISODE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    TIME_SCALE_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    episodes: int
    first_episode: int
    options_json: str
    label: str
    faults: _containers.RepeatedCompositeFieldContainer[EpisodeFaults]
    time_scale: float
    def __init__(self, scheduler: _Optional[str] = ..., episodes: _Optional[int] = ..., first_episode: _Optional[int] = ..., options_json: _Optional[str] = ..., label: _Optional[str] = ..., faults: _Optional[_Iterable[_Union[EpisodeFaults, _Mapping]]] = ..., time_scale: _Optional[float] = ...) -> None: ...

class EpisodeFaults(_message.Message):
    __slots__ = ("episode", "faults")
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    episode: int
    faults: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, episode: _Optional[int] = ..., faults: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StartRunReply(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class RunProgress(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class ChangeSchedulerRequest(_message.Message):
    __slots__ = ("scheduler", "nodes", "options_json")
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    nodes: _containers.RepeatedScalarFieldContainer[int]
    options_json: str
    def __init__(self, scheduler: _Optional[str] = ..., nodes: _Optional[_Iterable[int]] = ..., options_json: _Optional[str] = ...) -> None: ...

class ChangeSchedulerReply(_message.Message):
    __slots__ = ("replies", "nodes")
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[SetSchedulerReply]
    nodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, replies: _Optional[_Iterable[_Union[SetSchedulerReply, _Mapping]]] = ..., nodes: _Optional[_Iterable[int]] = ...) -> None: ...

class DeployPolicyRequest(_message.Message):
    __slots__ = ("policy", "nodes")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    policy: str
    nodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, policy: _Optional[str] = ..., nodes: _Optional[_Iterable[int]] = ...) -> None: ...

class DeployPolicyReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class InjectFaultRequest(_message.Message):
    __slots__ = ("fault_json",)
    FAULT_JSON_FIELD_NUMBER: _ClassVar[int]
    fault_json: str
    def __init__(self, fault_json: _Optional[str] = ...) -> None: ...

class FaultsReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...
