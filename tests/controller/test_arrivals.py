"""Whatever is redrawn, stopped or lost on the way: what a node lets arrive is what is entered."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.arrivals import Supply
from testbed.model.faults import Fault, Timeline
from testbed.model.task import Task
from testbed.model.units import SECOND
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import Plan
from testbed.testing.runtime import small_plan

SLOTS = 12


class Told:
    """A node that knows its arrivals as ``edgenode.arrivals`` does, without a clock."""

    def __init__(self) -> None:
        self.next = self.until = 0
        self.tasks: dict[int, int] = {}
        self.arrived: set[int] = set()
        self._answer = pb.ArrivalsTaken()

    def take(self, told: pb.Arrivals) -> pb.ArrivalsTaken:
        if told.number != self._answer.number:
            assert told.number == self._answer.number + 1
            assert told.first <= self.until
            first = max(told.first, self.next)
            self.tasks = {slot: task for slot, task in self.tasks.items() if slot < first}
            self.tasks |= {task.slot: task.id for task in told.tasks if task.slot >= first}
            self.until = max(told.until, first)
            self._answer = pb.ArrivalsTaken(number=told.number, first=first, next=self.next)
        return self._answer

    def begin(self) -> None:
        if self.next < self.until:
            task = self.tasks.pop(self.next, None)
            self.next += 1
            if task is not None:
                self.arrived.add(task)


def half() -> Plan:
    """Two nodes; in about half of the slots a task arrives at each."""
    plan = small_plan(2, slots=SLOTS)
    return replace(plan, topology=replace(plan.topology, arrival_probability=(0.5, 0.5)))


def supply(plan: Plan, entered: list[Task], window: int = 4) -> Supply:
    made = Supply(plan, 0, None, [0, 1], run="r", window=window, enter=entered.append)
    made.draw(window)
    return made


FACTORS = st.sampled_from([0.0, 0.5, 1.0, 2.0])
STEPS = st.one_of(
    st.sampled_from(["begin", "node", "node", "tell", "lose"]).map(lambda what: (what, 0.0)),
    FACTORS.map(lambda factor: ("redraw", factor)),
)


@given(st.lists(STEPS, max_size=60), st.booleans(), st.booleans(), st.integers(1, SLOTS), st.data())
def test_what_arrives_is_what_is_entered(
    steps: list[tuple[str, float]], stops: bool, answers: bool, window: int, data: st.DataObject
) -> None:
    entered: list[Task] = []
    arrivals, node = supply(half(), entered, window), Told()
    other = Told()

    def tell(*, lose: bool = False) -> bool:
        message = arrivals.message(0)
        if message is None:
            return False
        answer = node.take(message)
        if not lose:
            arrivals.answered(0, answer)
        return True

    for what, factor in steps:
        if what == "begin":
            arrivals.draw(arrivals.begun + window)
            arrivals.begin(arrivals.begun + 1)
        elif what == "node":
            # Its clock may be ahead of the controller's, or behind it.
            node.begin()
        elif what == "redraw":
            fault = Fault("arrivals", 0, 3600 * SECOND, nodes=(0,), factor=factor)
            arrivals.redraw(Timeline([fault], 2))
        else:
            tell(lose=what == "lose")
    if stops:
        arrivals.stop()
    else:
        while arrivals.begun < SLOTS:
            arrivals.draw(arrivals.begun + window)
            arrivals.begin(arrivals.begun + 1)
    if answers:
        # A message after a redraw or a stop, and at most a few windows of slots.
        for _ in range(4 * SLOTS):
            node.begin()
            tell()
            while (message := arrivals.message(1)) is not None:
                arrivals.answered(1, other.take(message))
                other.begin()
        while node.next < node.until:
            node.begin()
        assert arrivals.settled
    arrivals.close([0, 1] if answers else [])
    own = [task.id for task in entered if task.source == 0]
    assert len(own) == len(set(own)), "each once"
    assert own == sorted(own)
    if answers:
        assert set(own) == node.arrived
    else:
        assert node.arrived <= set(own)
        while node.next < node.until:
            node.begin()
        assert node.arrived <= set(own), "also what it may still let arrive"


@given(st.integers(0, SLOTS), st.integers(0, SLOTS))
def test_a_node_that_leaves_gets_all_its_tasks_entered(begun: int, there: int) -> None:
    entered: list[Task] = []
    plan = half()
    arrivals, node = supply(plan, entered), Told()
    for slot in range(SLOTS):
        if slot == begun:
            arrivals.leave(0)
        if slot < there and (message := arrivals.message(0)) is not None:
            arrivals.answered(0, node.take(message))
        arrivals.draw(slot + 4)
        arrivals.begin(slot + 1)
    arrivals.close([1])
    assert {task.id for task in entered} == {task.id for tasks in plan.tasks(0) for task in tasks}
    assert len(entered) == len({task.id for task in entered})


def test_what_is_kept_is_a_few_windows() -> None:
    plan = small_plan(2, slots=20_000)
    arrivals, nodes = supply(plan, [], window=10), [Told(), Told()]
    for slot in range(10_000):
        arrivals.draw(slot + 10)
        arrivals.begin(slot + 1)
        for index, node in enumerate(nodes):
            if (message := arrivals.message(index)) is not None:
                arrivals.answered(index, node.take(message))
            node.begin()
        assert len(arrivals._slots) <= 40
