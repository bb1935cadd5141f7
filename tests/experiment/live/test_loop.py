"""The loop of learning: budget, gate and rollback, plateau, and going on after an interruption."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from testbed.errors import PermanentError, UsageError
from testbed.experiment.live.curve import drawn
from testbed.experiment.live.loop import learn
from testbed.experiment.live.settings import FIRST_GATE_EPISODE, LiveConfig
from testbed.experiment.live.state import CURVE, STATE, LiveState, Point
from testbed.experiment.live.venue import Driver, Order, Step, Update
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of

PLAN: Final = plan_of(load("quickstart"))
SMALL: Final = LiveConfig(episodes=80, update=10, gate=8, look=4, patience=0)


@dataclass
class Network:
    """A network on which every policy has its own success rate; ``ratc`` has 0.9.

    It fails when ``fails_at`` runs are done, with the error given.
    """

    quality: dict[str, float] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    deployed: list[str | None] = field(default_factory=list)
    fails_at: int = 1_000
    error: BaseException = field(default_factory=KeyboardInterrupt)
    driver: Driver = "network"
    plan: Plan = PLAN

    def deploy(self, policy: str | None) -> None:
        if not self.deployed or self.deployed[-1] != policy:
            self.deployed.append(policy)

    def run(self, order: Order, tell: Callable[[int, str], None]) -> str:
        if len(self.orders) == self.fails_at:
            self.fails_at = 1_000
            raise self.error
        if order.policy is not None:
            assert self.deployed[-1] == order.policy, "it decides only where it was deployed"
        self.orders.append(order)
        tell(order.episodes, "over")
        return f"run-{len(self.orders)}"

    def rates(self, run: str) -> dict[int, float]:
        order = self.orders[int(run.removeprefix("run-")) - 1]
        quality = self.quality.get(order.policy or "ratc", 0.9)
        numbers = range(order.first, order.first + order.episodes)
        return {number: quality + 0.001 * (number * 7 % 5) for number in numbers}

    def episodes(self) -> int:
        return sum(order.episodes for order in self.orders)


@dataclass
class Learner:
    """Gives policy-1, policy-2, ..."""

    first: str | None = None
    updates: list[tuple[tuple[str, ...], str | None, int, float]] = field(default_factory=list)

    def start(self) -> str | None:
        return self.first

    def update(
        self, runs: Sequence[str], policy: str | None, number: int, learning_rate: float
    ) -> Update:
        self.updates.append((tuple(runs), policy, number, learning_rate))
        return Update(f"policy-{number}", {"decisions": 100, "learning_rate": learning_rate})


def learned(
    network: Network, learner: Learner, folder: Path, config: LiveConfig = SMALL
) -> LiveState:
    return learn(network, learner, config, folder, name="here")


def better(*qualities: float) -> dict[str, float]:
    return {f"policy-{index}": each for index, each in enumerate(qualities, 1)}


def test_it_learns_until_the_budget_is_used_up_and_leaves_the_best_deployed(
    tmp_path: Path,
) -> None:
    network, learner = Network(better(0.92, 0.94, 0.95, 0.93)), Learner()
    state = learned(network, learner, tmp_path / "learn")
    assert state.ended == "budget"
    assert state.spent == network.episodes() == 8 + 3 * 18 + 10 + 4 + 4
    assert [point.accepted for point in state.points] == [True, True, True, True, False]
    assert state.best.policy == "policy-3"
    assert network.deployed[-1] == "policy-3"
    # Every policy decided in the episodes that the next one was learned from.
    assert [policy for _, policy, _, _ in learner.updates] == [None, *better(1, 1, 1)]
    labels = {order.label for order in network.orders}
    assert {"learn here: gate 0", "learn here: update 1", "learn here: gate 4"} <= labels


def test_no_episode_of_the_gate_is_learned_from_and_no_episode_twice(tmp_path: Path) -> None:
    network = Network(better(0.92, 0.93, 0.94, 0.95))
    learned(network, Learner(), tmp_path)
    numbers: dict[str, list[int]] = {"gate": [], "update": []}
    for order in network.orders:
        kind = order.label.split()[2]
        numbers[kind] += range(order.first, order.first + order.episodes)
    assert set(numbers["gate"]) == set(range(FIRST_GATE_EPISODE, FIRST_GATE_EPISODE + 8))
    assert len(set(numbers["update"])) == len(numbers["update"])
    assert not set(numbers["gate"]) & set(numbers["update"])


def test_a_worse_policy_is_rolled_back_and_the_next_is_learned_from_all_rounds_since(
    tmp_path: Path,
) -> None:
    network, learner = Network(better(0.95, 0.5, 0.6, 0.97)), Learner()
    state = learned(network, learner, tmp_path)
    assert [point.accepted for point in state.points] == [True, True, False, False, True]
    # Refused after the first part: half of the gate.
    assert [len(point.rates) for point in state.points] == [8, 8, 4, 4, 8]
    assert network.deployed == [
        *(None, "policy-1", "policy-2", "policy-1", "policy-2", "policy-1"),
        *("policy-3", "policy-1", "policy-3", "policy-1", "policy-4"),
    ]
    runs, policies, _, rates = zip(*learner.updates, strict=True)
    assert policies == (None, "policy-1", "policy-1", "policy-1")
    assert [len(each) for each in runs] == [1, 1, 2, 3]
    assert rates == (0.003, 0.003, 0.0015, 0.00075)


def test_from_ratc_a_first_policy_that_is_worse_never_replaces_it(tmp_path: Path) -> None:
    network, learner = Network(better(0.5, 0.6, 0.7, 0.8)), Learner()
    state = learned(network, learner, tmp_path)
    assert state.best.policy == "ratc"
    assert network.deployed[-1] is None
    assert all(order.policy is None for order in network.orders if "update" in order.label)


def test_it_ends_where_nothing_gets_better(tmp_path: Path) -> None:
    network = Network(better(0.95, *[0.94] * 20))
    config = replace(SMALL, episodes=1_000, patience=3)
    state = learned(network, Learner("shipped/per-destination-v2"), tmp_path, config)
    assert (state.ended, len(state.points), state.best.number) == ("plateau", 5, 1)


@pytest.mark.parametrize("done", range(12))
def test_after_an_interruption_the_same_command_goes_on_with_the_same_result(
    tmp_path: Path, done: int
) -> None:
    quality = better(0.92, 0.5, 0.94, 0.95)
    whole = learned(Network(dict(quality)), Learner(), tmp_path / "whole")
    network = Network(dict(quality), fails_at=done)
    with pytest.raises(KeyboardInterrupt):
        learned(network, Learner(), tmp_path / "parts")
    if points := [p for p in _points(tmp_path / "parts") if p.accepted]:
        last = points[-1].policy
        now = network.deployed[-1] if network.deployed else None
        assert now == (None if last == "ratc" else last), "what is not accepted does not decide"
    state = learned(network, Learner(), tmp_path / "parts")
    assert network.episodes() == whole.spent, "no run was run again"
    assert [p.document() for p in state.points] == [p.document() for p in whole.points]
    assert network.deployed[-1] == "policy-4"


def test_a_failed_run_ends_it_and_it_goes_on_later(tmp_path: Path) -> None:
    network = Network(better(0.92), fails_at=2, error=PermanentError("the run failed"))
    with pytest.raises(PermanentError, match="the run failed"):
        learned(network, Learner(), tmp_path)
    assert learned(network, Learner(), tmp_path).ended == "budget"


def test_a_larger_budget_goes_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    network = Network(better(0.92, 0.93, 0.94, 0.95, 0.96))
    first = learned(network, Learner(), tmp_path)
    more = replace(SMALL, episodes=98)
    second = learned(network, Learner(), tmp_path, more)
    assert len(second.points) == len(first.points) + 1
    with pytest.raises(UsageError, match="with other settings") as refused:
        learned(network, Learner(), tmp_path, replace(SMALL, update=20))
    assert "--anew" in str(refused.value)
    again = learn(network, Learner(), replace(SMALL, update=20), tmp_path, name="x", resume=False)
    assert again.points[0].number == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(UsageError, match="is not empty"):
        learned(network, Learner(), other)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    learned(Network(better(0.92)), Learner(), tmp_path)
    (tmp_path / STATE).write_text("{")
    with pytest.raises(PermanentError, match=STATE):
        learned(Network(better(0.92)), Learner(), tmp_path)


def test_the_curve_has_a_row_for_every_policy_and_can_be_drawn(tmp_path: Path) -> None:
    state = learned(Network(better(0.92, 0.5, 0.94, 0.95)), Learner(), tmp_path)
    with (tmp_path / CURVE).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [
        *("start", "accepted", "rolled back", "accepted", "accepted")
    ]
    assert [row["best"] for row in rows] == ["0", "0", "0", "0", "1"]
    assert float(rows[1]["above_start"]) == pytest.approx(0.02)
    assert int(rows[-1]["episodes"]) == state.spent
    texts = [text.get_text() for text in drawn(state, "ratc").legends[0].get_texts()]
    assert set(texts) == {"accepted", "rolled back", "best, deployed", "ratc"}


def test_progress_counts_the_episodes_of_the_budget(tmp_path: Path) -> None:
    steps: list[Step] = []
    network = Network(better(0.92, 0.5, 0.94, 0.95))
    learn(network, Learner(), SMALL, tmp_path, name="here", say=steps.append)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert {step.total for step in steps} == {80}
    results = [step.message for step in steps if step.notable]
    assert len(results) == 5
    assert "rolled back after 4 episodes" in results[2]


def test_settings_that_make_no_sense_are_all_named() -> None:
    with pytest.raises(UsageError) as refused:
        LiveConfig(start="nothing", update=3, gate=1, shrink=0.0)  # type: ignore[arg-type]
    told = str(refused.value)
    assert all(f"learn.{name}" in told for name in ("start", "update", "gate", "shrink"))
    with pytest.raises(UsageError, match=r"learn\.episodes"):
        LiveConfig(episodes=55)


def _points(folder: Path) -> list[Point]:
    path = folder / STATE
    stored = json.loads(path.read_text())["points"] if path.exists() else []
    return [Point.of(each) for each in stored]
