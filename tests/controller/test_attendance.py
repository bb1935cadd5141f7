from __future__ import annotations

from controller.attendance import Attendance, by_reason


def test_who_was_out_and_why() -> None:
    attendance = Attendance()
    assert attendance.complete
    assert attendance.leave(1, 2, "no heartbeat for 5.0 s")
    assert not attendance.leave(1, 2, "something else")
    assert attendance.leave(0, 2, "no heartbeat for 5.0 s")
    assert attendance.out == {1: "no heartbeat for 5.0 s", 0: "no heartbeat for 5.0 s"}
    assert attendance.come_back(1, 4)
    assert attendance.come_back(0, 4)
    assert not attendance.come_back(0, 4)
    assert attendance.out == {}
    assert attendance.leave(1, 5, "connection refused")
    attendance.was_late(2, 3, "did not send the end of its log")
    assert attendance.told() == (
        "nodes 0, 1: out of the run from episode 2, back in 4: no heartbeat for 5.0 s",
        "node 1: out of the run from episode 5 on: connection refused",
        "node 2: did not send the end of its log of episode 3",
    )
    assert attendance.reasons == {0: "no heartbeat for 5.0 s", 1: "connection refused"}
    assert not attendance.complete


def test_a_node_that_is_late_is_told_and_stays() -> None:
    attendance = Attendance()
    attendance.was_late(2, 3, "did not send the end of its log")
    assert attendance.out == {}
    assert attendance.complete
    assert attendance.told() == ("node 2: did not send the end of its log of episode 3",)


def test_a_silence_that_was_answered_costs_nothing() -> None:
    attendance = Attendance()
    attendance.silent(2, 3, "no heartbeat for 3.1 s")
    assert attendance.complete
    assert attendance.silences == {3: {2: "no heartbeat for 3.1 s"}}


def test_nodes_with_the_same_reason_stand_together() -> None:
    assert by_reason({2: "b", 1: "a", 0: "b"}) == ["nodes 0, 2: b", "node 1: a"]
