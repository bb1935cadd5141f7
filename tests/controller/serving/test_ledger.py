"""Each request has one row, whatever comes first and whatever never comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving.ledger import NO_ANSWER, RequestLedger, Seen
from testbed.model.serving.events import Request
from testbed.model.serving.record import RequestOutcome, RequestRecord
from testbed.model.serving.users import external
from testbed.storage.tasklog import RequestRow

SERVED = Seen(RequestOutcome.SERVED, 9_000, 200)
REFUSED = Seen(RequestOutcome.UNREACHABLE, taken=False)


def record(number: int, status: int = 200) -> RequestRecord:
    return RequestRecord(number, 0, 1, 0, 1_000 + number, status, None, 1, 5_000)


def sent(*numbers: int) -> RequestLedger[str]:
    ledger: RequestLedger[str] = RequestLedger(["f"])
    for number in numbers:
        ledger.send(Request(number, 0, 1, 0), 1_000, 1_003)
    return ledger


def test_a_row_has_what_the_client_and_the_node_saw() -> None:
    expected = RequestRow(
        *(0, 5, 1, "f", 1_005, 200, RequestOutcome.SERVED, None, 1, 5_000),
        *(1_003, 9_000, 200),
    )
    ledger = sent(5)
    assert ledger.reported(record(5), "batch") is None
    joined = ledger.ended(5, SERVED)
    assert joined is not None
    assert (joined.row, joined.batch) == (expected, "batch")
    ledger = sent(5)
    assert ledger.ended(5, SERVED) is None
    joined = ledger.reported(record(5), "batch")
    assert joined is not None
    assert (joined.row, joined.batch) == (expected, None)


def test_a_request_that_reached_nobody_is_complete_at_once() -> None:
    joined = sent(5).ended(5, REFUSED)
    assert joined is not None
    row = joined.row
    assert (row.outcome, row.status, row.client_status) == (RequestOutcome.UNREACHABLE, None, None)
    assert row.at == 1_000


def test_a_request_of_others_is_complete_at_once() -> None:
    number = external(1, 3, 7)
    joined = sent().reported(record(number), "batch")
    assert joined is not None
    assert (joined.seen, joined.row.sent, joined.row.client_status) == (None, None, None)
    assert joined.row.request == number


def test_where_nodes_report_nothing_nothing_waits_for_it() -> None:
    ledger: RequestLedger[str] = RequestLedger(["f"], reports=False)
    ledger.send(Request(5, 0, 1, 0), 1_000, 1_003)
    joined = ledger.ended(5, SERVED)
    assert joined is not None
    assert joined.seen == SERVED
    assert list(ledger.close()) == []


def test_what_is_reported_twice_is_known() -> None:
    ledger = sent(5)
    ledger.ended(5, SERVED)
    ledger.reported(record(5), "batch")
    with pytest.raises(KeyError):
        ledger.reported(record(5), "later")


@given(st.data())
def test_each_request_has_one_row(data: st.DataObject) -> None:
    numbers = range(data.draw(st.integers(0, 8)))
    ledger = sent(*numbers)
    rows = []
    steps = [("client", n) for n in numbers] + [("node", n) for n in numbers]
    for who, number in data.draw(st.permutations(steps)):
        if data.draw(st.booleans()):
            continue
        try:
            if who == "client":
                joined = ledger.ended(
                    number, data.draw(st.sampled_from([SERVED, NO_ANSWER, REFUSED]))
                )
            else:
                joined = ledger.reported(record(number), "batch")
        except KeyError:
            # It reached nobody, or so its client thought.
            assert who == "node"
            continue
        if joined is not None:
            rows.append(joined.row)
    rows += [joined.row for joined in ledger.close()]
    assert sorted(row.request for row in rows) == list(numbers)
    assert ledger.unanswered == 0
