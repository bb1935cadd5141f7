"""Callers that ask the controller for changes and vanish before they are answered."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import grpc

from testbed.errors import TestbedError
from testbed.policies import save
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.operator import OperatorClient
from tests.campaign.checks import FINE, Expected
from tests.campaign.processes import Hang, rest, until
from tests.campaign.scene import Scene, fault
from tests.policies import tiny

SCHEDULERS = ("ratc", "rda", "random", "two-choice", "local", "least-completion", "nonsense")
STORM_S = 2.0


def vanish(client: OperatorClient, method: str, request: object, after_s: float) -> None:
    """Make a call and hang up after a while, or get its answer if that comes before."""
    call = getattr(client._stub, method).future(request, timeout=60)
    with contextlib.suppress(grpc.FutureTimeoutError, grpc.RpcError):
        call.result(timeout=after_s)
    call.cancel()


def settled(scene: Scene) -> list[str]:
    """Wait until what was asked for is done everywhere; how nodes and controller differ then."""

    def agree() -> bool | None:
        return True if not _differences(scene) else None

    try:
        until("nodes and controller agree", agree, 20.0)
    except Hang:
        return _differences(scene)
    return []


def _differences(scene: Scene) -> list[str]:
    status = scene.network.status()
    if status is None:
        return ["the controller does not answer"]
    run = status.run
    if run is None or run.progress.state != "running":
        return []
    names = {part.strip() for part in run.progress.scheduler.split(",")}
    decide = {node.scheduler for node in status.nodes if node.condition == "healthy"}
    if names == decide:
        return []
    return [f"the controller says {sorted(names)}, the nodes {sorted(map(str, decide))}"]


@fault("scheduler-storm")
def scheduler_storm(scene: Scene) -> Expected:
    """Changes of scheduler from callers that vanish; nodes and controller agree at the end."""
    draws = scene.draws
    with scene.network.operator() as client, ThreadPoolExecutor(4) as pool:
        for _ in range(draws.randint(5, 25)):
            request = pb.ChangeSchedulerRequest(
                scheduler=draws.choice(SCHEDULERS),
                nodes=draws.sample(scene.nodes, draws.randint(0, len(scene.nodes))),
            )
            pool.submit(vanish, client, "ChangeScheduler", request, draws.expovariate(100))
            rest(draws.expovariate(20))
        problems = settled(scene)
    return Expected(problems=tuple(problems))


@fault("deploy-storm")
def deploy_storm(scene: Scene) -> Expected:
    """Deploys and roll backs from callers that vanish, with changes of scheduler in between."""
    draws = scene.draws
    artifacts = scene.network.find().directory.parent / "artifacts"
    ids = []
    for number in range(3):
        card, actor = tiny.per_destination(f"storm-{number}", own=float(number))
        save(str(artifacts), card, actor)
        ids.append(card.id)
    with scene.network.operator() as client, ThreadPoolExecutor(4) as pool:
        for _ in range(draws.randint(4, 12)):
            kind = draws.random()
            request: object
            if kind < 0.6:
                method, request = "DeployPolicy", pb.DeployPolicyRequest(policy=draws.choice(ids))
            elif kind < 0.8:
                method, request = "RollBackPolicy", pb.Empty()
            else:
                name = draws.choice(("drl", "ratc"))
                method, request = "ChangeScheduler", pb.ChangeSchedulerRequest(scheduler=name)
            pool.submit(vanish, client, method, request, draws.expovariate(30))
            rest(draws.expovariate(10))
        problems = settled(scene)
    return Expected(problems=tuple(problems))


@fault("start-storm")
def start_storm(scene: Scene) -> Expected:
    """Callers that start, watch and stop runs and vanish: no run is left running for ever."""
    draws = scene.draws
    with scene.network.operator() as client, ThreadPoolExecutor(4) as pool:
        for _ in range(draws.randint(5, 20)):
            kind = draws.random()
            if kind < 0.5:
                options = json.dumps({}) if draws.random() < 0.3 else ""
                request: object = pb.StartRunRequest(episodes=1, options_json=options)
                method = "StartRun"
            elif kind < 0.7:
                method, request = "StopRun", pb.StopRunRequest()
            elif kind < 0.8:
                method, request = "Status", pb.Empty()
            else:
                method, request = "StopRun", pb.StopRunRequest(run="never-was")
            pool.submit(vanish, client, method, request, draws.expovariate(20))
            rest(draws.expovariate(8))
    problems = []
    try:
        # A run that one of them has begun ends by itself: it has one episode.
        until("the last run ends", lambda: _idle(scene), 60.0)
    except Hang as hang:
        problems.append(str(hang))
    return Expected(states=FINE | {"stopped"}, exits=frozenset({0, 1}), problems=tuple(problems))


def _idle(scene: Scene) -> bool | None:
    status = scene.network.status()
    if status is None:
        raise TestbedError("the controller does not answer")
    return True if status.run is None or status.run.progress.state != "running" else None
