"""The learned policy as a scheduler."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from testbed.errors import PrerequisiteMissing, UsageError
from testbed.model.decision import (
    Decision,
    PeerState,
    Scheduler,
    SchedulerContext,
    SchedulerFactory,
)
from testbed.model.information import gossip_period
from testbed.model.per_destination import HEARD_NAME, STATE_NAME
from testbed.policies import artifact, save, write_folder
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.schedulers import registry
from testbed.schedulers.drl import pick
from testbed.sim.engine.arrays import pack
from testbed.sim.engine.features import WIDTH
from testbed.sim.engine.scoring import ScoringWeights, play_scoring
from testbed.sim.engine.threads import Threads
from testbed.sim.simulator import simulate_episode
from testbed.testing.runtime import small_plan
from testbed.testing.schedulers import (
    ANSWERING,
    Answering,
    MaskedSchedulerContract,
    SchedulerContract,
    decide,
    situation,
    situations,
)
from tests.policies import tiny


class PerDestinationPolicyTests(MaskedSchedulerContract):
    @pytest.fixture(params=[False, True], ids=["sampled", "deterministic"])
    def factory(self, request: pytest.FixtureRequest, tmp_path: Path) -> SchedulerFactory:
        write_folder(tmp_path, *tiny.per_destination())
        options = {"policy": str(tmp_path), "deterministic": request.param}
        return lambda context: registry.create("drl", context, options)


class StatePolicyTests(SchedulerContract):
    """A policy whose card asks for states."""

    @pytest.fixture
    def factory(self, tmp_path: Path) -> SchedulerFactory:
        write_folder(tmp_path, *tiny.per_destination(encoder=STATE_NAME, asks="state"))
        return lambda context: registry.create("drl", context, {"policy": str(tmp_path)})

    def test_it_asks_for_states_and_keeps_to_their_bits(
        self, factory: SchedulerFactory, answering: Answering
    ) -> None:
        asked = 0
        for where in situations():
            course = decide(factory(where.context), where, answering)
            own, answers = where.observation.node, course.observations[-1].answers
            if course.asks:
                (ask,) = course.asks
                assert not ask.bits_only
                assert len(ask.peers) == len(where.states) - 1
                asked += 1
            free = {answer.peer for answer in answers if not answer.overloaded}
            assert course.decision.mask == tuple(
                peer == own or peer in free for peer in range(len(where.states))
            )
        assert asked


class ProbingPolicyTests(SchedulerContract):
    """A policy whose card asks two random peers for their state, and the others for their bit."""

    @pytest.fixture
    def factory(self, tmp_path: Path) -> SchedulerFactory:
        made = tiny.per_destination(encoder=HEARD_NAME, asks={"probe": 2})
        write_folder(tmp_path, *made)
        return lambda context: registry.create("drl", context, {"policy": str(tmp_path)})

    def test_it_asks_two_for_states_and_keeps_to_the_bits_of_all(
        self, factory: SchedulerFactory, answering: Answering
    ) -> None:
        drawn = set()
        for where in situations():
            course = decide(factory(where.context), where, answering)
            own, answers = where.observation.node, course.observations[-1].answers
            if course.asks:
                (ask,) = course.asks
                assert len(ask.peers) == len(where.states) - 1
                assert len(ask.states_of) == min(2, len(ask.peers))
                told = {answer.peer for answer in answers if answer.state is not None}
                assert told <= set(ask.states_of)
                drawn.add(ask.states_of)
            free = {answer.peer for answer in answers if not answer.overloaded}
            assert course.decision.mask == tuple(
                peer == own or peer in free for peer in range(len(where.states))
            )
        assert len(drawn) > 2


def test_where_states_are_told_unasked_nobody_is_asked(tmp_path: Path) -> None:
    asks = {"gossip": "1 slot"}
    write_folder(tmp_path, *tiny.per_destination(own=-50.0, encoder=HEARD_NAME, asks=asks))
    where = situation(4, 0)
    scheduler = registry.create("drl", where.context, {"policy": str(tmp_path)})
    slot, delay = where.context.workload.slot, where.context.rules.control_delay
    assert gossip_period(scheduler) == slot

    def mask(known: tuple[tuple[PeerState, int] | None, ...], now: int) -> tuple[bool, ...] | None:
        observation = where.observation._replace(now=now, round=0, answers=(), known=known)
        answer = scheduler.decide(observation)
        assert isinstance(answer, Decision)
        return answer.mask

    own = where.observation.node
    nothing = (None,) * 4
    silence = 2 * (slot + delay)
    assert mask(nothing, silence) == (True,) * 4
    assert mask(nothing, silence + 1) == tuple(j == own for j in range(4))
    free, full = PeerState(False, 0, 0, 0, 0), PeerState(True, 9, 10**6, 0, 0)
    first, second, _ = (j for j in range(4) if j != own)
    heard = {first: (free, silence), second: (full, silence)}
    known_now = tuple(heard.get(j) for j in range(4))
    assert mask(known_now, 2 * silence) == tuple(j in (own, first) for j in range(4))
    assert mask(known_now, 2 * silence + 1) == tuple(j == own for j in range(4))


class FlatPolicyTests(MaskedSchedulerContract):
    """A flat policy fits one N, so there is one for each size of the suite."""

    @pytest.fixture
    def factory(self, tmp_path: Path) -> SchedulerFactory:
        def make(context: SchedulerContext) -> Scheduler:
            size = context.topology.size
            folder = tmp_path / str(size)
            if not folder.exists():
                write_folder(folder, *tiny.flat(size))
            return registry.create("drl", context, {"policy": str(folder)})

        return make


def with_policy(context: SchedulerContext, folder: Path, **options: object) -> Scheduler:
    return registry.create("drl", context, {"policy": str(folder), **options})


def test_its_name_names_the_policy(tmp_path: Path) -> None:
    card, actor = tiny.per_destination()
    key = save(str(tmp_path), card, actor)
    context = dataclasses.replace(situation(3, 0).context, artifacts=str(tmp_path))
    for reference in (key, card.id, card.id[:8]):
        scheduler = registry.create("drl", context, {"policy": reference})
        assert scheduler.name == f"drl:{card.id}"


def test_it_decides_by_the_policy_it_was_given(tmp_path: Path) -> None:
    write_folder(tmp_path / "stay", *tiny.per_destination(own=50.0))
    write_folder(tmp_path / "leave", *tiny.per_destination(own=-50.0))
    left = 0
    for where in situations():
        own = where.observation.node
        stay = decide(with_policy(where.context, tmp_path / "stay"), where, ANSWERING["all"])
        assert stay.decision.destination == own
        leave = decide(with_policy(where.context, tmp_path / "leave"), where, ANSWERING["all"])
        mask = leave.decision.mask
        if mask is not None and sum(mask) > 1:
            assert leave.decision.destination != own
            left += 1
    assert left > 50


def test_the_mode_is_the_most_probable_and_samples_are_not_always(tmp_path: Path) -> None:
    write_folder(tmp_path, *tiny.flat(7, towards=[0.1 * j for j in range(7)]))
    modes, samples = 0, set()
    for number in range(40):
        where = situation(7, number)
        mode = decide(
            with_policy(where.context, tmp_path, deterministic=True), where, ANSWERING["all"]
        ).decision
        assert mode.probabilities is not None
        modes += mode.probabilities[mode.destination] == max(mode.probabilities)
        sample = decide(with_policy(where.context, tmp_path), where, ANSWERING["all"]).decision
        assert sample.probabilities == mode.probabilities
        samples.add(sample.destination == mode.destination)
    assert modes == 40
    assert samples == {True, False}


def test_no_task_is_never_chosen_and_masked_are_never_probable(tmp_path: Path) -> None:
    write_folder(tmp_path, *tiny.flat(3))
    for number in range(40):
        where = situation(3, number)
        decision = decide(with_policy(where.context, tmp_path), where, ANSWERING["mixed"]).decision
        assert decision.mask is not None
        assert decision.probabilities is not None
        assert len(decision.probabilities) == 3
        assert [
            p for p, free in zip(decision.probabilities, decision.mask, strict=True) if not free
        ] == [0.0] * decision.mask.count(False)
        assert sum(decision.probabilities) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("u", "index"), [(0.0, 1), (0.24, 1), (0.26, 3), (0.9999999, 3), (0.999999999999, 3)]
)
def test_pick_takes_the_share_that_u_falls_into(u: float, index: int) -> None:
    assert pick([0.0, 0.25, 0.0, 0.75 - 1e-9, 0.0], u) == index


def test_the_simulator_runs_it_and_its_decisions_name_it(tmp_path: Path) -> None:
    card, actor = tiny.per_destination()
    save(str(tmp_path), card, actor)
    network = dataclasses.replace(small_plan(3), artifacts_url=str(tmp_path))
    result = simulate_episode(network, 0, "drl", {"policy": card.id})
    decided = [each for each in result.decisions if each.task_id is not None]
    assert {each.scheduler for each in decided} == {f"drl:{card.id}"}
    assert all(each.probabilities is not None and each.mask is not None for each in decided)
    assert len({each.destination for each in decided}) == 3


def test_it_is_the_policy_of_the_compiled_engine(tmp_path: Path) -> None:
    """Same weights, same seeds: every task ends alike, although one of them runs ONNX."""
    network = plan(load("paper-simulation", ["slots.count=20"]))
    rng = np.random.default_rng(5)
    sizes = {
        "w1": (WIDTH, 16),
        "b1": (16,),
        "w2": (16, 16),
        "wc": (16, 16),
        "b2": (16,),
        "w3": (16,),
    }
    weights = ScoringWeights.from_arrays(
        {name: rng.normal(0.0, 0.4, size).astype(np.float32) for name, size in sizes.items()}
    )
    write_folder(tmp_path, *tiny.scoring(given=weights._asdict()))
    batch, rows = pack([network] * 2), Threads(2)
    for deterministic in (False, True):
        options = {"policy": str(tmp_path), "deterministic": deterministic}
        found = [simulate_episode(network, each, "drl", options).success_rate for each in (0, 3)]
        expected = play_scoring(batch, rows, weights, [0, 3], deterministic=deterministic)
        assert found == pytest.approx(expected.tolist(), abs=1e-12)


def test_without_a_policy_the_shipped_one_decides_or_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = situation(3, 0).context
    monkeypatch.setattr(artifact, "_SHIPPED_FOLDER", tmp_path)
    with pytest.raises(PrerequisiteMissing, match=r"testbed policy deploy"):
        registry.create("drl", context)
    card, actor = tiny.per_destination("shipped")
    write_folder(tmp_path / "per-destination-v1", card, actor)
    assert registry.create("drl", context).name == f"drl:{card.id}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": 3}, "policy: 3"),
        ({"policy": "nonsense"}, "no artifact store here"),
        ({"policy": "/nowhere"}, "no such file"),
        ({"deterministic": "yes"}, "true or false"),
        ({"temperature": 1}, "unknown option"),
        ({"policy": "shipped/nonsense"}, "is not shipped"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.create("drl", situation(3, 0).context, options)


def test_a_policy_for_another_network_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, *tiny.flat(4))
    with pytest.raises(UsageError, match=r"(?s)for 4 nodes, the network has 3.*per-destination"):
        with_policy(situation(3, 0).context, tmp_path)
