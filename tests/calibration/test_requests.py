"""Rates of requests that one machine cannot send are told before the run."""

from __future__ import annotations

from dataclasses import replace

from testbed.experiment.calibration.requests import SENT_PER_S, too_many_requests
from tests.sim.serving_plans import federation


def test_rates_above_what_one_process_sends_are_warned_about() -> None:
    plan = federation((SENT_PER_S, SENT_PER_S / 4))
    told = too_many_requests(plan, up_again=False)
    assert "send up to 2,500 requests per second of real time" in told
    assert "use --set timeScale=1.25" in told
    assert "bring it up again with --set timeScale=1.25" in too_many_requests(plan, up_again=True)
    assert too_many_requests(replace(plan, time_scale=1.25), up_again=False) == ""


def test_the_rates_that_the_machine_sends_are_not() -> None:
    assert too_many_requests(federation((SENT_PER_S,)), up_again=False) == ""
    fast = replace(federation((SENT_PER_S / 2,)), time_scale=0.25)
    assert "timeScale=0.5" in too_many_requests(fast, up_again=False)
