"""The clock of the machine is stepped: real time goes on, the calendar does not."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.checks import Expected
from tests.campaign.processes import rest
from tests.campaign.scene import Scene, fault

STEPS_S = (-86_400.0, -3_600.0, -7.0, -0.5, 0.5, 7.0, 3_600.0, 86_400.0, 40_000_000.0)


@fault("clock", clock=True)
def step_clock(scene: Scene) -> Expected:
    """One to three steps; processes, commands and the next ones all see them."""
    path = Path(scene.network.variables["CAMPAIGN_CLOCK"])
    offset = 0.0
    steps = [scene.draws.choice(STEPS_S) for _ in range(scene.draws.randint(1, 3))]
    for step in steps:
        offset += step
        path.write_text(str(offset))
        rest(scene.draws.uniform(0, 0.5))
    found = scene.network.do("status", "--json")
    problems = () if found.code == 0 else (f"`status` ended with {found.code}: {found.err}",)
    return Expected(problems=problems, note=", ".join(f"{step:+g} s" for step in steps))
