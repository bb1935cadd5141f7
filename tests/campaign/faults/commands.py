"""Commands in each other's way."""

from __future__ import annotations

from tests.campaign.checks import Expected
from tests.campaign.faults.processes import UNREACHABLE
from tests.campaign.scene import Scene, fault


@fault("second-up")
def second_up(scene: Scene) -> Expected:
    """A name that is taken is refused, and nothing happens to what is up."""
    done = scene.network.up(scene.trial)
    problems = () if done.code == 2 else (f"a second `up` ended with {done.code}: {done.err}",)
    return Expected(problems=problems)


@fault("second-run")
def second_run(scene: Scene) -> Expected:
    """A second run is refused; the first goes on."""
    others = [scene.network.begin("run", "--json") for _ in range(scene.draws.choice((1, 2)))]
    problems = []
    for other in others:
        done = other.wait()
        still = scene.command is not None and scene.command.running
        if done.code != 2 and still:
            problems.append(f"a second `run` ended with {done.code}: {done.err}")
    return Expected(problems=tuple(problems))


@fault("teardown-in-run")
def teardown_in_run(scene: Scene) -> Expected:
    done = scene.network.do("teardown")
    problems = () if done.code == 0 else (f"`teardown` ended with {done.code}: {done.err}",)
    return Expected(states=frozenset({"stopped"}), exits=UNREACHABLE | {1}, problems=problems)


@fault("two-teardowns")
def two_teardowns(scene: Scene) -> Expected:
    """At the same time: one does it, the other does nothing or says that one is busy."""
    begun = [scene.network.begin("teardown") for _ in range(2)]
    codes = sorted(each.wait().code for each in begun)
    problems = () if codes in ([0, 0], [0, 2]) else (f"two teardowns ended with {codes}",)
    return Expected(states=frozenset({"stopped"}), exits=UNREACHABLE | {1}, problems=problems)
