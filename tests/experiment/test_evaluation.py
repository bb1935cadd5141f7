"""``policy evaluate``: the compiled engine gives the rates of the simulator, or gives way."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import onnx
import pytest

from testbed.errors import UsageError
from testbed.experiment.evaluation import POLICY, compare_policy
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.distributions import Constant
from testbed.policies import Policy, PolicyCard, shipped
from testbed.scenario.plan import Plan
from testbed.schedulers.catalogue import REFERENCES
from testbed.schedulers.drl import Drl
from testbed.sim.engine.policies import weights_of
from testbed.sim.play import player
from testbed.sim.simulator import Simulation
from tests.policies import tiny
from tests.sim.plans import DELAYS, OVERLOADS, random_plan

PLANS = [random_plan(60 + k, size=7, slots=25, overload=rule) for k, rule in enumerate(OVERLOADS)]
DELAYED = random_plan(63, size=7, slots=25, delay=DELAYS[2], queue_limit=1)
SILENT = random_plan(64, size=7, slots=25, delay=DELAYS[6])
LATE = random_plan(65, size=7, slots=25, delay=DELAYS[4])


def artifact(name: str) -> Policy:
    if name == "shipped":
        return shipped()
    card, actor = tiny.perceptron(7)
    return Policy(card, actor, "here")


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("name", "plan"),
    [
        *product(("shipped", "perceptron"), (*PLANS, DELAYED, SILENT)),
        # What acts slot by slot cannot decide after the next slot began.
        ("shipped", LATE),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_engine_gives_the_rates_of_the_simulator(
    plan: Plan, name: str, deterministic: bool
) -> None:
    policy = artifact(name)
    result = compare_policy(plan, policy, episodes=6, first_episode=2, deterministic=deterministic)
    assert not result.notes
    options = {"deterministic": deterministic}
    simulations = {
        POLICY: Simulation(plan, partial(Drl.of, policy=policy), options, keep=False),
        **{method: Simulation(plan, method, keep=False) for method in REFERENCES},
    }
    expected = {
        method: {number: each.episode(number).success_rate for number in range(2, 8)}
        for method, each in simulations.items()
    }
    assert result.by_episode == expected
    assert len(set(expected[POLICY].values())) > 1


def test_the_simulator_plays_what_the_engine_cannot_and_says_why() -> None:
    hasty = replace(PLANS[0], workload=replace(PLANS[0].workload, size_bytes=Constant(1)))
    heard: list[tuple[str, int]] = []
    result = compare_policy(
        hasty,
        shipped(),
        episodes=2,
        against=["ratc"],
        progress=lambda method, done: heard.append((method, done)),
    )
    simulation = Simulation(hasty, "ratc", keep=False)
    assert result.by_episode["ratc"] == {n: simulation.episode(n).success_rate for n in range(2)}
    (note,) = result.notes
    assert "plays policy, ratc: workload.size_bytes is transmission times of 0 us" in note
    assert heard == [("policy", 1), ("policy", 2), ("ratc", 1), ("ratc", 2)]
    (note,) = compare_policy(PLANS[0], shipped(), episodes=1, against=["drl", "oracle"]).notes
    assert "plays drl: the compiled engine does not have this scheduler" in note
    each = player(LATE, artifact("perceptron"))
    assert "answers 600000 us after a slot began" in each.simulated
    assert 0.0 < each.play([0])[0] <= 1.0


def test_in_an_equal_order_all_ask_before_any_decides() -> None:
    plan = PLANS[0]
    against = ["rda-masked", "local-or-reliable", "ratc", "central"]
    usual = compare_policy(plan, shipped(), episodes=3, against=against)
    equal = compare_policy(plan, shipped(), episodes=3, against=against, equal_order=True)
    same = ["policy", "ratc", "central"]
    assert {name: equal.by_episode[name] for name in same} == {
        name: usual.by_episode[name] for name in same
    }
    assert set(equal.by_episode) - set(same) == {
        "rda-masked (ask first)",
        "local-or-reliable (ask first)",
    }
    assert equal.by_episode["rda-masked (ask first)"] != usual.by_episode["rda-masked"]

    def bits(options: dict[str, object]) -> list[dict[int, set[bool]]]:
        """By slot, all that was heard of each node."""
        found: dict[int, dict[int, set[bool]]] = {}
        simulation = Simulation(plan, "rda-masked", options)
        for decision in simulation.episode(0).decisions:
            for answer in decision.observation.answers:
                if answer.state is None:
                    here = found.setdefault(decision.slot, {})
                    here.setdefault(answer.peer, set()).add(answer.overloaded)
        return list(found.values())

    asked_first = bits({"ask_first": True})
    assert len(asked_first) >= len(bits({}))
    assert all(len(heard) == 1 for slot in asked_first for heard in slot.values())


class Clumsy:
    """Fails at every task after the first."""

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "clumsy"
        self._node = context.node
        self._decided = False

    def decide(self, observation: Observation) -> Decision | Ask:
        if self._decided:
            raise RuntimeError("again?")
        self._decided = True
        return Decision(self._node)


def test_failures_of_a_users_scheduler_are_counted() -> None:
    each = player(PLANS[0], Clumsy)
    rates = each.play([0, 1])
    assert rates[1] == 0.0
    (line,) = each.failures.lines
    assert "the scheduler failed at" in line


def test_an_actor_that_states_other_weights_is_played_as_its_graph_says() -> None:
    model = onnx.load_from_string(shipped().actor)
    last = model.graph.initializer[-1]
    last.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(last), last.name))
    actor = model.SerializeToString()
    card = PolicyCard.describe(
        "other", actor, kind="per-destination", encoder=shipped().card.encoder, nodes=None
    )
    policy = Policy(card, actor, "here")
    assert "another network" in player(PLANS[0], policy).simulated
    with pytest.raises(UsageError, match="another network"):
        weights_of(policy)
