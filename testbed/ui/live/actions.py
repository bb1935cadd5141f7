"""What the buttons of the live page do, by the same calls as the command line.

All of it takes a while: a page has it done in a thread. Each raises a TestbedError where it could
not be done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.api import home, places, running
from testbed.api.faulting import fault_of, refuse_wrong
from testbed.api.policies import imported
from testbed.errors import TestbedError
from testbed.policies import SHIPPED_PREFIX, list_policies, shipped_names
from testbed.rpc.operator import PolicyDeployment
from testbed.schedulers import registry
from testbed.ui.live.snapshot import Event


def testbeds() -> tuple[str, ...]:
    """Return the names of all testbeds of this home that are up, as far as they can be asked."""
    if home.controller():
        return places.runtime().names()
    found: dict[str, None] = {}
    for place in places.all_places():
        try:
            found.update(dict.fromkeys(places.open_place(place, patience_s=3.0).names()))
        except TestbedError:
            # One that is away keeps the others from nothing.
            continue
    return tuple(found)


def schedulers(hook: str) -> tuple[str, ...]:
    """Return the schedulers for a kind of decision, by name."""
    return tuple(registry.names(hook))


def policies(name: str) -> tuple[str, ...]:
    """Return the policies that can be deployed on a testbed: those shipped, and of its store."""
    testbed = places.runtime(name).find(name)
    shipped = tuple(SHIPPED_PREFIX + each for each in shipped_names())
    store = testbed.artifacts
    if not store:
        with running.client_of(testbed) as client:
            store = client.status().artifacts
    return (*shipped, *reversed(list_policies(store)))


def start_run(
    name: str, scheduler: str, episodes: int | None, label: str, first_episode: int
) -> tuple[Event, ...]:
    """Start a run; nothing for the options that are empty."""
    with running.client_of(places.runtime(name).find(name)) as client:
        client.start_run(
            scheduler=scheduler,
            episodes=episodes or 0,
            label=label,
            first_episode=first_episode,
        )
    # The run tells of itself.
    return ()


def stop_run(name: str, run: str) -> tuple[Event, ...]:
    """End a run in order."""
    with running.client_of(places.runtime(name).find(name)) as client:
        client.stop_run(run)
    return ()


def set_scheduler(name: str, scheduler: str, nodes: Sequence[int]) -> tuple[Event, ...]:
    """Change the scheduler of nodes (none: all), and return what they have answered."""
    testbed = places.runtime(name).find(name)
    answers = running.set_scheduler(testbed, scheduler, nodes, {})
    at = time.time()
    told = ", ".join(str(each.node) for each in answers)
    return (Event(at, "scheduler", f"{scheduler} was acknowledged by nodes {told}"),)


def deploy(name: str, policy: str, nodes: Sequence[int]) -> tuple[Event, ...]:
    """Deploy a policy to nodes (none: all), and return what they have answered."""
    testbed = places.runtime(name).find(name)
    with running.client_of(testbed) as client:
        store = testbed.artifacts or client.status().artifacts
        done = client.deploy_policy(imported(policy, store), nodes=nodes)
    return tuple(deployed(done, time.time()))


def roll_back(name: str) -> tuple[Event, ...]:
    """Undo the last deploy, and return what nodes have answered."""
    with running.client_of(places.runtime(name).find(name)) as client:
        done = client.roll_back_policy()
    return tuple(deployed(done, time.time()))


def deployed(done: PolicyDeployment, at: float) -> Iterator[Event]:
    """Yield what nodes have answered to a deploy, those with the same answer together."""
    verdict = "was deployed" if done.accepted else "was not deployed, nothing has changed"
    text = f"{done.policy} {verdict} ({done.seconds:.2f} s)"
    yield Event(at, "policy", text, bad=not done.complete)
    answers: dict[tuple[str, str], list[int]] = {}
    for node in done.nodes:
        answers.setdefault((node.state, node.reason), []).append(node.node)
    for (state, reason), nodes in answers.items():
        why = f": {reason}" if reason else ""
        bad = state in {"refused", "lost"}
        yield Event(at, "policy", f"nodes {', '.join(map(str, nodes))}: {state}{why}", bad)
    for warning in done.warnings:
        yield Event(at, "policy", warning, bad=True)


def kill(name: str, node: int) -> tuple[Event, ...]:
    """End a node at once, as a crash would."""
    stopped = places.runtime(name).kill(name, node)
    return (Event(time.time(), "node", f"{stopped.name} was killed by hand", bad=True),)


def inject(name: str, entry: Mapping[str, Any]) -> tuple[Event, ...]:
    """Inject the fault with these keys of a scenario."""
    # Before any request, so that mistakes are told even where no testbed is up.
    refuse_wrong(entry, None)
    with running.client_of(places.runtime(name).find(name)) as client:
        found = client.inject_fault(fault_of(entry, len(client.status().nodes)))
    at = time.time()
    return tuple(
        Event(at, "fault", f"fault {each.id} was injected by hand: {each.what}")
        for each in found.faults
        if each.id in found.changed
    )


def clear_faults(name: str) -> tuple[Event, ...]:
    """Release all faults that were injected by hand."""
    with running.client_of(places.runtime(name).find(name)) as client:
        found = client.clear_faults()
    count = len(found.changed)
    return (Event(time.time(), "fault", f"{count} faults by hand were released"),)
