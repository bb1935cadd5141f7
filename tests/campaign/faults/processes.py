"""Processes killed and held up: nodes, controller, commands."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence

import psutil

from tests.campaign.checks import ALMOST, FINE, Expected
from tests.campaign.processes import rest
from tests.campaign.scene import Scene, fault

CONTROLLER = "controller"
UNREACHABLE = frozenset({4, 5})
"""Exit codes of a command whose controller has gone: no answer, or a failed run."""


def send(scene: Scene, number: signal.Signals, *names: str) -> list[str]:
    """Send a signal to processes of the testbed; those that were there."""
    hit = []
    for name in names:
        process = scene.network.process(name)
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
                hit.append(name)
    return hit


def held(scene: Scene, names: Sequence[str]) -> float:
    """Stop processes for a while; for how long."""
    seconds = scene.pause_s()
    try:
        send(scene, signal.SIGSTOP, *names)
        rest(seconds)
    finally:
        send(scene, signal.SIGCONT, *names)
    return seconds


@fault("kill-node")
def kill_node(scene: Scene) -> Expected:
    node = scene.draws.choice(scene.nodes)
    if scene.draws.random() < 0.3:
        done = scene.network.do("kill", f"{node}")
        problems = () if done.code == 0 else (f"`{done.line}` ended with {done.code}: {done.err}",)
    else:
        send(scene, signal.SIGKILL, f"node-{node}")
        problems = ()
    return Expected(
        states=frozenset({"degraded"}),
        dead=frozenset({node}),
        problems=problems,
        note=f"node {node}",
    )


@fault("kill-nodes")
def kill_nodes(scene: Scene) -> Expected:
    """Two nodes, one shortly after the other."""
    first, second = scene.draws.sample(scene.nodes, 2)
    send(scene, signal.SIGKILL, f"node-{first}")
    rest(scene.draws.choice((0.0, scene.draws.uniform(0, 0.5))))
    send(scene, signal.SIGKILL, f"node-{second}")
    return Expected(
        states=frozenset({"degraded"}),
        dead=frozenset({first}),
        away=frozenset({second}),
        died=frozenset({second}),
        note=f"nodes {first}, {second}",
    )


@fault("kill-all-nodes")
def kill_all_nodes(scene: Scene) -> Expected:
    send(scene, signal.SIGKILL, *(f"node-{node}" for node in scene.nodes))
    return Expected(
        states=frozenset({"failed", "degraded"}),
        exits=frozenset({0, 5}),
        dead=frozenset(scene.nodes),
        reason="no node is left",
    )


@fault("pause-node")
def pause_node(scene: Scene) -> Expected:
    node = scene.draws.choice(scene.nodes)
    seconds = held(scene, [f"node-{node}"])
    return Expected(states=ALMOST, away=frozenset({node}), note=f"node {node} for {seconds:.1f} s")


@fault("pause-controller")
def pause_controller(scene: Scene) -> Expected:
    seconds = held(scene, [CONTROLLER])
    return Expected(states=ALMOST, note=f"{seconds:.1f} s")


@fault("pause-everything")
def pause_everything(scene: Scene) -> Expected:
    """What a laptop does whose lid is closed."""
    names = [CONTROLLER, *(f"node-{node}" for node in scene.nodes)]
    scene.draws.shuffle(names)
    seconds = held(scene, names)
    return Expected(states=ALMOST, note=f"{seconds:.1f} s")


@fault("kill-controller")
def kill_controller(scene: Scene) -> Expected:
    send(scene, signal.SIGKILL, CONTROLLER)
    return Expected(states=frozenset({"interrupted"}), exits=UNREACHABLE)


@fault("end-controller")
def end_controller(scene: Scene) -> Expected:
    send(scene, scene.draws.choice((signal.SIGTERM, signal.SIGINT)), CONTROLLER)
    return Expected(states=frozenset({"stopped"}), exits=UNREACHABLE | {1})


@fault("end-node")
def end_node(scene: Scene) -> Expected:
    """A node that is told to end says farewell, and takes its tasks with it."""
    node = scene.draws.choice(scene.nodes)
    send(scene, signal.SIGTERM, f"node-{node}")
    return Expected(states=frozenset({"degraded"}), dead=frozenset({node}), note=f"node {node}")


@fault("kill-command")
def kill_command(scene: Scene) -> Expected:
    """Who watches a run goes away; the run goes on."""
    assert scene.command is not None
    scene.command.send(signal.SIGKILL)
    return Expected(exits=frozenset({-signal.SIGKILL, 0}))


@fault("pause-command")
def pause_command(scene: Scene) -> Expected:
    assert scene.command is not None
    seconds = scene.pause_s()
    scene.command.send(signal.SIGSTOP)
    rest(seconds)
    scene.command.send(signal.SIGCONT)
    return Expected(note=f"{seconds:.1f} s")


@fault("end-command")
def end_command(scene: Scene) -> Expected:
    assert scene.command is not None
    number = scene.draws.choice((signal.SIGTERM, signal.SIGINT))
    scene.command.send(number)
    return Expected(
        states=FINE | {"stopped"}, exits=frozenset({0, 1, 128 + number}), note=number.name
    )


@fault("kill-up", run=False)
def kill_up(scene: Scene) -> Expected:
    """An ``up`` ends in the middle; what it has started is found and ended."""
    begun = scene.network.begin_up(scene.trial)
    rest(scene.draws.uniform(0.05, 1.5))
    number = scene.draws.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    begun.send(number)
    done = begun.wait()
    allowed = (0, -number, 128 + number)
    problems = () if done.code in allowed else (f"`up` ended with {done.code}: {done.err}",)
    return Expected(runs=False, problems=problems, note=f"{number.name} after {done.seconds:.1f} s")


@fault("kill-teardown")
def kill_teardown(scene: Scene) -> Expected:
    """A ``teardown`` ends in the middle of a run; the next one finishes it."""
    begun = scene.network.begin("teardown")
    rest(scene.draws.uniform(0.1, 1.0))
    begun.send(signal.SIGKILL)
    done = begun.wait()
    return Expected(
        states=ALMOST | {"stopped", "interrupted"},
        exits=UNREACHABLE | {0, 1},
        away=frozenset(scene.nodes),
        note=f"after {done.seconds:.1f} s",
    )
