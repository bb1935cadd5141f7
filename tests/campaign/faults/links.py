"""Links between processes cut in one or both directions, reset, delayed; calls made twice."""

from __future__ import annotations

from tests.campaign.checks import ALMOST, Expected
from tests.campaign.processes import rest
from tests.campaign.scene import Scene, fault
from tests.campaign.switchboard import Pair, Switchboard


def _board(scene: Scene) -> Switchboard:
    assert scene.switchboard is not None
    return scene.switchboard


def _of_nodes(scene: Scene) -> Pair:
    first, second = scene.draws.sample(scene.nodes, 2)
    return f"node-{first}", f"node-{second}"


def _of_controller(scene: Scene) -> tuple[int, Pair]:
    node = scene.draws.choice(scene.nodes)
    pair = ("controller", f"node-{node}")
    return node, pair if scene.draws.random() < 0.5 else pair[::-1]


@fault("cut-peers", links=True)
def cut_peers(scene: Scene) -> Expected:
    """No bytes between two nodes; both live and reach the controller."""
    pair, seconds = _of_nodes(scene), scene.pause_s()
    _board(scene).hold(pair, pair[::-1])
    rest(seconds)
    _board(scene).heal()
    return Expected(states=ALMOST, note=f"{pair} for {seconds:.1f} s")


@fault("cut-peers-one-way", links=True)
def cut_peers_one_way(scene: Scene) -> Expected:
    pair, seconds = _of_nodes(scene), scene.pause_s()
    _board(scene).hold(pair)
    rest(seconds)
    _board(scene).heal()
    return Expected(states=ALMOST, note=f"{pair} for {seconds:.1f} s")


@fault("reset-peers", links=True)
def reset_peers(scene: Scene) -> Expected:
    pair, seconds = _of_nodes(scene), scene.pause_s() / 4
    _board(scene).reset(pair)
    rest(seconds)
    _board(scene).heal()
    return Expected(states=ALMOST, note=f"{pair} for {seconds:.1f} s")


@fault("delay-all", links=True)
def delay_all(scene: Scene) -> Expected:
    """Every message comes late."""
    names = ["controller", *(f"node-{node}" for node in scene.nodes)]
    pairs = [(a, b) for a in names for b in names if a != b]
    late, seconds = scene.draws.uniform(0.01, 1.5), scene.pause_s()
    _board(scene).delay(late, *pairs)
    rest(seconds)
    _board(scene).heal()
    return Expected(states=ALMOST, note=f"{late:.2f} s late for {seconds:.1f} s")


@fault("cut-controller", links=True)
def cut_controller(scene: Scene) -> Expected:
    """No bytes between the controller and a node."""
    node, pair = _of_controller(scene)
    seconds = scene.pause_s()
    _board(scene).hold(pair, pair[::-1])
    rest(seconds)
    _board(scene).heal()
    return Expected(states=ALMOST, away=frozenset({node}), note=f"{pair} for {seconds:.1f} s")


@fault("cut-controller-one-way", links=True)
def cut_controller_one_way(scene: Scene) -> Expected:
    node, pair = _of_controller(scene)
    seconds = scene.pause_s()
    _board(scene).hold(pair)
    rest(seconds)
    _board(scene).heal()
    return Expected(states=ALMOST, away=frozenset({node}), note=f"{pair} for {seconds:.1f} s")


@fault("reset-controller", links=True)
def reset_controller(scene: Scene) -> Expected:
    """Connections between controller and node break: batches are sent again, and stored once."""
    node, pair = _of_controller(scene)
    times = scene.draws.randint(1, 3)
    for _ in range(times):
        _board(scene).reset(pair)
        rest(scene.draws.uniform(0, 0.4))
        _board(scene).heal()
        rest(scene.draws.uniform(0, 0.4))
    return Expected(states=ALMOST, away=frozenset({node}), note=f"{pair} {times} times")


@fault("calls-twice", links=True, twice=0.5)
def calls_twice(scene: Scene) -> Expected:
    """Half of all unary calls between processes come twice, from before the run begins."""
    rest(scene.draws.uniform(0, 0.5))
    return Expected()
