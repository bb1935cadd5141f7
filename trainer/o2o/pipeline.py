"""The whole story in the simulator: logs, offline, online, evaluation; resumable, seeded.

Guarantees: what is learned from, what policies are kept or rolled back by, and what the final
figures come from are three disjoint sets of episodes; all methods meet the same episodes in the
final evaluation; the same plan, settings and seed give the same figures, interrupted or not.
``testbed.experiment.o2o`` turns the result into a report.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.scenario.plan import Plan
from testbed.schedulers.registry import SIMULATOR_ONLY
from testbed.schedulers.registry import check as check_scheduler
from testbed.sim.arrays import check, without_control_delay
from testbed.sim.bound import bound
from testbed.sim.play import PER_DESTINATION, UNTRAINED, evaluate
from trainer.learning.actor import Actor
from trainer.learning.checkpoint import read_checkpoint, write_checkpoint
from trainer.learning.offline import OfflineProgress, OfflineResult, train_offline
from trainer.learning.online import (
    Comparison,
    CurvePoint,
    OnlineResult,
    Rollout,
    Scores,
    begun_from,
    fine_tune,
)
from trainer.o2o.logged import Logged
from trainer.o2o.recipe import DEFAULT, Recipe
from trainer.o2o.simulated import SimulatedRollout, first_log_episode, log_episodes
from trainer.o2o.sizes import refuse_too_few

BASELINES: Final = (
    "random",
    "local",
    "ratc",
    "rda",
    "ratc-masked",
    "rda-masked",
    "local-or-reliable",
    UNTRAINED,
    PER_DESTINATION,
    "central",
    "oracle",
)
"""What the learned policies are held against; see docs/schedulers.md."""

OFFLINE: Final = "offline"
O2O: Final = "o2o"
ONLINE_ONLY: Final = "online-only"

SETTINGS: Final = "settings.json"
RESULT: Final = "evaluation.npz"
DURATIONS: Final = "durations.json"

Stage: TypeAlias = Literal["logs", "offline", "online", "online-only", "evaluation", "network"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the story is: ``done`` of ``total`` in a stage, and what it says there."""

    stage: Stage
    done: int
    total: int
    message: str


Report: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class O2OConfig:
    """Settings of one story; the sizes of both phases are in the recipe.

    Raises:
        UsageError: a value outside its range.
    """

    recipe: Recipe = DEFAULT
    source: str = "ratc"
    """The baseline whose logs the offline phase learns from."""
    log_episodes: int = 500
    evaluation_episodes: int = 40
    """Paired episodes of the final evaluation, numbers 0, 1, ..."""
    methods: tuple[str, ...] = BASELINES
    """What the learned policies are compared with."""
    offline: bool = True
    """Whether there is an offline phase; without, nothing but ``online_only`` is learned."""
    online: bool = True
    """Whether the offline policy is fine-tuned."""
    online_only: bool = False
    """Whether the online learner also starts from nothing, for comparison."""
    with_bound: bool = True
    seed: int = 0
    """Seed of what is learned from; that of the learners is in the recipe."""

    def __post_init__(self) -> None:
        refuse_too_few(self.log_episodes, self.evaluation_episodes, self.seed)


@dataclass(frozen=True, slots=True, eq=False)
class O2OResult:
    """What came of it. ``rates`` has the success rate of each evaluation episode by method.

    ``validation`` has the mean rate of ``source`` and of the offline policy in the episodes by
    which the online phase judges its policies; the curve's evaluations are of the same episodes.
    """

    plan: Plan
    config: O2OConfig
    rates: Mapping[str, Scores]
    bound: Scores | None
    log_rate: float | None
    curve: tuple[CurvePoint, ...]
    online_only_curve: tuple[CurvePoint, ...]
    validation: Mapping[str, float]
    gate: Comparison | None
    refused: bool
    rollbacks: int
    best_update: int
    offline_metrics: Mapping[str, float]
    durations: Mapping[str, float]
    offline_actor: Actor | None
    actor: Actor | None
    online_only_actor: Actor | None
    data_hash: str
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Learned:
    offline: OfflineResult | None = None
    online: OnlineResult | None = None
    online_only: OnlineResult | None = None
    log_rate: float | None = None
    data_hash: str = ""
    validation: dict[str, float] = field(default_factory=dict)

    def actors(self) -> dict[str, Actor]:
        found = {}
        if self.offline is not None:
            found[OFFLINE] = self.offline.actor
        if self.online is not None:
            found[O2O] = self.online.actor
        if self.online_only is not None:
            found[ONLINE_ONLY] = self.online_only.actor
        return found


def run_simulated(
    plan: Plan,
    config: O2OConfig,
    out: Path,
    *,
    progress: Report | None = None,
    resume: bool = True,
    threads: int | None = None,
    rollout: Rollout | None = None,
) -> O2OResult:
    """Tell the whole story of ``plan`` in the simulator; checkpoints and policies go to ``out``.

    With ``resume`` what is in ``out`` is continued; it must be of the same plan and settings.
    ``threads`` None takes one per CPU for episodes. ``rollout`` runs the online episodes somewhere
    else than in this process (``trainer.o2o.cluster``). Control messages take no time here; where
    the plan says otherwise, ``notes`` does too.

    Raises:
        UsageError: a plan the compiled engine does not cover, an unknown source or method, or
            ``out`` is of another story, or of one that has learned more.
        PermanentError: a loss is no longer finite.
    """
    say = progress or (lambda _: None)
    notes = []
    if plan.rules.control_delay:
        notes.append(
            f"control messages take {plan.rules.control_delay / 1000:g} ms in this scenario and "
            "no time in this simulation"
        )
        plan = without_control_delay(plan)
    check(plan)
    if config.source not in SIMULATOR_ONLY:
        check_scheduler(config.source)
    _claim(plan, config, out, resume)
    clock = _Durations(out)
    recipe = config.recipe
    learned = _Learned()
    if config.offline:
        _learn_offline(plan, config, out, learned, say, clock, resume, threads)
    rollout = rollout or SimulatedRollout(
        plan, recipe.online_reward, later_weight=recipe.later_weight, threads=threads
    )
    if config.offline and config.online:
        assert learned.offline is not None
        with clock.measure("online"):
            learned.online = _learn_online(
                plan, config, out, learned, rollout, say, resume, threads
            )
    if config.online_only:
        with clock.measure("online-only"):
            learned.online_only = fine_tune(
                rollout,
                _network(plan, recipe),
                recipe.online,
                out / ONLINE_ONLY,
                progress=_online_progress(say, "online-only", recipe.online.episodes),
                resume=resume,
            )
    with clock.measure("evaluation"):
        rates, limit = _evaluate(plan, config, out, learned.actors(), say, threads)
    online, offline = learned.online, learned.offline
    return O2OResult(
        plan=plan,
        config=config,
        rates=rates,
        bound=limit,
        log_rate=learned.log_rate,
        curve=() if online is None else online.history,
        online_only_curve=() if learned.online_only is None else learned.online_only.history,
        validation=learned.validation,
        gate=None if online is None else online.gate,
        refused=online is not None and online.refused,
        rollbacks=0 if online is None else online.rollbacks,
        best_update=0 if online is None else online.best_update,
        offline_metrics={} if offline is None else offline.metrics,
        durations=clock.seconds,
        offline_actor=None if offline is None else offline.actor,
        actor=None if online is None else online.actor,
        online_only_actor=None if learned.online_only is None else learned.online_only.actor,
        data_hash=learned.data_hash,
        notes=tuple(notes),
    )


def _learn_offline(
    plan: Plan,
    config: O2OConfig,
    out: Path,
    learned: _Learned,
    say: Report,
    clock: _Durations,
    resume: bool,
    threads: int | None,
) -> None:
    recipe = config.recipe
    first = first_log_episode(config.seed)
    with clock.measure("logs"):
        logged = log_episodes(
            plan,
            config.source,
            range(first, first + config.log_episodes),
            later_weight=recipe.later_weight,
            threads=threads,
            progress=lambda done, total: say(
                Progress("logs", done, total, f"{done} of {total} episodes of {config.source}")
            ),
        )
        learned.log_rate = float(np.nanmean(logged.success_rate))
        learned.data_hash = hash_of(logged)
        transitions = logged.transitions(recipe.offline_reward)
        del logged
    with clock.measure("offline"):
        learned.offline = train_offline(
            transitions,
            recipe.offline,
            out / OFFLINE,
            progress=_offline_progress(say),
            resume=resume,
        )


def _learn_online(
    plan: Plan,
    config: O2OConfig,
    out: Path,
    learned: _Learned,
    rollout: Rollout,
    say: Report,
    resume: bool,
    threads: int | None,
) -> OnlineResult:
    recipe, offline = config.recipe, learned.offline
    assert offline is not None
    episodes = recipe.online.evaluation_episodes
    reference = rollout.evaluate(offline.actor, episodes)
    learned.validation[OFFLINE] = float(np.nanmean(reference))
    if isinstance(rollout, SimulatedRollout):
        known = evaluate(plan, [config.source], rollout.evaluation_numbers(episodes))
        learned.validation[config.source] = float(np.nanmean(known[config.source]))
    return fine_tune(
        rollout,
        offline.actor.spec,
        recipe.online,
        out / "online",
        weights=offline.weights,
        reward_scale=offline.reward_scale,
        reference=reference,
        progress=_online_progress(say, "online", recipe.online.episodes),
        # An offline policy that was trained further is another start.
        resume=resume and begun_from(out / "online", offline.weights),
    )


def _evaluate(
    plan: Plan,
    config: O2OConfig,
    out: Path,
    actors: Mapping[str, Actor],
    say: Report,
    threads: int | None,
) -> tuple[dict[str, Scores], Scores | None]:
    methods = list(dict.fromkeys((*config.methods, *actors)))
    names = [*methods, "bound"] if config.with_bound else methods
    path = out / RESULT
    rates: dict[str, Scores] = {}
    if path.exists():
        # Baselines do not change when the learners are given more to learn from.
        stored, _ = read_checkpoint(path, "evaluation")
        rates = {name: stored[name] for name in names if name in stored and name not in actors}
    numbers = range(config.evaluation_episodes)
    for done, name in enumerate(names):
        say(Progress("evaluation", done, len(names), name))
        if name in rates:
            continue
        if name == "bound":
            rates[name] = np.array([bound(plan, number) for number in numbers])
        else:
            rates[name] = evaluate(plan, [name], numbers, actors, threads=threads)[name]
    write_checkpoint(path, "evaluation", rates, {})
    say(Progress("evaluation", len(names), len(names), "done"))
    limit = rates.get("bound")
    return {name: rates[name] for name in methods}, limit


def hash_of(logged: Logged) -> str:
    """sha256 over what was seen, done and got: which data a policy was trained on."""
    digest = hashlib.sha256()
    for array in (logged.states, logged.action, logged.team):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _network(plan: Plan, recipe: Recipe) -> Any:
    from trainer.learning.actor import NetworkSpec

    size = plan.topology.size
    return NetworkSpec(3 * size + 7, size + 1, recipe.offline.hidden)


def identity(plan: Plan, config: O2OConfig) -> dict[str, Any]:
    """What must be equal for ``out`` to be continued.

    How much is learned may be raised, and what is compared may change.
    """
    recipe = asdict(config.recipe)
    recipe["offline"].pop("steps")
    recipe["online"].pop("episodes")
    return {
        "scenario_hash": plan.scenario_hash,
        "schedulers_seed": plan.seeds.schedulers,
        "recipe": recipe,
        "source": config.source,
        "log_episodes": config.log_episodes,
        "evaluation_episodes": config.evaluation_episodes,
        "seed": config.seed,
    }


def _claim(plan: Plan, config: O2OConfig, out: Path, resume: bool) -> None:
    """Make ``out`` this story's, or refuse it."""
    path = out / SETTINGS
    mine = json.loads(json.dumps(identity(plan, config)))
    if resume and path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            theirs = {}
        problems = [
            Problem(
                f"{path}: {name}", _short(theirs.get(name)), f"{_short(value)} as now asked for"
            )
            for name, value in mine.items()
            if theirs.get(name) != value
        ]
        if problems:
            raise UsageError(
                "the folder belongs to another story; choose another one, or begin anew", problems
            )
        return
    if out.exists() and not path.exists() and any(out.iterdir()):
        raise UsageError(
            "nothing was done",
            [
                Problem(
                    str(out), "holds something else", "an empty or new folder, or one of a story"
                )
            ],
        )
    out.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, DURATIONS):
        (out / name).unlink(missing_ok=True)
    path.write_text(json.dumps(mine, indent=2) + "\n", encoding="utf-8")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _offline_progress(say: Report) -> Callable[[OfflineProgress], None]:
    def told(now: OfflineProgress) -> None:
        say(Progress("offline", now.step, now.steps, f"entropy {now.metrics['entropy']:.2f}"))

    return told


def _online_progress(say: Report, stage: Stage, total: int) -> Callable[[CurvePoint], None]:
    def told(point: CurvePoint) -> None:
        parts = []
        if point.collected is not None:
            parts.append(f"collected {100 * point.collected:.1f} %")
        if point.evaluation is not None:
            parts.append(f"evaluated {100 * point.evaluation:.1f} %, {point.verdict}")
        say(Progress(stage, point.episodes, total, ", ".join(parts)))

    return told


class _Durations:
    """Seconds by stage, added up over interruptions."""

    def __init__(self, out: Path) -> None:
        self._path = out / DURATIONS
        self.seconds: dict[str, float] = {}
        if self._path.exists():
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            self.seconds = {
                str(name): float(value)
                for name, value in stored.items()
                if math.isfinite(float(value))
            }

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + taken, 3)
            self._path.write_text(json.dumps(self.seconds) + "\n", encoding="utf-8")


def mean_and_error(rates: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over episodes and its standard error; episodes without a task do not count."""
    told = rates[np.isfinite(rates)]
    return float(told.mean()), float(told.std(ddof=1) / math.sqrt(len(told)))
