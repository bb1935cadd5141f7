"""The trainer killed in the middle of what it learns; asked again, it goes on and finishes."""

from __future__ import annotations

import signal

from tests.campaign.checks import Expected
from tests.campaign.processes import rest
from tests.campaign.scene import Scene, fault

TRAINER_S = 900.0
_SETTINGS = (
    *("--simulate", "--log-episodes", "4", "--offline-steps", "20"),
    *("--online-episodes", "10", "--evaluation-episodes", "4"),
)


@fault("kill-trainer", "long", run=False)
def kill_trainer(scene: Scene) -> Expected:
    out = str(scene.network.folder / "out" / f"o2o-{scene.trial.number}")
    arguments = ("o2o", "quickstart", *_SETTINGS, "--out", out)
    begun = scene.network.begin_plain(*arguments)
    rest(scene.draws.uniform(1.0, 20.0))
    number = scene.draws.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
    begun.send(number)
    if number is signal.SIGSTOP:
        rest(scene.pause_s())
        begun.send(signal.SIGCONT)
    first = begun.wait(TRAINER_S)
    again = scene.network.begin_plain(*arguments).wait(TRAINER_S)
    problems = []
    if again.code != 0:
        problems.append(f"asked again, `o2o` ended with {again.code}: {again.err[-600:]}")
    return Expected(
        runs=False, problems=tuple(problems), note=f"{number.name}, {first.seconds:.0f} s"
    )
