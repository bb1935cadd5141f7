"""The certificate says yes to what is faithful and no, with the reason, to what is not."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest

from testbed.model.events import Record, RecordKind
from testbed.model.fidelity import (
    FALSE_ALARM,
    Certificate,
    ControllerPause,
    Fidelity,
    Machine,
    failure_interval,
)
from testbed.model.task import Task
from testbed.model.topology import Topology
from testbed.model.units import SECOND
from testbed.scenario.plan import FidelityLimits

RATE = 0.4

TOPOLOGY = Topology(
    cores=(4, 4),
    capacity_hz=(10**9, 10**9),
    arrival_probability=(1.0, 1.0),
    execution_failure_rate=(RATE, RATE),
    link_rate=((0, 10**7), (10**7, 0)),
    link_failure_rate=((0.0, 0.03), (0.03, 0.0)),
)


def fidelity(limits: FidelityLimits | None = None, **options: bool | float) -> Fidelity:
    return Fidelity(TOPOLOGY, limits or FidelityLimits(), **options)  # type: ignore[arg-type]


def executed(
    measured: Fidelity,
    task_id: int,
    *,
    nominal: int = 100_000,
    error: int = 0,
    outcome: str = "succeeded",
    lasts: int | None = None,
    deadline: int = SECOND,
    elapsed: int = 0,
) -> None:
    """A task that stays at node 0 and begins to execute ``elapsed`` after it was generated."""
    task = Task(task_id, 0, task_id, 0, 10**6, 10**8, deadline)
    at, lasts = 1000 + elapsed, nominal if lasts is None else lasts
    data: dict[str, int | str] = {
        "outcome": outcome,
        "elapsed": elapsed + lasts,
        "stage": "execution",
    }
    for record in (
        Record(RecordKind.GENERATED, task, 0, 0, 1000, 1000, {}),
        Record(RecordKind.EXECUTION_STARTED, task, 3, 0, at, at, {"nominal": nominal}),
        Record(RecordKind.ENDED, task, 4, 0, at + lasts, at + lasts + error, data),
    ):
        measured.add(record)


def sent(measured: Fidelity, task_id: int, *, nominal: int = 100_000, error: int = 0) -> None:
    task = Task(task_id, 0, task_id, 0, 10**6, 10**8, SECOND)
    for record in (
        Record(RecordKind.GENERATED, task, 0, 0, 0, 0, {}),
        Record(RecordKind.TRANSMISSION_STARTED, task, 2, 0, 0, 0, {"peer": 1, "nominal": nominal}),
        Record(RecordKind.SENT, task, 3, 0, nominal, nominal + error, {"peer": 1}),
    ):
        measured.add(record)


def test_the_records_of_two_nodes_may_come_in_any_order() -> None:
    measured = fidelity()
    task = Task(0, 0, 0, 0, 10**6, 10**8, SECOND)
    data: dict[str, int | str] = {"outcome": "succeeded", "elapsed": 300, "stage": "execution"}
    for record in (
        Record(RecordKind.GENERATED, task, 0, 0, 0, 0, {}),
        Record(RecordKind.TRANSMISSION_STARTED, task, 2, 0, 0, 0, {"peer": 1, "nominal": 100}),
        Record(RecordKind.EXECUTION_STARTED, task, 6, 1, 0, 0, {"nominal": 200}),
        Record(RecordKind.ENDED, task, 7, 1, 200, 200, data),
        Record(RecordKind.SENT, task, 3, 0, 100, 100, {"peer": 1}),
    ):
        measured.add(record)
    certificate = measured.certify()
    assert certificate.transmission_failures.trials == certificate.transmission.error.count == 1
    assert certificate.execution_failures.trials == certificate.execution.error.count == 1


def test_nothing_measured_is_valid() -> None:
    certificate = fidelity().certify()
    assert certificate.valid
    assert certificate.execution.error.count == 0


@pytest.mark.parametrize(
    ("nominal", "error", "valid"),
    [
        (100_000, 4_000, True),
        (100_000, 4_001, False),
        (100_000, -4_001, False),
        (1_000_000, 20_000, True),  # 2 % are more than 4 ms
        (1_000_000, 20_001, False),
    ],
)
@pytest.mark.parametrize("what", ["execution", "transmission"])
def test_the_limit_of_a_time_is_the_larger_of_the_two(
    what: str, nominal: int, error: int, valid: bool
) -> None:
    measured = fidelity()
    for task_id in range(20):
        if what == "execution":
            executed(measured, task_id, nominal=nominal, error=error, deadline=10 * SECOND)
        else:
            sent(measured, task_id, nominal=nominal, error=error)
    certificate = measured.certify()
    timing = certificate.execution if what == "execution" else certificate.transmission
    assert timing.error.p95 == timing.error.max == abs(error)
    assert timing.mean == error
    assert certificate.valid is valid
    assert [what in reason for reason in certificate.reasons] == ([] if valid else [True])


def test_one_outlier_in_twenty_is_allowed_and_two_are_not() -> None:
    for outliers, valid in ((1, True), (2, False)):
        measured = fidelity()
        for task_id in range(20):
            executed(measured, task_id, error=50_000 if task_id < outliers else 0)
        assert measured.certify().valid is valid


def test_the_time_of_a_users_own_application_is_reported_and_not_judged() -> None:
    measured = fidelity(execution_modelled=False)
    executed(measured, 0, error=500_000)
    certificate = measured.certify()
    assert certificate.valid
    assert certificate.execution.error.max == 500_000


def test_time_scale_gives_the_error_on_the_real_clock() -> None:
    measured = fidelity(time_scale=2.5)
    executed(measured, 0, error=2_000)
    assert measured.certify().execution.real_p95 == 5_000


def test_late_arrivals_are_invalid() -> None:
    measured = fidelity()
    for lateness in [*[10_001] * 19, 0]:
        measured.late(lateness)
    certificate = measured.certify()
    assert certificate.generator.p95 == 10_001
    assert ["late" in reason for reason in certificate.reasons] == [True]


def test_lost_tasks_are_counted_and_neither_invalid_nor_a_trial() -> None:
    measured = fidelity()
    executed(measured, 0, outcome="lost")
    certificate = measured.certify()
    assert certificate.valid
    assert certificate.execution_failures.trials == 0
    assert certificate.outcomes["lost"] == 1


def test_the_expected_number_of_failures_ends_at_the_deadline() -> None:
    measured = fidelity()
    executed(measured, 0, nominal=500_000)
    # Dropped 300 ms into an execution of 500 ms; the other one failed, and would have been dropped.
    executed(measured, 1, nominal=500_000, elapsed=700_000, lasts=300_000, outcome="dropped")
    executed(measured, 2, nominal=500_000, elapsed=700_000, lasts=10, outcome="execution_failed")
    count = measured.certify().execution_failures
    assert (count.trials, count.failed) == (3, 1)
    expected = -math.expm1(-RATE * 0.5) - 2 * math.expm1(-RATE * 0.3)
    assert count.expected == pytest.approx(expected, abs=1e-12)


def test_too_many_failures_are_implausible() -> None:
    measured = fidelity()
    for task_id in range(200):
        failed = task_id % 5 == 0
        executed(
            measured,
            task_id,
            outcome="execution_failed" if failed else "succeeded",
            lasts=50_000 if failed else None,
        )
    certificate = measured.certify()
    count = certificate.execution_failures
    assert count.expected == pytest.approx(200 * -math.expm1(-RATE * 0.1))
    assert count.failed == 40 > count.high
    assert not certificate.valid
    assert "40 of 200 executions failed" in certificate.reasons[0]


def test_no_failures_at_all_are_implausible_where_many_were_due() -> None:
    measured = fidelity()
    for task_id in range(1000):
        executed(measured, task_id)
    count = measured.certify().execution_failures
    assert count.failed == 0 < count.low


@pytest.mark.parametrize("trials", [1, 10, 300, 20_000])
@pytest.mark.parametrize("p", [0.0005, 0.1, 0.5, 0.97])
def test_the_interval_holds_nearly_all_of_a_binomial(trials: int, p: float) -> None:
    low, high = failure_interval(trials, trials * p)
    assert 0 <= low <= trials * p <= high <= trials
    scipy_stats = pytest.importorskip("scipy.stats")
    outside = scipy_stats.binom.cdf(low - 1, trials, p) + scipy_stats.binom.sf(high, trials, p)
    assert outside <= FALSE_ALARM * (1 + 1e-6)
    # And is not wider than it has to be, by more than the one that Hoeffding's theorem asks for.
    if low < math.floor(trials * p - 1):
        assert scipy_stats.binom.cdf(low, trials, p) > FALSE_ALARM / 2 * (1 - 1e-6)


def test_the_interval_holds_for_unequal_probabilities() -> None:
    draw = random.Random(5)
    probabilities = [draw.random() ** 3 for _ in range(200)]
    low, high = failure_interval(len(probabilities), sum(probabilities))
    distribution = [1.0]
    for p in probabilities:
        distribution = [
            (distribution[k] if k < len(distribution) else 0.0) * (1 - p)
            + (distribution[k - 1] * p if k else 0.0)
            for k in range(len(distribution) + 1)
        ]
    assert 1 - sum(distribution[low : high + 1]) <= FALSE_ALARM


@pytest.mark.parametrize(
    ("trials", "mean", "expected"), [(0, 0.0, (0, 0)), (5, 0.0, (0, 0)), (5, 5.0, (5, 5))]
)
def test_certain_counts(trials: int, mean: float, expected: tuple[int, int]) -> None:
    assert failure_interval(trials, mean) == expected


def test_a_certificate_survives_json() -> None:
    measured = fidelity()
    executed(measured, 0, error=9_000)
    machine = Machine(2, 1.5, None, 300, (1, 2), (ControllerPause(5, 7), ControllerPause(90, 8)))
    machine = dataclasses.replace(machine, sharing=(50, 50))
    assert machine.paused == 15
    certificate = measured.certify(machine)
    document = json.loads(json.dumps(certificate.to_document()))
    assert Certificate.from_document({**document, "unknown": 1}) == certificate
    without = measured.certify()
    assert Certificate.from_document(json.loads(json.dumps(without.to_document()))) == without


@pytest.mark.parametrize("change", [{"version": 99}, {"machine": 3}, {"execution": {}}])
def test_a_strange_certificate_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="certificate"):
        Certificate.from_document({**fidelity().certify().to_document(), **change})


def test_what_no_record_shows_can_be_entered() -> None:
    measured = fidelity()
    assert measured.certify().valid
    measured.unfaithful("episode 3 did not finish within its bound")
    certificate = measured.certify()
    assert not certificate.valid
    assert certificate.reasons == ("episode 3 did not finish within its bound",)


def test_a_certificate_of_an_earlier_release_can_be_read() -> None:
    document = fidelity().certify(Machine(2, 1.5, None, 300, (1, 2))).to_document()
    del document["machine"]["pauses"]
    del document["machine"]["sharing"]
    read = Certificate.from_document(document)
    assert read.machine == Machine(2, 1.5, None, 300, (1, 2))


def test_arrivals_that_were_late_because_the_controller_did_not_run_say_so() -> None:
    measured = fidelity()
    for _ in range(10):
        measured.late(4_000_000)
    paused = Machine(2, 1.5, None, 300, (1, 2), (ControllerPause(0, 4_000_000),))
    (reason,) = measured.certify(paused).reasons
    assert reason.endswith("the controller itself did not run for 4.0 s")
    assert "did not run" not in measured.certify().reasons[0]


def test_each_term_has_a_name_a_unit_a_value_and_its_bounds() -> None:
    measured = fidelity(FidelityLimits(generator_lateness=5_000))
    executed(measured, 0, error=9_000)
    measured.late(6_000)
    certificate = measured.certify()
    assert {name: (term.unit, term.holds) for name, term in certificate.terms.items()} == {
        "transmission": ("limits", True),
        "execution": ("limits", False),
        "generator": ("us", False),
        "transmission_failures": ("failures", True),
        "execution_failures": ("failures", True),
    }
    late = certificate.terms["generator"]
    assert (late.value, late.low, late.high) == (6_000, None, 5_000)
    assert len(certificate.reasons) == 2
    document = certificate.to_document()
    assert document["terms"]["generator"] == {
        "unit": "us",
        "value": 6_000,
        "low": None,
        "high": 5_000,
    }
    # What reports, scripts and earlier releases read of it.
    assert list(document) == [
        *("version", "valid", "reasons", "time_scale", "transmission", "execution", "generator"),
        *("transmission_failures", "execution_failures", "outcomes", "machine", "terms"),
    ]
    assert document["generator"]["p95"] == 6_000


def test_times_that_nobody_sets_are_reported_without_a_bound() -> None:
    measured = fidelity(execution_modelled=False)
    executed(measured, 0, error=500_000)
    term = measured.certify().terms["execution"]
    assert (term.high, term.holds) == (None, True)
    assert term.value > 1


def test_a_certificate_without_a_table_of_terms_is_read() -> None:
    measured = fidelity()
    executed(measured, 0, error=9_000)
    measured.late(6_000)
    certificate = measured.certify()
    document = json.loads(json.dumps(certificate.to_document()))
    del document["terms"]
    read = Certificate.from_document(document)
    assert (read.valid, read.reasons) == (certificate.valid, certificate.reasons)
    assert read.execution == certificate.execution
    assert read.generator == certificate.generator
    assert read.terms["generator"].high is None
    assert not read.terms["execution"].holds
