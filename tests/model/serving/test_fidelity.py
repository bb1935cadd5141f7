"""The certificate of serving runs: what is faithful is valid, and what is not says why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.model.certificate import Certificate
from testbed.model.latencies import Latencies
from testbed.model.serving.fidelity import ServingFidelity
from testbed.model.serving.record import RequestOutcome, RequestRecord
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import ServingPlan
from testbed.sim.serving import ServingResult, ServingSimulation
from tests.sim.serving_plans import federation

PLAN = federation((50, 10, 0), seconds=12, period=4, offset=2)


def measured(plan: ServingPlan, result: ServingResult) -> ServingFidelity:
    """Return what has measured an episode, all of it as its users saw it."""
    fidelity = ServingFidelity(plan.network, plan.limits, trip=2 * plan.bus.delay)
    for routing in result.routings:
        fidelity.routed(routing)
        fidelity.ticked([0])
    for record in result.requests:
        fidelity.late(0)
        fidelity.answered(record)
        outcome = RequestOutcome.of(record.status)
        fidelity.ended(outcome, outcome)
    return fidelity


@pytest.fixture(scope="module")
def episode() -> ServingResult:
    return ServingSimulation(PLAN).episode(0)


@settings(max_examples=25, deadline=None)
@given(
    rates=st.tuples(*[st.integers(0, 70)] * 3),
    limits=st.tuples(*[st.integers(1, 30)] * 3),
    split=st.booleans(),
    period=st.integers(1, 5),
)
def test_the_simulator_is_faithful(
    rates: tuple[int, int, int], limits: tuple[int, int, int], split: bool, period: int
) -> None:
    plan = federation(
        rates,
        limits,
        enforce=split,
        seconds=10,
        period=period,
        offset=period // 2,
        options={"advertise": "split" if split else "full"},
    )
    fidelity = measured(plan, ServingSimulation(plan).episode(0))
    fidelity.end_episode()
    certificate = fidelity.certify()
    assert certificate.reasons == ()
    assert certificate.terms["service"].value == certificate.terms["forwarding"].value == 0
    assert sum(certificate.outcomes.values()) == sum(rates) * 10


def test_a_certificate_comes_back_from_its_document(episode: ServingResult) -> None:
    fidelity = measured(PLAN, episode)
    fidelity.end_episode()
    certificate = fidelity.certify()
    document = json.loads(json.dumps(certificate.to_document()))
    assert Certificate.from_document(document) == certificate
    assert set(certificate.terms) == {
        *("service", "forwarding", "ticks", "generator", "accounted", "weights")
    }


def reasons(fidelity: ServingFidelity) -> tuple[str, ...]:
    fidelity.end_episode()
    certificate = fidelity.certify()
    assert certificate.valid == (not certificate.reasons)
    return certificate.reasons


def test_slow_services_and_slow_forwarding_are_told(episode: ServingResult) -> None:
    slow = [each._replace(elapsed=each.elapsed + 11 * MILLISECOND) for each in episode.requests]
    assert reasons(measured(PLAN, _with(episode, slow))) == (
        "service times are off by 11.0 ms at p95; the limit is 10.0 ms",
        "times of requests served by another node are off by 11.0 ms at p95; the limit is 10.0 ms",
    )


def test_late_routers_and_late_requests_are_told(episode: ServingResult) -> None:
    fidelity = measured(PLAN, episode)
    fidelity.ticked([60 * MILLISECOND] * 1_000)
    for _ in range(100_000):
        fidelity.late(20 * MILLISECOND)
    assert reasons(fidelity) == (
        "routers were called 60.0 ms late at p95; the limit is 50.0 ms",
        "requests were sent 20.0 ms late at p95; the limit is 10.0 ms",
    )


def test_what_client_and_nodes_disagree_about_is_told(episode: ServingResult) -> None:
    fidelity = measured(PLAN, episode)
    fidelity.differed()
    (told,) = reasons(fidelity)
    assert told.startswith("client and nodes disagree about 1 of")


def test_turns_that_do_not_follow_the_weights_are_told(episode: ServingResult) -> None:
    moved = [
        each._replace(peer=2) if each.source == 0 and each.peer == 1 else each
        for each in episode.requests
    ]
    (told,) = reasons(measured(PLAN, _with(episode, moved)))
    assert "off what its weights say; the limit is 1" in told


def test_requests_forwarded_without_weights_are_told(episode: ServingResult) -> None:
    early = RequestRecord(10_000, 0, 0, 0, SECOND // 2, 200, 1, 1, 7 * MILLISECOND)
    wrong = [early._replace(id=10_000 + k) for k in range(3)]
    told = reasons(measured(PLAN, _with(episode, [*episode.requests, *wrong])))
    assert "a node's requests to a neighbour are 3.0 off" in told[0]


def test_turns_of_a_node_whose_log_is_not_complete_are_not_judged(episode: ServingResult) -> None:
    some = [each for each in episode.requests if each.peer != 1 or each.at < 7 * SECOND]
    fidelity = measured(PLAN, _with(episode, some))
    fidelity.leave_out(0)
    fidelity.leave_out(1)
    assert reasons(fidelity) == ()


def test_requests_near_the_instant_of_new_weights_may_count_to_either(
    episode: ServingResult,
) -> None:
    """A router that answers 20 ms after it was called routes from then on."""
    routings = [each._replace(at=each.at - 20 * MILLISECOND) for each in episode.routings]
    assert reasons(measured(PLAN, _with(episode, episode.requests, routings))) == ()


def _with(
    episode: ServingResult, requests: list[RequestRecord], routings: object = None
) -> ServingResult:
    return ServingResult(
        episode.episode,
        requests,
        episode.windows,
        episode.routings if routings is None else routings,  # type: ignore[arg-type]
        episode.statuses,
    )


@given(st.lists(st.integers(0, 10**8), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_at_most_7_percent_too_high(times: list[int], share: float) -> None:
    latencies = Latencies()
    for time in times:
        latencies.add(time)
    exact = sorted(times)[max(0, -(-len(times) * round(share * 10_000) // 10_000) - 1)]
    found = latencies.percentile(share)
    assert found is not None
    assert exact <= found <= exact * 1.07 + 1


def test_there_are_no_percentiles_of_nothing() -> None:
    assert Latencies().percentile(0.5) is None
