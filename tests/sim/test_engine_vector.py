"""The vectorised environment against the simulator: observations, actions, rewards, recordings."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.model.decision import Ask, Decision, Observation, Scheduler, SchedulerContext
from testbed.model.distributions import Uniform
from testbed.model.encoders import DEFAULT, ENCODERS, action_mask
from testbed.model.events import RecordKind
from testbed.model.information import FIRST_PROBED, Asks, longest_silence, period_of
from testbed.model.per_destination import (
    COLUMNS,
    COLUMNS_OF,
    HEARD_NAME,
    NAME,
    STATE_NAME,
    PerDestinationEncoder,
)
from testbed.model.task import Task
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import Plan
from testbed.schedulers.probing import mask_from_answers, mask_from_bits, mask_from_heard
from testbed.sim.engine.arrays import pack, problems_of_asking
from testbed.sim.engine.episodes import play, record, record_baseline
from testbed.sim.engine.features import KERNELS
from testbed.sim.engine.heuristics import METHODS
from testbed.sim.engine.perceptron import Perceptron
from testbed.sim.engine.scoring import (
    ScoringWeights,
    pack_for,
    play_scoring,
    probabilities_of,
    record_scoring,
)
from testbed.sim.engine.threads import Threads, success_rates
from testbed.sim.engine.vector import UniformPolicy, VectorEnv, choose, sample
from testbed.sim.play import UNTRAINED, evaluate
from testbed.sim.simulator import EpisodeResult, simulate_episode
from tests.sim.plans import DELAYS, OVERLOADS, random_plan, small_plans
from tests.sim.test_engine import by_engine, by_simulator

PLANS = [random_plan(40 + k, size=6, slots=15, overload=rule) for k, rule in enumerate(OVERLOADS)]
DELAYED = [
    random_plan(45 + k, size=6, slots=15, delay=DELAYS[which], queue_limit=limit)
    for k, (which, limit) in enumerate([(1, None), (2, 1), (6, None), (7, 0)])
]
EVERY = [*PLANS, *DELAYED]


class Untrained:
    """Uniform over the unmasked destinations, as a node's scheduler would do it."""

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "untrained"
        self._context = context
        self._peers = tuple(j for j in range(context.topology.size) if j != context.node)

    def decide(self, observation: Observation) -> Decision | Ask:
        task = observation.task
        assert task is not None
        if observation.round == 0:
            return Ask(self._peers, bits_only=True)
        mask = mask_from_bits(observation, len(self._peers) + 1)
        probabilities = np.array([mask]) / sum(mask)
        draw = np.array([self._context.uniform(task, 0)])
        destination = int(sample(probabilities, draw)[0])
        return Decision(destination, tuple(probabilities[0].tolist()), mask)


def observed(
    plan: Plan, result: EpisodeResult, encoder: str = DEFAULT
) -> tuple[np.ndarray, np.ndarray]:
    """Features [T, N, D] and masks [T, N, N + 1] by the encoder that nodes use."""
    size, slots = plan.topology.size, plan.workload.slots
    encode = ENCODERS[encoder].bind(plan)
    features = np.zeros((slots, size, ENCODERS[encoder].size(size)), np.float32)
    mask = np.zeros((slots, size, size + 1), bool)
    for decision in result.decisions:
        features[decision.slot, decision.node] = encode(decision.observation)
        used = decision.mask
        mask[decision.slot, decision.node] = (
            action_mask(decision.observation, size) if used is None else [*used, False]
        )
    return features, mask


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("plan", EVERY, ids=[plan.name for plan in EVERY])
def test_nodes_see_and_do_the_same_in_both(plan: Plan, encoder: str) -> None:
    env = VectorEnv([plan] * 3, encoder=encoder)
    env.reset([0, 1, 2])
    results = [simulate_episode(plan, n, Untrained) for n in range(3)]
    expected = [observed(plan, result, encoder) for result in results]
    busy = False
    for slot in range(env.slots):
        seen = env.observe()
        for row, (features, mask) in enumerate(expected):
            np.testing.assert_array_equal(seen.mask[row], mask[slot])
            np.testing.assert_allclose(seen.features[row], features[slot], rtol=1e-6)
        busy |= bool((seen.features[..., env.size + 3] > 0).any())
        env.step(choose(seen, UniformPolicy())[0])
    assert busy
    for row in range(3):
        assert by_engine(env.batch, row) == by_simulator(plan, Untrained, row)
    assert env.success_rates().tolist() == [result.success_rate for result in results]


def test_rewards_are_credited_to_the_slot_in_which_tasks_end() -> None:
    plan = PLANS[0]
    result = simulate_episode(plan, 2, Untrained)
    expected = np.zeros(plan.workload.slots)
    for step in result.records:
        if step.kind is RecordKind.ENDED:
            slot = min(step.at // plan.workload.slot, plan.workload.slots - 1)
            expected[slot] += 1 if step.data["outcome"] == "succeeded" else -1
    env = VectorEnv([plan])
    env.reset([2])
    rewards, done = [], False
    while not done:
        assert not done
        stepped = env.step(choose(env.observe(), UniformPolicy())[0])
        rewards.append(float(stepped.rewards[0]))
        done = stepped.done
    assert rewards == expected.tolist()
    assert sum(rewards) == sum(1 if o == "succeeded" else -1 for o in result.outcomes.values())


def test_recordings_are_what_was_seen_and_done() -> None:
    plan = PLANS[1]
    env = VectorEnv([plan] * 2)
    played = record(env, UniformPolicy(), [3, 4])
    for row, number in enumerate([3, 4]):
        features, mask = observed(plan, simulate_episode(plan, number, Untrained))
        np.testing.assert_allclose(
            played.features[row, :, :-1].transpose(1, 0, 2), features, rtol=1e-6
        )
        np.testing.assert_array_equal(played.mask[row, :, :-1].transpose(1, 0, 2), mask)
    chosen = np.take_along_axis(played.mask[:, :, :-1], played.actions[..., None], axis=-1)
    assert chosen.all()
    allowed = played.mask[:, :, :-1].sum(axis=-1)
    np.testing.assert_allclose(played.log_probability, -np.log(allowed), rtol=1e-6)
    after = played.mask[:, :, -1]
    assert after[..., -1].all()
    assert not after[..., :-1].any()
    assert (played.success_rates == play(env, UniformPolicy(), [3, 4])).all()


@pytest.mark.parametrize("method", ["ratc", "rda-masked", "local"])
def test_recordings_of_baselines_are_what_the_simulator_logs(method: str) -> None:
    plan = PLANS[0]
    played = record_baseline(plan, method, [5])
    result = simulate_episode(plan, 5, method)
    actions = np.full((plan.topology.size, plan.workload.slots), plan.topology.size)
    for decision in result.decisions:
        if decision.destination is not None:
            actions[decision.node, decision.slot] = decision.destination
    np.testing.assert_array_equal(played.actions[0], actions)
    assert np.take_along_axis(played.mask[:, :, :-1], played.actions[..., None], axis=-1).all()
    assert np.isnan(played.log_probability).all()
    outcomes = [1 if outcome == "succeeded" else -1 for outcome in result.outcomes.values()]
    assert played.rewards.sum() == sum(outcomes)
    assert played.success_rates[0] == result.success_rate


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("method", METHODS)
def test_recordings_of_baselines_show_what_nodes_knew(method: str, encoder: str) -> None:
    """Idle slots too; answers that came in while a node decided are among what it knew."""
    plan = replace(PLANS[0], log_idle_slots=True)
    played = record_baseline(plan, method, [2, 5], encoder=encoder)
    for row, number in enumerate([2, 5]):
        features, _ = observed(plan, simulate_episode(plan, number, method), encoder)
        found = played.features[row, :, :-1].transpose(1, 0, 2)
        np.testing.assert_array_equal(found, features)


def test_what_is_not_played_slot_by_slot_is_refused() -> None:
    late = random_plan(1, size=3, delay=DELAYS[4])
    with pytest.raises(UsageError, match="answers 600000 us after a slot began"):
        VectorEnv([PLANS[0], late])
    with pytest.raises(UsageError, match="without control delay only"):
        record_baseline(DELAYED[1], "ratc", [0])
    for packed, encoder in ((None, "paper-v1"), ("paper-v1", "extended-v1")):
        batch = pack([PLANS[0]], packed)
        with pytest.raises(ValueError, match=f"not packed for encoder {encoder}"):
            record_baseline(PLANS[0], "ratc", [0], batch=batch, encoder=encoder)


def test_looking_again_or_not_at_all_changes_nothing() -> None:
    plan = DELAYED[1]
    looking, blind = VectorEnv([plan] * 2), VectorEnv([plan] * 2)
    looking.reset([0, 1])
    blind.reset([0, 1])
    for _ in range(plan.workload.slots):
        seen = looking.observe()
        again = looking.observe()
        np.testing.assert_array_equal(seen.features, again.features)
        actions = choose(seen, UniformPolicy())[0]
        assert (looking.step(actions).rewards == blind.step(actions).rewards).all()


def test_a_task_dropped_while_it_is_asked_about_is_not_decided() -> None:
    deadline = Uniform(MILLISECOND, 3 * SECOND)
    plan = random_plan(3, size=6, slots=15, delay=(200 * MILLISECOND, SECOND), deadline=deadline)
    env = VectorEnv([plan])
    env.reset([1])
    done = False
    while not done:
        done = env.step(choose(env.observe(), UniformPolicy())[0]).done
    endings = by_engine(env.batch, 0)
    assert endings == by_simulator(plan, Untrained, 1)
    undecided = [task for task, (*_, destination) in endings.items() if destination < 0]
    assert undecided
    batch = pack([plan])
    decisions = record_scoring(batch, Threads(1), Scoring.weights, [1])
    assert by_engine(batch, 0) == by_simulator(plan, Scoring, 1)
    assert len(decisions.task) == len(endings) - len(undecided)


def test_the_engine_knows_every_encoder_and_refuses_others() -> None:
    assert set(KERNELS) == set(ENCODERS)
    with pytest.raises(UsageError, match="cannot compute this encoder"):
        VectorEnv([PLANS[0]], encoder="nobodys-v1")


def test_more_threads_change_nothing() -> None:
    plans = [random_plan(seed, size=5, slots=10) for seed in range(24)]
    one, two = VectorEnv(plans, threads=1), VectorEnv(plans, threads=3)
    numbers = list(range(24))
    first, second = record(one, UniformPolicy(), numbers), record(two, UniformPolicy(), numbers)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [(-1, "action -1"), (7, "action 7"), ("swap", "no task|a task")],
)
def test_actions_that_cannot_be_are_refused(wrong: int | str, complaint: str) -> None:
    env = VectorEnv([PLANS[0]])
    env.reset([0])
    seen = env.observe()
    actions = choose(seen, UniformPolicy())[0]
    before = env.batch.tasks.copy()
    nothing = env.size
    actions[0, 0] = (0 if actions[0, 0] == nothing else nothing) if wrong == "swap" else wrong
    with pytest.raises(ValueError, match=complaint):
        env.step(actions)
    assert (env.batch.tasks == before).all()


def test_an_episode_that_is_over_has_to_be_reset() -> None:
    env = VectorEnv([PLANS[0]])
    with pytest.raises(ValueError, match="reset"):
        env.step(np.zeros((1, env.size), np.int64))
    with pytest.raises(ValueError, match="2 episode numbers for 1"):
        env.reset([0, 1])


def random_weights(seed: int = 0, hidden: int = 16, encoder: str = NAME) -> ScoringWeights:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0.0, 0.5, shape).astype(np.float32)

    return ScoringWeights(
        draw(len(COLUMNS_OF[encoder]), hidden),
        draw(hidden),
        draw(hidden, hidden),
        draw(hidden, hidden),
        draw(hidden),
        draw(hidden),
    )


def forward(weights: ScoringWeights, rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The network as docs/per-destination.md states it, for one decision."""
    hidden = np.maximum(rows @ weights.w1 + weights.b1, 0.0)
    context = hidden[mask].mean(axis=0) @ weights.wc
    scores = np.maximum(hidden @ weights.w2 + weights.b2 + context, 0.0) @ weights.w3
    scores = np.where(mask, scores, -np.inf)
    weight = np.exp(scores - scores.max())
    probabilities: np.ndarray = weight / weight.sum()
    return probabilities


def test_the_compiled_network_is_the_documented_function() -> None:
    rng = np.random.default_rng(3)
    weights = random_weights()
    rows = rng.normal(size=(7, len(COLUMNS))).astype(np.float32)
    mask = np.array([True, False, True, True, False, True, True])
    found = np.empty(7)
    probabilities_of(weights, rows, mask, np.empty((9, 16), np.float32), found)
    np.testing.assert_allclose(found, forward(weights, rows, mask), atol=1e-5)
    assert found[1] == found[4] == 0.0


class Scoring:
    """A per-destination policy as a node runs it: the encoder of the model, plain numpy."""

    encoder = NAME
    weights = random_weights()
    asks: ClassVar[Asks] = "bits"

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "scoring"
        self.rows: dict[int, np.ndarray] = {}
        self._context = context
        self._asks = True
        self._size = context.topology.size
        self._peers = tuple(j for j in range(self._size) if j != context.node)
        self._encoder = PerDestinationEncoder(
            context.node, context.topology, context.rules, context.workload, self.encoder
        )

    def decide(self, observation: Observation) -> Decision | Ask:
        task = observation.task
        assert task is not None
        if observation.round == 0 and self._peers and self._asks:
            return self._ask(task)
        mask = self._mask(observation)
        rows = np.array(self._encoder.rows(observation, task, mask), np.float32)
        self.rows[task.id] = rows
        probabilities = forward(self.weights, rows, np.array(mask))
        draw = np.array([self._context.uniform(task, 0)])
        destination = int(sample(probabilities[None], draw)[0])
        self._encoder.decided(destination, task, observation)
        return Decision(destination)

    def _ask(self, task: Task) -> Ask:
        return Ask(self._peers, bits_only=True)

    def _mask(self, observation: Observation) -> tuple[bool, ...]:
        return mask_from_answers(observation, self._size)


class ScoringStates(Scoring):
    """The same by the states of its peers."""

    encoder = STATE_NAME
    weights = random_weights(encoder=STATE_NAME)
    asks: ClassVar[Asks] = "state"

    def _ask(self, task: Task) -> Ask:
        return Ask(self._peers)


class ScoringProbes(Scoring):
    """The same by the states of two random peers, and what was heard before."""

    encoder = HEARD_NAME
    weights = random_weights(encoder=HEARD_NAME)
    asks: ClassVar[Asks] = {"probe": 2}

    def _ask(self, task: Task) -> Ask:
        drawn = self._context.sample(task, self._peers, 2, FIRST_PROBED)
        return Ask(self._peers, bits_only=True, states_of=drawn)


class ScoringGossip(Scoring):
    """The same by the states that all nodes tell each other."""

    encoder = HEARD_NAME
    weights = random_weights(encoder=HEARD_NAME)
    asks: ClassVar[Asks] = {"gossip": "1 slot"}

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self.gossip_period = period_of(self.asks, context.workload.slot)
        self._silence = longest_silence(self.gossip_period, context.rules.control_delay)
        self._asks = False

    def _mask(self, observation: Observation) -> tuple[bool, ...]:
        return mask_from_heard(observation, self._size, self._silence)


class ScoringOftenGossip(ScoringGossip):
    """More often than tasks arrive, and not with them."""

    asks: ClassVar[Asks] = {"gossip": "0.7 slot"}


class ScoringRareGossip(ScoringGossip):
    """More rarely than tasks arrive."""

    asks: ClassVar[Asks] = {"gossip": "2.5 slots"}


GOSSIPS = (ScoringGossip, ScoringOftenGossip, ScoringRareGossip)


def decides_as_on_a_node(plan: Plan, policy: type[Scoring]) -> np.ndarray:
    """Hold the engine to the encoder of the model; returns the rows of all decisions [D, N, F]."""
    kept: dict[int, np.ndarray] = {}

    def make(context: SchedulerContext) -> Scheduler:
        scheduler = policy(context)
        scheduler.rows = kept
        return scheduler

    batch, rows = pack_for([plan] * 2, policy.weights, policy.asks), Threads(2)
    decisions = record_scoring(batch, rows, policy.weights, [0, 7])
    for row, number in enumerate([0, 7]):
        # The second episode follows the first at the same nodes: the moving average begins anew.
        kept.clear()
        assert by_engine(batch, row) == by_simulator(plan, make, number)
        mine = decisions.episode == row
        first = number * plan.workload.slots * plan.topology.size
        assert sorted(kept) == (first + decisions.task[mine]).tolist()
        for found, task in zip(decisions.rows[mine], decisions.task[mine], strict=True):
            np.testing.assert_allclose(found, kept[first + int(task)], rtol=1e-5, atol=1e-6)
    played = play_scoring(batch, rows, policy.weights, [0, 7])
    np.testing.assert_array_equal(played, success_rates(batch))
    if isinstance(policy.asks, str):
        # The encoder tells what they ask; others need a card.
        found = evaluate(plan, ["mine"], [0, 7], {"mine": policy.weights})
        np.testing.assert_array_equal(played, found["mine"])
    return decisions.rows


@pytest.mark.parametrize(
    "policy",
    [Scoring, ScoringStates, ScoringProbes, *GOSSIPS],
    ids=["bits", "state", "probe", "gossip", "often", "rarely"],
)
@pytest.mark.parametrize("plan", EVERY, ids=[plan.name for plan in EVERY])
def test_a_scoring_policy_decides_as_it_would_on_a_node(plan: Plan, policy: type[Scoring]) -> None:
    if problems_of_asking(plan, policy.asks):
        assert policy in GOSSIPS
        return
    rows = decides_as_on_a_node(plan, policy)
    assert rows.shape[2] == len(COLUMNS_OF[policy.encoder])


def test_work_on_its_way_is_seen_in_both() -> None:
    plan = random_plan(60, size=4, slots=30, slot=50 * MILLISECOND)
    rows = decides_as_on_a_node(plan, ScoringStates)
    for column, name in enumerate(COLUMNS_OF[STATE_NAME]):
        # All answers are of the instant of the decision.
        assert rows[..., column].any() == (name != "age"), name


@settings(max_examples=60, deadline=None)
@given(small_plans())
def test_any_small_network_is_seen_by_states_as_on_its_nodes(plan: Plan) -> None:
    decides_as_on_a_node(plan, ScoringStates)


def test_old_states_and_work_sent_since_are_seen_in_both() -> None:
    plan = random_plan(61, size=6, slots=40, slot=100 * MILLISECOND)
    seen = decides_as_on_a_node(plan, ScoringProbes)
    columns = {name: seen[..., k] for k, name in enumerate(COLUMNS_OF[HEARD_NAME])}
    others = columns["own"] == 0.0
    assert all(columns[name].any() for name in columns)
    # Two of the peers told their state now; of some others nothing is known, or something older.
    known, old = columns["known"] == 1.0, columns["age"] > 0.0
    assert ((others & known & ~old).sum(axis=1) >= 2).all()
    assert (others & ~known).any()
    assert (old <= known).all()
    assert (columns["sent_since"] > 0.0).any()
    assert ((columns["sent_since"] > 0.0) <= known).all()


@settings(max_examples=60, deadline=None)
@given(small_plans())
def test_any_small_network_is_seen_by_probes_as_on_its_nodes(plan: Plan) -> None:
    decides_as_on_a_node(plan, ScoringProbes)


@pytest.mark.parametrize("policy", GOSSIPS)
def test_what_nodes_told_each_other_is_seen_in_both(policy: type[Scoring]) -> None:
    plan = random_plan(61, size=6, slots=40, slot=100 * MILLISECOND, delay=(MILLISECOND, SECOND))
    seen = decides_as_on_a_node(plan, policy)
    columns = {name: seen[..., k] for k, name in enumerate(COLUMNS_OF[HEARD_NAME])}
    others = columns["own"] == 0.0
    period = period_of(policy.asks, plan.workload.slot)
    # Told between two slots, a state knows of all that was decided before.
    often = period < plan.workload.slot
    for name, values in columns.items():
        assert values.any() == (name != "sent_since" or not often), name
    known, ages = columns["known"] == 1.0, 4.0 * columns["age"][others]
    assert (others & ~known).any()
    # In seconds: never more than a period, and a deadline is 4 s.
    assert 0.0 < ages[ages > 0.0].min() <= ages.max() <= period / SECOND + 1e-6


@settings(max_examples=60, deadline=None)
@given(small_plans(), st.sampled_from(GOSSIPS))
def test_any_small_network_is_seen_by_gossip_as_on_its_nodes(
    plan: Plan, policy: type[Scoring]
) -> None:
    assume(not problems_of_asking(plan, policy.asks))
    decides_as_on_a_node(plan, policy)


@pytest.mark.parametrize("delay", [0, MILLISECOND, 10 * MILLISECOND])
@pytest.mark.parametrize("policy", [ScoringStates, ScoringProbes, *GOSSIPS])
def test_what_is_heard_in_turns_is_seen_in_both(policy: type[Scoring], delay: int) -> None:
    # Some states are told, and others heard, at the very instant of a turn.
    plan = random_plan(
        63,
        size=6,
        slots=30,
        slot=100 * MILLISECOND,
        delay=(delay, SECOND),
        stagger=10 * MILLISECOND,
    )
    decides_as_on_a_node(plan, policy)


def test_states_that_are_told_again_before_they_are_heard_are_left_to_the_simulator() -> None:
    late = random_plan(62, size=3, slots=5, slot=MILLISECOND, delay=(MILLISECOND, SECOND))
    with pytest.raises(UsageError, match="less than the period"):
        pack_for([late], ScoringGossip.weights, ScoringGossip.asks)


def test_what_is_asked_has_to_be_told_where_the_encoder_leaves_it_open() -> None:
    with pytest.raises(ValueError, match="does not tell what a policy asks"):
        pack_for([PLANS[0]], ScoringProbes.weights)


def test_a_batch_that_keeps_no_announcements_is_refused() -> None:
    batch = pack([PLANS[0]])
    with pytest.raises(ValueError, match="not packed for encoder per-destination-v2"):
        play_scoring(batch, Threads(1), ScoringStates.weights, [0])


def test_the_compiled_perceptron_is_a_masked_softmax_over_layers() -> None:
    rng = np.random.default_rng(1)
    layers = [(rng.normal(size=(9, 5)), rng.normal(size=9)), (rng.normal(size=(4, 9)), np.ones(4))]
    features = rng.normal(size=(300, 5)).astype(np.float32)
    mask = rng.random((300, 4)) < 0.5
    mask[:, 2] = True
    logits = np.maximum(features @ layers[0][0].T + layers[0][1], 0.0) @ layers[1][0].T + 1.0
    expected = np.where(mask, np.exp(logits), 0.0)
    expected /= expected.sum(axis=1, keepdims=True)
    for threads in (1, 3):
        found = Perceptron(layers, threads).probabilities(features, mask)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (found[~mask] == 0.0).all()
    with pytest.raises(UsageError, match="do not fit together"):
        Perceptron(layers[::-1])


def test_untrained_is_known_by_name_to_evaluate() -> None:
    plan = PLANS[0]
    found = evaluate(plan, [UNTRAINED], [2])[UNTRAINED]
    assert found.tolist() == [simulate_episode(plan, 2, Untrained).success_rate]


@pytest.mark.parametrize(
    ("probabilities", "draw", "expected"),
    [
        ([0.0, 0.4, 0.6], 1e-12, 1),
        ([0.0, 0.4, 0.6], 0.399, 1),
        ([0.0, 0.4, 0.6], 0.401, 2),
        ([0.5, 0.5, 0.0], 1.0 - 1e-16, 1),
        ([0.0, 0.0, 1.0], 0.5, 2),
    ],
)
def test_sampling_never_takes_what_has_no_probability(
    probabilities: list[float], draw: float, expected: int
) -> None:
    assert sample(np.array([probabilities]), np.array([draw])).tolist() == [expected]
