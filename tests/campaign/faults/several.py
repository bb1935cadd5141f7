"""Two faults at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.campaign.checks import ALMOST, Expected
from tests.campaign.faults.callers import scheduler_storm
from tests.campaign.faults.processes import pause_controller, pause_node
from tests.campaign.processes import rest
from tests.campaign.scene import Scene, fault


@fault("pause-both")
def pause_both(scene: Scene) -> Expected:
    """A node and the controller hang, one a little later than the other."""
    with ThreadPoolExecutor(2) as pool:
        node = pool.submit(pause_node, scene)
        rest(scene.draws.uniform(0, 0.5))
        controller = pool.submit(pause_controller, scene)
        first, second = node.result(), controller.result()
    return Expected(states=ALMOST, away=first.away, note=f"{first.note}; {second.note}")


@fault("storm-in-pause")
def storm_in_pause(scene: Scene) -> Expected:
    """Changes of scheduler while a node hangs: everywhere or nowhere."""
    with ThreadPoolExecutor(2) as pool:
        node = pool.submit(pause_node, scene)
        storm = pool.submit(scheduler_storm, scene)
        first, second = node.result(), storm.result()
    return Expected(states=ALMOST, away=first.away, problems=second.problems, note=first.note)
