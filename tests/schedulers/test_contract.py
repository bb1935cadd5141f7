"""Every scheduler that ships passes the conformance suite."""

from __future__ import annotations

import pytest

from testbed.model.decision import Scheduler, SchedulerContext, SchedulerFactory
from testbed.schedulers import registry
from testbed.testing.schedulers import MaskedSchedulerContract, SchedulerContract

MASKED = ("ratc-masked", "rda-masked", "local-or-reliable")
UNMASKED = ("local", "random", "ratc", "rda", "two-choice", "least-completion", "priced")
ASKING_FIRST = ("rda-masked", "local-or-reliable")


def _factory(name: str, **options: object) -> SchedulerFactory:
    def make(context: SchedulerContext) -> Scheduler:
        return registry.create(name, context, options or None)

    return make


class UnmaskedSchedulerTests(SchedulerContract):
    @pytest.fixture(params=UNMASKED)
    def factory(self, request: pytest.FixtureRequest) -> SchedulerFactory:
        return _factory(request.param)


class MaskedSchedulerTests(MaskedSchedulerContract):
    @pytest.fixture(params=MASKED)
    def factory(self, request: pytest.FixtureRequest) -> SchedulerFactory:
        return _factory(request.param)


class AskingFirstSchedulerTests(MaskedSchedulerContract):
    @pytest.fixture(params=ASKING_FIRST)
    def factory(self, request: pytest.FixtureRequest) -> SchedulerFactory:
        return _factory(request.param, ask_first=True)
