"""Each scheduler's rule on cases small enough to work out by hand."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest

from testbed.errors import UsageError
from testbed.model.decision import (
    Answer,
    Ask,
    Decision,
    Observation,
    PeerState,
    Refuse,
    SchedulerContext,
)
from testbed.model.distributions import Constant
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.model.workload import Workload
from testbed.schedulers import registry
from testbed.schedulers.estimates import Estimator, time_left

GIGA = 1_000_000_000
MEGA = 1_000_000
SIZE = 4
BASELINES = (
    "local",
    "random",
    "ratc",
    "rda",
    "ratc-masked",
    "rda-masked",
    "local-or-reliable",
    "two-choice",
    "least-completion",
    "priced",
)


def _context(
    alpha: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4), beta: float = 0.0, seed: int = 1
) -> SchedulerContext:
    """Node 0 of four; a task takes 1 s to execute on 0 and 1, 500 ms on 2 and 3, 100 ms to send."""
    topology = Topology(
        cores=(4, 4, 8, 8),
        capacity_hz=(8 * GIGA, 8 * GIGA, 16 * GIGA, 16 * GIGA),
        arrival_probability=(1.0,) * SIZE,
        execution_failure_rate=alpha,
        link_rate=tuple(
            tuple(0 if i == j else 10 * MEGA for j in range(SIZE)) for i in range(SIZE)
        ),
        link_failure_rate=tuple(
            tuple(0.0 if i == j else beta for j in range(SIZE)) for i in range(SIZE)
        ),
    )
    workload = Workload(10, SECOND, Constant(MEGA), Constant(1000), Constant(2 * SECOND))
    rules = Rules(Overload(OverloadMeasure.QUEUE_LENGTH, 2))
    return SchedulerContext(0, topology, rules, workload, seed)


def _task(task_id: int = 0, deadline: Micros = 2 * SECOND) -> Task:
    return Task(task_id, 0, 0, 0, MEGA, 8 * GIGA, deadline)


def _observation(
    task: Task | None = None,
    *,
    queue_length: int = 0,
    backlog: Micros = 0,
    send_backlog: tuple[Micros, ...] = (0,) * SIZE,
    answers: tuple[Answer, ...] = (),
    round_: int = 0,
    now: Micros = 0,
) -> Observation:
    return Observation(
        node=0,
        now=now,
        episode=0,
        slot=0,
        task=task or _task(),
        queue_length=queue_length,
        backlog=backlog,
        receiving=(0,) * SIZE,
        sending=tuple(int(work > 0) for work in send_backlog),
        send_backlog=send_backlog,
        answers=answers,
        known=(None,) * SIZE,
        round=round_,
    )


def _full(peer: int, backlog: Micros, *, asked: Micros = 0, answered: Micros = 0) -> Answer:
    state = PeerState(backlog >= SECOND, backlog // SECOND, backlog, 0, asked)
    return Answer(peer, state.overloaded, state, asked, answered)


def _bits(**overloaded: bool) -> tuple[Answer, ...]:
    """``_bits(p1=True)``: peer 1 says that it is overloaded."""
    return tuple(Answer(int(peer[1:]), bit, None, 0, 0) for peer, bit in overloaded.items())


def _chosen_pair(context: SchedulerContext, task: Task) -> tuple[int, ...]:
    return context.sample(task, tuple(range(SIZE)), 2)


def _task_with_pair(context: SchedulerContext, *pair: int) -> Task:
    """A task for which these two nodes are drawn, in this order."""
    return next(
        task for number in range(1000) if _chosen_pair(context, task := _task(number)) == pair
    )


# --- estimates ----------------------------------------------------------------------------------


def test_completion_is_the_sum_of_equation_7() -> None:
    context = _context(alpha=(0.1, 0.2, 0.3, 0.4), beta=0.02)
    observation = _observation(backlog=70, send_backlog=(0, 0, 300 * MILLISECOND, 0))
    estimator = Estimator(context)
    peer = estimator.candidate(observation, _task(), 2, 400 * MILLISECOND)
    assert peer.completion == (300 + 100 + 400 + 500) * MILLISECOND
    assert peer.exposure == pytest.approx(0.3 * 0.5 + 0.02 * 0.1)
    own = estimator.own(observation, _task())
    assert own.completion == 70 + 1 * SECOND
    assert own.exposure == pytest.approx(0.1)


def test_estimates_round_as_the_model_does() -> None:
    context = _context()
    task = Task(0, 0, 0, 0, 3_333_333, 12_345_678_901, 2 * SECOND)
    observation = _observation(task)
    for destination in range(SIZE):
        assert Estimator(context).candidate(
            observation, task, destination, 0
        ).completion == context.topology.transmission_time(
            task, 0, destination
        ) + context.topology.execution_time(task, destination)


def test_time_spent_asking_is_taken_off_the_deadline() -> None:
    task = _task()
    assert time_left(_observation(task, now=5 * SECOND), task) == 2 * SECOND
    answers = (_full(1, 0, asked=5 * SECOND), _full(2, 0, asked=5 * SECOND + 10))
    later = _observation(task, now=5 * SECOND + 30, answers=answers, round_=2)
    assert time_left(later, task) == 2 * SECOND - 30


# --- local, random ------------------------------------------------------------------------------


def test_local_stays() -> None:
    scheduler = registry.create("local", _context())
    assert scheduler.decide(_observation(backlog=99 * SECOND)) == Decision(0)


def test_random_is_uniform_over_all_nodes() -> None:
    scheduler = registry.create("random", _context())
    decisions = [scheduler.decide(_observation(_task(number))) for number in range(4000)]
    counts = Counter(d.destination for d in decisions if isinstance(d, Decision))
    # 4 standard deviations of a binomial(4000, 1/4).
    assert all(abs(counts[node] - 1000) < 4 * math.sqrt(750) for node in range(SIZE))
    assert all(isinstance(d, Decision) and d.probabilities == (0.25,) * SIZE for d in decisions)


def test_seeds_of_schedulers_matter_and_nothing_else() -> None:
    tasks = [_task(number) for number in range(50)]
    first, same, other = (
        [registry.create("random", _context(seed=seed)).decide(_observation(t)) for t in tasks]
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other


# --- ratc ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ratc", "two-choice"])
def test_two_nodes_of_all_are_drawn_and_the_own_one_is_not_probed(name: str) -> None:
    context = _context()
    scheduler = registry.create(name, context)
    seen = set()
    for number in range(300):
        pair = _chosen_pair(context, _task(number))
        reply = scheduler.decide(_observation(_task(number)))
        assert isinstance(reply, Ask)
        assert reply.peers == tuple(node for node in pair if node != 0)
        assert not reply.bits_only
        seen.add(frozenset(pair))
    assert len(seen) == 6


def test_ratc_takes_the_more_reliable_if_both_are_in_time() -> None:
    context = _context()
    task = _task_with_pair(context, 2, 1)
    # Exposure 0.3 x 0.5 on node 2, 0.2 x 1 on node 1.
    answers = (_full(2, 800 * MILLISECOND), _full(1, 0))
    scheduler = registry.create("ratc", context)
    assert scheduler.decide(_observation(task, answers=answers, round_=1)) == Decision(2)


def test_ratc_counts_the_link_in_reliability() -> None:
    context = _context(alpha=(0.1, 0.1, 0.1, 0.1), beta=0.9)
    task = _task_with_pair(context, 0, 2)
    # Exposure 0.1 here, 0.05 + 0.09 there; there would be faster.
    scheduler = registry.create("ratc", context)
    reply = scheduler.decide(_observation(task, answers=(_full(2, 0),), round_=1))
    assert reply == Decision(0)


def test_ratc_takes_the_faster_if_one_is_late() -> None:
    context = _context(alpha=(0.1, 0.2, 0.0, 0.4))
    task = _task_with_pair(context, 2, 1)
    # 1.5 + .1 + .5 s is later than 2 s; node 1 takes 1.1 s.
    answers = (_full(2, 1500 * MILLISECOND), _full(1, 0))
    scheduler = registry.create("ratc", context)
    assert scheduler.decide(_observation(task, answers=answers, round_=1)) == Decision(1)


def test_ratc_finishing_at_the_deadline_is_in_time() -> None:
    context = _context(alpha=(0.1, 0.2, 0.0, 0.4))
    task = _task_with_pair(context, 2, 1)
    answers = (_full(2, 1400 * MILLISECOND), _full(1, 0))
    scheduler = registry.create("ratc", context)
    assert scheduler.decide(_observation(task, answers=answers, round_=1)) == Decision(2)


def test_ratc_with_one_silent_peer_takes_the_other_and_with_two_stays() -> None:
    context = _context()
    task = _task_with_pair(context, 2, 1)
    scheduler = registry.create("ratc", context)
    one = _observation(task, answers=(_full(1, 5 * SECOND),), round_=1)
    assert scheduler.decide(one) == Decision(1)
    assert scheduler.decide(_observation(task, round_=1)) == Decision(0)


def test_ratc_masked_draws_among_the_unmasked() -> None:
    context = _context()
    scheduler = registry.create("ratc-masked", context)
    assert scheduler.decide(_observation()) == Ask((1, 2, 3), bits_only=True)
    bits = _bits(p1=True, p2=False, p3=True)
    reply = scheduler.decide(_observation(answers=bits, round_=1))
    assert reply == Ask((2,))
    done = scheduler.decide(_observation(answers=(*bits, _full(2, 0)), round_=2))
    mask = (True, False, True, False)
    # Exposure 0.1 here against 0.15 there; with a queue here the task would be late.
    assert done == Decision(0, mask=mask)
    busy = _observation(
        answers=(*bits, _full(2, 0)), round_=2, queue_length=2, backlog=1500 * MILLISECOND
    )
    assert scheduler.decide(busy) == Decision(2, mask=mask)


def test_ratc_masked_stays_if_all_are_overloaded() -> None:
    scheduler = registry.create("ratc-masked", _context())
    bits = _bits(p1=True, p2=True, p3=True)
    reply = scheduler.decide(_observation(answers=bits, round_=1))
    assert reply == Decision(0, mask=(True, False, False, False))


# --- rda ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rda", "rda-masked"])
def test_rda_stays_until_the_own_node_is_overloaded(name: str) -> None:
    scheduler = registry.create(name, _context())
    assert scheduler.decide(_observation(queue_length=1, backlog=9 * SECOND)) == Decision(0)
    assert isinstance(scheduler.decide(_observation(queue_length=2)), Ask)


def test_rda_asks_all_in_random_order_and_waits_for_two() -> None:
    scheduler = registry.create("rda", _context())
    orders = set()
    for number in range(200):
        reply = scheduler.decide(_observation(_task(number), queue_length=2))
        assert isinstance(reply, Ask)
        assert sorted(reply.peers) == [1, 2, 3]
        assert reply.enough == 2
        orders.add(reply.peers)
    assert len(orders) == 6


def test_rda_takes_the_faster_of_the_first_two() -> None:
    scheduler = registry.create("rda", _context())
    answers = (_full(1, 0), _full(3, 700 * MILLISECOND), _full(2, 0))
    reply = scheduler.decide(_observation(queue_length=2, answers=answers, round_=1))
    # 1.1 s on node 1 against .1 + .7 + .5 s on node 3; node 2 answered too late to count.
    assert reply == Decision(1)


def test_rda_counts_the_own_sending_queue() -> None:
    scheduler = registry.create("rda", _context())
    answers = (_full(1, 0), _full(3, 700 * MILLISECOND))
    reply = scheduler.decide(
        _observation(
            queue_length=2, answers=answers, round_=1, send_backlog=(0, 300 * MILLISECOND, 0, 0)
        )
    )
    assert reply == Decision(3)


def test_rda_stays_if_nobody_answers() -> None:
    scheduler = registry.create("rda", _context())
    assert scheduler.decide(_observation(queue_length=2, round_=1)) == Decision(0)


def test_rda_masked_asks_the_unmasked_only() -> None:
    scheduler = registry.create("rda-masked", _context())
    bits = _bits(p1=True, p2=False, p3=False)
    reply = scheduler.decide(_observation(queue_length=2, answers=bits, round_=1))
    assert isinstance(reply, Ask)
    assert sorted(reply.peers) == [2, 3]
    assert reply.enough == 2
    answers = (*bits, _full(2, 900 * MILLISECOND), _full(3, 0))
    done = scheduler.decide(_observation(queue_length=2, answers=answers, round_=2))
    assert done == Decision(3, mask=(True, False, True, True))


# --- the order of a slot ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rda", "rda-masked", "local-or-reliable"])
def test_who_decides_at_once_may_be_told_to_ask_first(name: str) -> None:
    at_once = registry.create(name, _context())
    asking = registry.create(name, _context(), {"ask_first": True})

    assert at_once.decide(_observation()) == Decision(0)
    first = asking.decide(_observation())

    assert isinstance(first, Ask)
    assert sorted(first.peers) == [1, 2, 3]
    assert first.bits_only == (name != "rda")
    assert asking.name == f"{name} (ask first)"
    # A peer is free and idle; the task stays all the same.
    answers = (_full(1, 0), _full(2, 0)) if name == "rda" else _bits(p1=False, p2=True)
    stays = asking.decide(_observation(answers=answers, round_=1))
    assert isinstance(stays, Decision)
    assert stays.destination == 0
    assert stays.mask == (None if name == "rda" else (True, True, False, False))
    # Where the own node will not do, both go on alike.
    busy = _observation(queue_length=2, answers=answers, round_=1)
    assert asking.decide(busy) == at_once.decide(busy)


def test_what_is_not_true_or_false_is_no_order() -> None:
    with pytest.raises(UsageError, match="ask_first: 'yes'; true or false"):
        registry.create("rda", _context(), {"ask_first": "yes"})
    with pytest.raises(UsageError, match="ask_first: unknown option"):
        registry.create("ratc", _context(), {"ask_first": True})


# --- the others ---------------------------------------------------------------------------------


def test_local_or_reliable_stays_if_free_and_in_time() -> None:
    scheduler = registry.create("local-or-reliable", _context())
    assert scheduler.decide(_observation(queue_length=1, backlog=SECOND)) == Decision(0)
    late = scheduler.decide(_observation(queue_length=1, backlog=SECOND + 1))
    assert late == Ask((1, 2, 3), bits_only=True)
    assert scheduler.decide(_observation(queue_length=2)) == late


def test_local_or_reliable_goes_where_failure_is_least_likely() -> None:
    scheduler = registry.create("local-or-reliable", _context())
    # Exposures 0.2, 0.15 and 0.2.
    free = scheduler.decide(
        _observation(queue_length=2, answers=_bits(p1=False, p2=False, p3=False), round_=1)
    )
    assert free == Decision(2, mask=(True, True, True, True))
    masked = scheduler.decide(
        _observation(queue_length=2, answers=_bits(p1=False, p2=True, p3=True), round_=1)
    )
    assert masked == Decision(1, mask=(True, True, False, False))
    none = scheduler.decide(_observation(queue_length=2, answers=_bits(p1=True, p2=True), round_=1))
    assert none == Decision(0, mask=(True, False, False, False))


def test_two_choice_looks_at_the_backlog_alone() -> None:
    context = _context()
    scheduler = registry.create("two-choice", context)
    task = _task_with_pair(context, 1, 2)
    # Node 2 would be faster in the end.
    answers = (_full(1, 100 * MILLISECOND), _full(2, 200 * MILLISECOND))
    assert scheduler.decide(_observation(task, answers=answers, round_=1)) == Decision(1)
    equal = (_full(2, 0), _full(1, 0))
    assert scheduler.decide(_observation(task, answers=equal, round_=1)) == Decision(1)


def test_least_completion_compares_all_who_answered() -> None:
    scheduler = registry.create("least-completion", _context())
    assert scheduler.decide(_observation()) == Ask((1, 2, 3))
    answers = (_full(1, 0), _full(2, 500 * MILLISECOND), _full(3, 450 * MILLISECOND))
    # 1 s here, 1.1, 1.1 and 1.05 s there.
    assert scheduler.decide(_observation(answers=answers, round_=1)) == Decision(0)
    busy = _observation(backlog=51 * MILLISECOND, answers=answers, round_=1)
    assert scheduler.decide(busy) == Decision(3)
    silent = _observation(backlog=51 * MILLISECOND, answers=answers[:1], round_=1)
    assert scheduler.decide(silent) == Decision(0)


PRICE: dict[str, object] = {"queue": 2.0, "crowd": 2.0, "execution": 0.1}
"""A price to reckon with by hand; the one that ships is learned."""


def _priced() -> SchedulerContext:
    return dataclasses.replace(_context(), options=PRICE)


def test_priced_takes_the_most_reliable_until_its_queue_costs_more() -> None:
    scheduler = registry.create("priced", _priced())
    assert scheduler.decide(_observation()) == Ask((1, 2, 3))
    idle = tuple(_full(peer, 0) for peer in (1, 2, 3))
    # Chances of 0.905 here, and of 0.819, 0.861 and 0.819 there.
    for backlog, destination in ((0, 0), (SECOND // 2, 0), (SECOND, 2)):
        observation = _observation(backlog=backlog, answers=idle, round_=1)
        assert scheduler.decide(observation) == Decision(destination)
    inbound = _observation(answers=idle, round_=1)._replace(inbound_work=SECOND)
    assert scheduler.decide(inbound) == Decision(2)


def test_priced_looks_at_what_is_on_its_way_to_a_peer() -> None:
    scheduler = registry.create("priced", _priced())
    idle = tuple(_full(peer, 0) for peer in (1, 2, 3))
    coming = replace_state(idle[1], inbound_work=SECOND)
    busy = _observation(backlog=2 * SECOND, answers=idle, round_=1)
    assert scheduler.decide(busy) == Decision(2)
    # Nodes 1 and 3 are equally reliable; node 3 is done sooner.
    busy = busy._replace(answers=(idle[0], coming, idle[2]))
    assert scheduler.decide(busy) == Decision(3)


def test_priced_refuses_only_what_is_late_everywhere_or_not_worth_its_work() -> None:
    context = _priced()
    rejecting = dataclasses.replace(context, rules=dataclasses.replace(context.rules, reject=True))
    full, fuller = (
        tuple(_full(peer, backlog) for peer in (1, 2, 3))
        for backlog in (1700 * MILLISECOND, 3 * SECOND)
    )
    late = _observation(backlog=1100 * MILLISECOND, answers=full, round_=1)
    assert registry.create("priced", rejecting).decide(late) == Refuse()
    # Done after 2.1 s here, and after 2.7 or 2.2 s there.
    assert registry.create("priced", context).decide(late) == Decision(0)
    soon = _observation(backlog=900 * MILLISECOND, answers=full, round_=1)
    assert registry.create("priced", rejecting).decide(soon) == Decision(0)
    crowded = soon._replace(answers=fuller)
    assert registry.create("priced", rejecting).decide(crowded) == Refuse()
    assert registry.create("priced", context).decide(crowded) == Decision(0)


def test_priced_takes_the_numbers_of_its_price_from_its_options() -> None:
    context = _context()
    idle = tuple(_full(peer, 0) for peer in (1, 2, 3))
    busy = _observation(backlog=SECOND, answers=idle, round_=1)
    nothing: dict[str, object] = {"queue": 0, "crowd": 0, "execution": 0}
    for options, destination in ((PRICE, 2), (nothing, 0), ({**nothing, "queue": 5}, 2)):
        scheduler = registry.create("priced", dataclasses.replace(context, options=options))
        assert scheduler.decide(busy) == Decision(destination)


@pytest.mark.parametrize("value", ["much", True, math.nan, None])
def test_priced_refuses_a_price_that_is_no_number(value: object) -> None:
    context = dataclasses.replace(_context(), options={"crowd": value})
    with pytest.raises(UsageError, match="crowd"):
        registry.create("priced", context)


def replace_state(answer: Answer, inbound_work: Micros) -> Answer:
    assert answer.state is not None
    return answer._replace(state=answer.state._replace(inbound_work=inbound_work))


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in BASELINES), ("rda-masked", {"ask_first": True})],
)
def test_a_network_of_one_stays_local(name: str, options: dict[str, object]) -> None:
    context = _context()
    topology = Topology((4,), (8 * GIGA,), (1.0,), (0.1,), ((0,),), ((0.0,),))
    alone = dataclasses.replace(context, topology=topology)
    observation = _observation(queue_length=9, backlog=9 * SECOND)._replace(
        receiving=(0,), sending=(0,), send_backlog=(0,), known=(None,)
    )
    reply = registry.create(name, alone, options).decide(observation)
    assert isinstance(reply, Decision)
    assert reply.destination == 0
