"""Policies on their way to deciding here: fetched and loaded aside, then swapped in at once.

Whatever takes time happens in a thread, in ``prepare``. ``commit`` replaces one object by another,
between two decisions; a task that is being decided stays with the policy that began.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from testbed.errors import PermanentError, Problem, UsageError
from testbed.model.decision import Scheduler
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import PlanHead, SchedulerSpec

if TYPE_CHECKING:
    from testbed.policies import Policy

_logger: Final = logging.getLogger(__name__)

DRL: Final = "drl"
"""Name of the scheduler whose policy is replaced."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A policy that is loaded; ``scheduler`` decides by it, None where another than drl does.

    ``asked`` is what decided when it was loaded, ``filled`` the same with this policy.
    """

    deployment: str
    policy: str
    scheduler: Scheduler | None
    asked: SchedulerSpec
    filled: SchedulerSpec


class Deciding(Protocol):
    """The node at which a policy is to decide, and what decides there."""

    @property
    def index(self) -> int: ...

    @property
    def plan(self) -> PlanHead | None: ...

    @property
    def asked(self) -> SchedulerSpec: ...

    @property
    def scheduler_name(self) -> str: ...

    def scheduler_context(self, plan: PlanHead, options: Mapping[str, Any]) -> Any: ...

    def decide_by(self, scheduler: Scheduler, asked: SchedulerSpec) -> None: ...


class Policies:
    """The policy that was loaded last at ``node``, and whether it was put to use."""

    def __init__(self, node: Deciding) -> None:
        self._node = node
        self._prepared: _Prepared | None = None
        self._committed = ""

    async def prepare(self, request: pb.PreparePolicyRequest) -> None:
        """Fetch a policy, verify it, load it; nothing that decides here changes.

        Raises: UsageError: it is not what was announced, or does not fit. PermanentError: the
        artifact is damaged. TemporaryError: the store does not answer.
        """
        self._prepared = None
        plan, asked = self._node.plan, self._node.asked
        deciding = plan is not None and asked.name == DRL
        filled = asked.with_policy(request.key)

        def load() -> Scheduler | None:
            # Imported here: a node that never has a policy never pays for it.
            from testbed.policies.inference import open_actor
            from testbed.schedulers.drl import Drl

            policy = _fetch(request)
            if plan is None or not deciding:
                open_actor(policy)
                return None
            return Drl.of(self._node.scheduler_context(plan, filled.options), policy)

        scheduler = await _in_thread(load)
        if plan is not self._node.plan or asked is not self._node.asked:
            raise UsageError("another run or scheduler began while the policy was loaded")
        self._prepared = _Prepared(request.deployment, request.key, scheduler, asked, filled)
        _logger.info("node %d has loaded %s", self._node.index, request.key)

    def commit(self, deployment: str) -> None:
        """Switch to the loaded policy, if ``drl`` decides here. Idempotent.

        Raises: UsageError: it was not prepared here, or something else decides since.
        """
        if deployment == self._committed:
            return
        prepared = self._prepared
        if prepared is None or prepared.deployment != deployment:
            raise UsageError("this policy was not prepared here; deploy it again")
        if prepared.asked is not self._node.asked:
            raise UsageError("another run or scheduler has begun since; deploy the policy again")
        if prepared.scheduler is not None:
            self._node.decide_by(prepared.scheduler, prepared.filled)
        self._prepared, self._committed = None, deployment
        _logger.info("node %d decides by %s", self._node.index, self._node.scheduler_name)

    def abort(self, deployment: str) -> None:
        """Forget what was prepared. No-op if it is something else."""
        if self._prepared is not None and self._prepared.deployment == deployment:
            self._prepared = None


def _fetch(request: pb.PreparePolicyRequest) -> Policy:
    """Return the policy that was announced.

    Raises: UsageError: another one is there, or none.
    """
    from testbed.policies import SHIPPED_PREFIX, load, shipped

    if request.key.startswith(SHIPPED_PREFIX):
        policy = shipped(request.key.removeprefix(SHIPPED_PREFIX))
    else:
        policy = load(request.store, request.key)
    if (policy.card.sha256, policy.card.size_bytes) != (request.sha256, request.size_bytes):
        raise UsageError(
            "this policy is not the one that was announced",
            [
                Problem(
                    request.key,
                    f"{policy.card.size_bytes} bytes, sha256 {policy.card.sha256[:12]}…",
                    f"{request.size_bytes} bytes, sha256 {request.sha256[:12]}…",
                )
            ],
        )
    return policy


async def _in_thread(load: Callable[[], Scheduler | None]) -> Scheduler | None:
    """Call ``load`` in a thread; turn errors of other libraries into ours.

    Raises: TestbedError.
    """
    try:
        return await asyncio.to_thread(load)
    except OSError as error:
        raise PermanentError(f"the policy cannot be read: {error}") from error
