"""Conformance suite of runtimes (``testbed.runtime.base.Runtime``).

Subclass ``RuntimeContract`` under a name that ends in ``Tests`` and give it a ``runtime`` fixture.
The testbeds it makes are small, and it takes every one of them down.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND
from testbed.model.workload import Workload
from testbed.rpc.operator import OperatorClient
from testbed.runtime.base import CONTROLLER, Runtime, Testbed, node_process
from testbed.scenario.plan import Plan, SchedulerSpec, Seeds, identity

NAME = "contract"


def small_plan(nodes: int = 2, *, slots: int = 10, episodes: int = 1) -> Plan:
    """Return a network in which every slot brings every node a task of 20 ms; nothing fails."""
    topology = Topology(
        cores=(4,) * nodes,
        capacity_hz=(10**9,) * nodes,
        arrival_probability=(1.0,) * nodes,
        execution_failure_rate=(0.0,) * nodes,
        link_rate=tuple(tuple(0 if i == j else 10**7 for j in range(nodes)) for i in range(nodes)),
        link_failure_rate=((0.0,) * nodes,) * nodes,
    )
    workload = Workload(
        slots=slots,
        slot=50 * MILLISECOND,
        size_bytes=Constant(100_000),
        complexity=Constant(25.0),
        deadline=Constant(400 * MILLISECOND),
    )
    rules = Rules(overload=Overload(OverloadMeasure.QUEUE_LENGTH, 3))
    seeds = Seeds(topology=1, workload=2, faults=3, schedulers=4)
    return Plan(
        name="small",
        scenario_hash=identity(topology, workload, rules, seeds),
        topology=topology,
        workload=workload,
        rules=rules,
        seeds=seeds,
        scheduler=SchedulerSpec("local"),
        episodes=episodes,
    )


class RuntimeContract:
    """The tests; every one of them may use ``up``, which takes down what it brought up.

    ``comes_back``: a killed node is started again by itself. ``changes_what_is_up``: ``up`` of a
    name that is up is no clash.
    """

    comes_back = False
    changes_what_is_up = False

    @pytest.fixture
    def up(self, runtime: Runtime) -> Iterator[Testbed]:
        """A testbed of two nodes."""
        testbed = runtime.up(small_plan(), NAME)
        yield testbed
        runtime.down(NAME)

    def test_nothing_is_missing(self, runtime: Runtime) -> None:
        assert runtime.check() == ()

    def test_what_is_up_is_healthy_and_found_again(self, runtime: Runtime, up: Testbed) -> None:
        with OperatorClient(up.address, up.token) as operator:
            status = operator.status()
        assert status.testbed == NAME
        assert [node.condition for node in status.nodes] == ["healthy", "healthy"]
        assert runtime.find(NAME) == up
        assert NAME in runtime.names()

    def test_a_name_is_taken_once(self, runtime: Runtime, up: Testbed) -> None:
        if self.changes_what_is_up:
            assert runtime.up(small_plan(), NAME) == up
        else:
            with pytest.raises(UsageError, match="teardown --name contract"):
                runtime.up(small_plan(), NAME)
        assert runtime.find(NAME) == up, "the one that was up is still up"

    def test_what_is_up_can_be_told_from_what_never_was(
        self, runtime: Runtime, up: Testbed
    ) -> None:
        assert runtime.was_up(NAME)
        assert not runtime.was_up("never-was")
        assert runtime.leftovers(NAME)
        assert runtime.own_log(NAME) in (None, up.store)

    def test_its_place_is_made_of_options_of_the_command(self, runtime: Runtime) -> None:
        assert set(runtime.place) <= {"context", "kubeconfig", "namespace"}
        assert not (runtime.on_this_machine and runtime.on_cluster)

    def test_one_that_is_up_is_not_idle(self, runtime: Runtime, up: Testbed) -> None:
        runtime.start_stopped()
        assert runtime.idle() == runtime.remove_idle() == ()
        assert NAME in runtime.names()

    def test_every_process_has_a_log(self, runtime: Runtime, up: Testbed) -> None:
        for process in (CONTROLLER, node_process(0), node_process(1)):
            lines = list(runtime.logs(NAME, process))
            assert lines
            assert list(runtime.logs(NAME, process, lines=1)) == lines[-1:]
        with pytest.raises(UsageError, match="controller"):
            list(runtime.logs(NAME, "node-7"))

    def test_down_ends_everything_and_may_be_repeated(self, runtime: Runtime) -> None:
        up = runtime.up(small_plan(), NAME)
        stopped = {each.name for each in runtime.down(NAME).stopped}
        assert stopped >= {CONTROLLER, node_process(0), node_process(1)}
        assert runtime.down(NAME).stopped == ()
        assert NAME not in runtime.names()
        assert runtime.leftovers(NAME) == ()
        assert runtime.own_log(NAME) is None
        with pytest.raises(UsageError, match="no such testbed"):
            runtime.find(up.name)

    def test_a_killed_node_is_noticed(self, runtime: Runtime, up: Testbed) -> None:
        assert runtime.kill(NAME, 1).name == node_process(1)
        if self.comes_back:
            return
        with pytest.raises(UsageError, match="node-1 is not running"):
            runtime.kill(NAME, 1)
        with (
            OperatorClient(up.address, up.token) as operator,
            pytest.raises(UsageError, match="node 1: is dead"),
        ):
            operator.start_run()

    def test_what_is_not_there(self, runtime: Runtime) -> None:
        assert runtime.down("never-was").stopped == ()
        with pytest.raises(UsageError, match="never-was"):
            runtime.find("never-was")
        with pytest.raises(UsageError, match="never-was"):
            runtime.kill("never-was", 0)

    @pytest.mark.parametrize("name", ["", "Upper", "-x", "x/y", "..", "x" * 41])
    def test_names_that_cannot_be(self, runtime: Runtime, name: str) -> None:
        with pytest.raises(UsageError, match="invalid name of a testbed"):
            runtime.up(small_plan(), name)
        with pytest.raises(UsageError, match="invalid name of a testbed"):
            runtime.down(name)
