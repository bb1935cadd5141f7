"""Questions and answers of runs of tasks, counted from their decisions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.experiment import metrics
from testbed.experiment.comparison import compare_summaries
from testbed.experiment.derived import DERIVED
from testbed.experiment.messages import Messages
from testbed.experiment.summary import RunSummary, summarise
from testbed.model.decision import Ask, Decision, Observation, Refuse, Scheduler, SchedulerContext
from testbed.model.per_destination import HEARD_NAME
from testbed.model.topology import Overload, OverloadMeasure
from testbed.model.units import SECOND
from testbed.policies import write_folder
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.load import load
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.scenario.resolve import plan
from testbed.schedulers import registry
from testbed.schedulers.asked import ANSWER_BYTES, QUESTION_BYTES, rule
from testbed.schedulers.catalogue import METHODS, TARGETS
from testbed.sim.play import UNTRAINED
from testbed.sim.record import record_run
from testbed.sim.simulator import SchedulerChoice
from testbed.storage.export import export
from testbed.storage.tasklog import RunInfo, TaskLog, open_task_log
from tests.faults.plans import fault, with_faults
from tests.policies import tiny
from trainer.per_destination.price import price_of_policy

N = 5
"""Nodes of the scenario ``quickstart``."""

ASKING = tuple(name for name in TARGETS if METHODS[name].kind == "scheduler")


class Noting:
    """A scheduler whose questions are noted: by node and task, peers for bits and for states."""

    def __init__(self, inner: Scheduler, node: int, asked: dict[tuple[int, int], Counter[bool]]):
        self.name = inner.name
        self._inner, self._node, self._asked = inner, node, asked

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        answer = self._inner.decide(observation)
        assert observation.task is not None
        noted = self._asked.setdefault((self._node, observation.task.id), Counter())
        if isinstance(answer, Ask):
            noted[answer.bits_only] += len(answer.peers)
        return answer


class AskOne:
    """A scheduler of nobody's catalogue: asks the next node, and its overload bit alone."""

    name = "ask-one"

    def __init__(self, context: SchedulerContext) -> None:
        self._node, self._size = context.node, context.topology.size

    def decide(self, observation: Observation) -> Decision | Ask:
        if observation.round == 0:
            return Ask(((self._node + 1) % self._size,), bits_only=True)
        return Decision(self._node)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path / "log.sqlite")) as opened:
        yield opened


def quickstart(*changes: str) -> Plan:
    return plan(load("quickstart", ["slots.count=20", *changes]))


def silenced() -> Plan:
    """Node 4 is away for most of an episode, and node 2 for some time from all others."""
    whole = quickstart()
    busy = Overload(OverloadMeasure.QUEUE_LENGTH, 1)
    whole = dataclasses.replace(whole, rules=dataclasses.replace(whole.rules, overload=busy))
    slot = whole.workload.slot
    return with_faults(
        whole,
        fault("node-down", 2 * slot, 14 * slot, nodes=(4,)),
        fault("partition", 8 * slot, 18 * slot, sources=(2,), destinations=(0, 1, 4)),
        fault("partition", 6 * slot, 18 * slot, sources=(0, 1, 2), destinations=(3,)),
    )


def named(scheduler: str) -> SchedulerChoice:
    return lambda context: registry.create(scheduler, context)


def recorded(log: TaskLog, given: Plan, scheduler: SchedulerChoice, episodes: int) -> RunSummary:
    return summarise(log, record_run(given, log, scheduler=scheduler, episodes=episodes))


def by_hand(
    log: TaskLog, run: RunSummary, asked: dict[tuple[int, int], Counter[bool]]
) -> dict[tuple[int, int, int], list[int]]:
    """What the windows should be: questions as noted, answers as the complete decisions say."""
    windows: dict[tuple[int, int, int], list[int]] = {}
    for decision in log.decisions(run.run.id):
        if decision.task_id is None:
            continue
        answers = decision.observation.answers
        questions = (
            Counter(answer.state is None for answer in answers)
            if decision.destination is None
            else asked[decision.node, decision.task_id]
        )
        if not questions.total():
            continue
        own = windows.setdefault((decision.episode, decision.node, decision.slot), [0] * 6)
        own[0] += questions.total()
        own[1] += questions[True] * QUESTION_BYTES.bits + questions[False] * QUESTION_BYTES.states
        for answer in answers:
            size = ANSWER_BYTES.bits if answer.state is None else ANSWER_BYTES.states
            peer = windows.setdefault((decision.episode, answer.peer, decision.slot), [0] * 6)
            for place, more in ((own, 2), (peer, 4)):
                place[more] += 1
                place[more + 1] += size
    return windows


@pytest.mark.parametrize("faults", [False, True], ids=["all-answer", "some-silent"])
@pytest.mark.parametrize("scheduler", ASKING)
def test_questions_are_those_that_the_scheduler_asked(
    scheduler: str, faults: bool, log: TaskLog
) -> None:
    asked: dict[tuple[int, int], Counter[bool]] = {}

    def noting(context: SchedulerContext) -> Scheduler:
        return Noting(registry.create(scheduler, context), context.node, asked)

    run = recorded(log, silenced() if faults else quickstart(), noting, 2)
    found = {each[:3]: list(each[3:]) for each in run.windows}

    assert found == by_hand(log, run, asked)
    assert list(found) == sorted(found)
    if faults and any(found.values()):
        assert any(each[0] and not each[2] for each in found.values())
    messages = run.messages
    assert messages is not None
    # Of those that ask there are questions without an answer exactly where faults were.
    assert (messages.questions > messages.answers) == (
        bool(messages.questions) and (faults or scheduler in {"rda", "rda-masked"})
    )
    assert messages.answers == sum(window.answered for window in run.windows)


def test_a_policy_asks_all_its_peers_for_the_same() -> None:
    assert {name for name in METHODS if METHODS[name].kind == "policy"} > {"drl", UNTRAINED}
    assert rule("drl:0a1b2c") is rule("drl") is rule(UNTRAINED) is rule("o2o")
    assert rule("somebody's own") is None


@pytest.mark.parametrize("probes", [1, 2, N - 1])
def test_the_messages_of_policies_that_ask_random_peers(
    probes: int, log: TaskLog, tmp_path: Path
) -> None:
    write_folder(tmp_path / "p", *tiny.per_destination(encoder=HEARD_NAME, asks={"probe": probes}))
    spec = SchedulerSpec("drl", {"policy": str(tmp_path / "p")})
    run = summarise(log, record_run(quickstart(), log, scheduler=spec, episodes=1))

    price = price_of_policy({"probe": probes}, N)
    assert run.messages is not None
    assert run.messages.count == price.messages * run.task_count
    assert run.messages.size == pytest.approx(price.bytes * run.task_count)


@pytest.mark.parametrize("bits", [True, False], ids=["bits", "state"])
@pytest.mark.parametrize("policy", ["untrained", "per-destination"])
def test_the_messages_of_policies(policy: str, bits: bool, log: TaskLog) -> None:
    run = recorded(log, quickstart(), policy_of(policy, bits), 1)

    expected = run.task_count * (N - 1)
    question = QUESTION_BYTES.bits if bits else QUESTION_BYTES.states
    answer = ANSWER_BYTES.bits if bits else ANSWER_BYTES.states
    assert run.messages == Messages(expected, expected * question, expected, expected * answer)


def policy_of(name: str, bits: bool) -> Callable[[SchedulerContext], Scheduler]:
    class AsksAll:
        """Asks as policies do, and needs none."""

        def __init__(self, context: SchedulerContext) -> None:
            self.name, self._node = name, context.node
            self._peers = tuple(i for i in range(N) if i != context.node)

        def decide(self, observation: Observation) -> Decision | Ask:
            if observation.round == 0:
                return Ask(self._peers, bits_only=bits)
            return Decision(self._node)

    return AsksAll


def test_of_other_schedulers_the_answers_tell(log: TaskLog) -> None:
    run = recorded(log, quickstart(), AskOne, 1)

    tasks = run.task_count
    sizes = (tasks * QUESTION_BYTES.bits, tasks, tasks * ANSWER_BYTES.bits)
    assert run.messages == Messages(tasks, *sizes)
    for window in run.windows:
        assert window.asked == window.heard <= 1


@pytest.mark.parametrize(("period", "rounds"), [("1 slot", 20), ("3 slots", 7), ("20 slots", 1)])
def test_the_states_that_nodes_tell_unasked(
    period: str, rounds: int, log: TaskLog, tmp_path: Path
) -> None:
    write_folder(tmp_path / "p", *tiny.per_destination(encoder=HEARD_NAME, asks={"gossip": period}))
    spec = SchedulerSpec("drl", {"policy": str(tmp_path / "p")})
    run = summarise(log, record_run(quickstart(), log, scheduler=spec, episodes=1))

    told = rounds * N * (N - 1)
    assert run.messages == Messages(0, 0, told, told * ANSWER_BYTES.unasked)
    assert sum(window.answered for window in run.windows) == told
    price = price_of_policy({"gossip": period}, N, quickstart())
    tasks = sum(quickstart().topology.arrival_probability) * 20
    assert price.messages == pytest.approx(told / tasks)
    assert price.bytes == pytest.approx(run.messages.size / tasks)


def test_sizes_are_those_of_messages_of_usual_values() -> None:
    question = pb.ProbeRequest(task_id=100_000, round=1, sender=10, episode=10)
    assert question.ByteSize() == QUESTION_BYTES.states
    question.bits_only = True
    assert question.ByteSize() == QUESTION_BYTES.bits
    answer = pb.ProbeReply(task_id=100_000, round=1, overloaded=True)
    assert answer.ByteSize() == ANSWER_BYTES.bits
    answer.state.CopyFrom(
        pb.PeerState(
            overloaded=True,
            queue_length=5,
            backlog=SECOND,
            inbound=5,
            at=100 * SECOND,
            inbound_work=SECOND,
        )
    )
    assert answer.ByteSize() == ANSWER_BYTES.states
    told = pb.TransferFrame(sender=10, episode=10, state=answer.state)
    assert told.ByteSize() == ANSWER_BYTES.unasked


def test_what_is_shown_of_a_run(log: TaskLog) -> None:
    run = recorded(log, quickstart(), named("ratc"), 3)
    document = run.document["messages"]
    messages = run.messages
    assert messages is not None
    assert messages.questions == document["questions"] > 0

    per_task = 2 * messages.questions / run.task_count
    assert document["per_task"] == per_task
    assert dict(run.facts(lambda metric, each: metric.shown(each)))["messages"].startswith(
        f"{per_task:.1f} per task, {messages.size / run.task_count:.0f} bytes per task; "
    )
    measured = run.measured(metrics.find("messages"))
    assert sum(measured.by_episode.values()) == messages.count
    sizes = run.measured(metrics.find("message-bytes"))
    assert sum(sizes.by_episode.values()) == messages.size
    one = run.only([1])
    assert {window.episode for window in one.windows} == {1}
    assert one.messages is not None
    assert one.messages.count == measured.by_episode[1]


def test_runs_are_compared_by_their_messages(log: TaskLog) -> None:
    runs = [
        recorded(log, quickstart(), named(name), 4)
        for name in ("least-completion", "ratc", "local")
    ]
    compared = compare_summaries(runs, metrics.find("messages"))

    assert [run.title for run in compared.runs] == ["local", "ratc", "least-completion"]
    local = compared.measured[compared.runs[0].run.id]
    assert (local.by_episode, local.without) == (dict.fromkeys(range(4), 0.0), ())


def test_without_decisions_nothing_is_known_of_messages(log: TaskLog) -> None:
    id = record_run(quickstart(), log, episodes=2, tasks_only=True)
    run = summarise(log, id)

    assert run.messages is None
    assert run.document["messages"] is None
    told = dict(run.facts(lambda metric, each: metric.shown(each)))["messages"]
    assert told == "unknown: the decisions are not logged"
    assert run.measured(metrics.find("messages")).without == (0, 1)


def test_an_export_says_why_messages_cannot_be_counted(log: TaskLog, tmp_path: Path) -> None:
    info = dataclasses.replace(RunInfo.of(quickstart(), "simulator"), plan="{}")
    log.begin_run(info)

    with pytest.raises(UsageError, match="its plan cannot be read") as raised:
        export(log, [info.id], tmp_path / "out", derived=DERIVED)
    assert "--table" in str(raised.value)
    assert not (tmp_path / "out").exists()
