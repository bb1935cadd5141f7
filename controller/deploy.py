"""Policies to the nodes in two steps: all load it, then all use it; or nothing changes anywhere.

What was deployed, and what decided before, is kept in the run directory, so that it can be undone.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import structlog

from controller.changes import SchedulerChanges
from controller.link import NodeLink
from controller.registry import GONE, Registry
from testbed.errors import PrerequisiteMissing, Problem, TemporaryError, TestbedError, UsageError
from testbed.files import write_atomically
from testbed.policies import (
    SHIPPED_DEFAULT,
    SHIPPED_PREFIX,
    Policy,
    check_fits,
    resolve,
    shipped_names,
)
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.operator import NodeDeployment, PolicyDeployment
from testbed.scenario.plan import PlanHead, SchedulerSpec

_log = structlog.get_logger("controller.deploy")

HISTORY: Final = "policies.json"
"""In the run directory: what was deployed and not undone, the last one at the end."""

DRL: Final = "drl"
COMMITS: Final = 2
"""Number of times a node is told to use what it has loaded, before it counts as lost."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deploy that was accepted.

    ``nodes`` None are all. During run ``run`` the policies of ``before`` had decided, by node.
    """

    key: str
    nodes: tuple[int, ...] | None = None
    run: str | None = None
    before: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """The run under way, as a deployment needs it."""

    id: str
    dead: tuple[int, ...]
    changes: SchedulerChanges


class Deployments:
    """The policies of one testbed. ``run`` gives the run under way, if any."""

    def __init__(
        self,
        plan: PlanHead,
        registry: Registry,
        directory: Path,
        run: Callable[[], ActiveRun | None],
    ) -> None:
        self._plan = plan
        self._registry = registry
        self._path = directory / HISTORY
        self._run = run
        self._stack = _read(self._path)

    @property
    def current(self) -> str | None:
        """The reference of the policy that was deployed to all nodes last; None if none was."""
        return next((each.key for each in reversed(self._stack) if each.nodes is None), None)

    def filled(self, spec: SchedulerSpec) -> SchedulerSpec:
        """``spec``, with the policy that is meant where it asks for ``drl`` and names none."""
        if spec.name != DRL or "policy" in spec.options:
            return spec
        policy = self.current
        if policy is None and SHIPPED_DEFAULT in shipped_names():
            policy = SHIPPED_PREFIX + SHIPPED_DEFAULT
        # Without any, the node says what is missing.
        return spec if policy is None else spec.with_policy(policy)

    async def deploy(self, reference: str, nodes: Sequence[int]) -> PolicyDeployment:
        """Bring a policy to ``nodes``, all living ones if empty; see ``OperatorClient``.

        Raises: TestbedError: nothing was begun.
        """
        run = self._run()
        if nodes and run is None:
            raise UsageError(
                "no run is under way, so a policy cannot be for some nodes only; "
                "deploy it to all, or start a run first"
            )
        links = self._links(nodes, run)
        policy, warnings = await self._resolved(reference)
        await asyncio.to_thread(_accept, policy)
        before = _deciding(run)
        result = await self._two_steps(
            links, {link.node: policy for link in links}, policy, run, everywhere=not nodes
        )
        if result.accepted:
            entry = Deployed(
                policy.reference,
                tuple(nodes) or None,
                None if run is None else run.id,
                {link.node: before[link.node] for link in links if link.node in before},
            )
            self._kept([*self._stack, entry])
        return _with(result, warnings)

    async def roll_back(self) -> PolicyDeployment:
        """Deploy what decided before the last accepted deploy.

        Raises: UsageError: there was no deploy, or nothing before it.
        """
        run = self._run()
        stack = list(self._stack)
        # A deploy to some nodes holds for its run only.
        while stack and stack[-1].nodes is not None and (run is None or stack[-1].run != run.id):
            stack.pop()
        if not stack:
            raise UsageError("no policy was deployed here, so there is nothing to roll back")
        last = stack.pop()
        below = next((each.key for each in reversed(stack) if each.nodes is None), None)
        if below is None and SHIPPED_DEFAULT in shipped_names():
            below = SHIPPED_PREFIX + SHIPPED_DEFAULT
        links = self._links(last.nodes or (), run, only_living=True)
        before = last.before if run is not None and last.run == run.id else {}
        wanted = {link.node: before.get(link.node, below) for link in links}
        references = {reference for reference in wanted.values() if reference is not None}
        if None in wanted.values() or not references:
            raise UsageError(
                f"{last.key} is the first policy that was deployed here, so there is no earlier one"
            )
        found = {each: await self._resolved(each) for each in sorted(references)}
        policies = {node: found[str(reference)][0] for node, reference in wanted.items()}
        name = below if below in found else next(iter(found))
        result = await self._two_steps(
            links, policies, found[str(name)][0], run, everywhere=last.nodes is None
        )
        if result.accepted:
            self._kept(stack)
        return _with(result, [each for _, warnings in found.values() for each in warnings])

    async def refusals(self, links: Sequence[NodeLink], reference: str) -> dict[int, str]:
        """Load a policy at nodes without using it; return by node why some cannot.

        Raises: TestbedError: no node was asked.
        """
        policy, _ = await self._resolved(reference)
        deployment = secrets.token_hex(8)
        answers = await self._prepare(links, {link.node: policy for link in links}, deployment)
        await asyncio.gather(*(link.abort_policy(deployment) for link in links))
        return {node: reason for node, reason in answers.items() if reason}

    # --- inside -----------------------------------------------------------------------------

    async def _resolved(self, reference: str) -> tuple[Policy, tuple[str, ...]]:
        """Return the policy, verified and fit for this network, and what to tell the user of it."""
        if reference.startswith(("/", ".", "~")):
            raise UsageError(
                "nodes fetch policies from the artifact store",
                [Problem("policy", repr(reference), "import the folder: testbed policy import")],
            )
        plan = self._plan
        try:
            policy = await asyncio.to_thread(resolve, reference, plan.artifacts_url)
        except OSError as error:
            raise PrerequisiteMissing(
                f"the artifact store {plan.artifacts_url} cannot be read: {error}",
                "name another one in the scenario",
            ) from error
        return policy, check_fits(policy.card, plan.size, plan.scenario_hash)

    def _links(
        self, wanted: Sequence[int], run: ActiveRun | None, *, only_living: bool = False
    ) -> list[NodeLink]:
        nodes = self._registry.nodes
        dead = set() if run is None else set(run.dead)
        dead |= {node.node for node in nodes if node.link is None or node.condition in GONE}
        problems = []
        for number in wanted:
            if not 0 <= number < len(nodes):
                problems.append(
                    Problem("nodes", f"there is no node {number}", f"0 to {len(nodes) - 1}")
                )
            elif number in dead and not only_living:
                problems.append(Problem("nodes", f"node {number} is dead", "name living nodes"))
        links = [
            node.link
            for node in nodes
            if node.link is not None
            and node.node not in dead
            and (not wanted or node.node in wanted)
        ]
        if not links and not problems:
            problems.append(Problem("nodes", "no node is alive", "bring the testbed up again"))
        if problems:
            raise UsageError("the policy cannot be deployed", problems)
        return links

    async def _two_steps(
        self,
        links: Sequence[NodeLink],
        policies: Mapping[int, Policy],
        policy: Policy,
        run: ActiveRun | None,
        *,
        everywhere: bool,
    ) -> PolicyDeployment:
        """Load everywhere, then use everywhere; ``policies`` by node, ``policy`` names it all.

        With ``everywhere`` it is for nodes too that are out of the run for a while.
        """
        deployment = secrets.token_hex(8)
        began = time.monotonic()
        async with AsyncExitStack() as held:
            if run is not None:
                await held.enter_async_context(run.changes.exclusive())
                if run.changes.closed:
                    raise UsageError(
                        "the run is ending; wait for its end, then deploy the policy again"
                    )
            try:
                nodes, accepted = await self._at_all(links, policies, deployment)
            except BaseException as error:
                if run is not None:
                    run.changes.note(
                        f"{DRL}:{policy.card.id}",
                        [link.node for link in links],
                        f"was given up in the middle: {error!r}",
                    )
                raise
            result = PolicyDeployment(
                policy.card.id,
                policy.reference,
                accepted=accepted,
                nodes=nodes,
                seconds=time.monotonic() - began,
            )
            if run is not None:
                _tell(run.changes, result, policies)
                if accepted and everywhere:
                    _tell_absent(run, policy)
        told = [f"node {each.node}: {each.reason}" for each in result.failures]
        _log.info(
            "policy",
            policy=result.policy,
            accepted=result.accepted,
            nodes=[each.node for each in nodes],
            problems=told,
            seconds=round(result.seconds, 3),
        )
        return result

    async def _at_all(
        self, links: Sequence[NodeLink], policies: Mapping[int, Policy], deployment: str
    ) -> tuple[tuple[NodeDeployment, ...], bool]:
        """Return the end of each node's deployment, and whether all had loaded their policy."""
        answers = await self._prepare(links, policies, deployment)
        if any(answers.values()):
            await asyncio.gather(*(link.abort_policy(deployment) for link in links))
            return tuple(
                NodeDeployment(node, "refused" if reason else "unchanged", reason=reason)
                for node, reason in answers.items()
            ), False
        committed = await asyncio.gather(
            *(_commit(link, deployment, policies[link.node]) for link in links)
        )
        return tuple(committed), True

    async def _prepare(
        self, links: Sequence[NodeLink], policies: Mapping[int, Policy], deployment: str
    ) -> dict[int, str]:
        """Load a policy at each node; return by node why it was refused, empty if it was not."""

        async def prepare(link: NodeLink) -> str:
            policy = policies[link.node]
            request = pb.PreparePolicyRequest(
                deployment=deployment,
                key=policy.reference,
                sha256=policy.card.sha256,
                size_bytes=policy.card.size_bytes,
                store=self._plan.artifacts_url or "",
            )
            try:
                reply = await link.prepare_policy(request)
            except TestbedError as error:
                return f"does not answer: {error}"
            return "" if reply.accepted else (reply.reason or "refuses")

        reasons = await asyncio.gather(*(prepare(link) for link in links))
        return {link.node: reason for link, reason in zip(links, reasons, strict=True)}

    def _kept(self, stack: list[Deployed]) -> None:
        self._stack = stack
        try:
            write_atomically(self._path, json.dumps([asdict(each) for each in stack]))
        except OSError as error:
            # It still holds as long as this controller lives.
            _log.warning("history", path=str(self._path), problem=str(error))


def _accept(policy: Policy) -> None:
    """Try a policy on this machine, so that one which is no good is refused before nodes load it.

    Raises: UsageError: it is refused.
    """
    # Imported here: a controller that never deploys a policy never pays for it.
    from testbed.policies.inference import accept

    accept(policy)


async def _commit(link: NodeLink, deployment: str, policy: Policy) -> NodeDeployment:
    """Switch a node to the policy it has loaded; a call may be lost although the node lives."""
    reason = ""
    for _ in range(COMMITS):
        try:
            reply = await link.commit_policy(deployment)
        except TemporaryError as error:
            reason = f"had loaded it, then did not answer: {error}"
            continue
        except TestbedError as error:
            reason = str(error)
            break
        if not reply.accepted:
            return NodeDeployment(link.node, "lost", reply.scheduler, reply.reason)
        deciding = reply.scheduler == f"{DRL}:{policy.card.id}"
        return NodeDeployment(link.node, "deciding" if deciding else "ready", reply.scheduler)
    return NodeDeployment(link.node, "lost", reason=reason)


def _tell(
    changes: SchedulerChanges, result: PolicyDeployment, policies: Mapping[int, Policy]
) -> None:
    """Enter what has changed into the run's own log of changes."""
    for each in result.nodes:
        asked = changes.asked(each.node)
        filled = asked.with_policy(policies[each.node].reference)
        if each.state == "deciding":
            changes.replaced(each.node, filled, each.scheduler)
        elif each.state == "lost" and asked.name == DRL:
            # It may decide by it or not; the others do, so it is told again while it lives.
            changes.unsure(each.node, filled)
    changed = [each.node for each in result.nodes if each.state != "ready"]
    if changed:
        reason = "; ".join(f"node {each.node}: {each.reason}" for each in result.failures)
        changes.note(f"{DRL}:{result.policy}", changed, reason)


def _tell_absent(run: ActiveRun, policy: Policy) -> None:
    """Note the policy for nodes that are out of the run, until they are back."""
    for node in run.dead:
        asked = run.changes.asked(node)
        if asked.name == DRL:
            run.changes.unsure(node, asked.with_policy(policy.reference))


def _deciding(run: ActiveRun | None) -> dict[int, str]:
    """Return the policy that decides at each node of the run under way, where one is known."""
    if run is None:
        return {}
    found = {}
    for node in run.changes.nodes:
        asked = run.changes.asked(node)
        policy = asked.options.get("policy")
        if asked.name == DRL and isinstance(policy, str):
            found[node] = policy
    return found


def _with(result: PolicyDeployment, warnings: Sequence[str]) -> PolicyDeployment:
    return PolicyDeployment(
        result.policy,
        result.key,
        result.accepted,
        result.nodes,
        tuple(dict.fromkeys(warnings)),
        result.seconds,
    )


def _read(path: Path) -> list[Deployed]:
    """Return the policies that an earlier controller of this testbed deployed."""
    try:
        return [
            Deployed(
                str(each["key"]),
                None if each["nodes"] is None else tuple(each["nodes"]),
                each["run"],
                {int(node): str(key) for node, key in each["before"].items()},
            )
            for each in json.loads(path.read_text(encoding="utf-8"))
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("history", path=str(path), unreadable=repr(error))
        return []
