"""A whole experiment: logs, offline, online, evaluation; resumable, seeded, on any venue.

Guarantees: what is learned from, what policies are kept or rolled back by, and what the final
figures come from are three disjoint sets of episodes; all methods meet the same episodes in the
final evaluation; in the simulator the same plan, settings and seed give the same figures,
interrupted or not. ``testbed.experiment.o2o`` turns the result into a report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from testbed.files import working_in
from trainer.learning.actor import Actor
from trainer.learning.offline import OfflineProgress, OfflineResult, train_offline
from trainer.learning.online import (
    CurvePoint,
    OnlineResult,
    Scores,
    Start,
    begun_from,
    fine_tune,
    numbers_of,
)
from trainer.o2o.folder import FOLDERS, ExperimentLedger
from trainer.o2o.logged import LoggedSequences
from trainer.o2o.recipe import document
from trainer.o2o.result import O2OResult, keep_policies, training_of
from trainer.o2o.settings import O2O, OFFLINE, ONLINE_ONLY, O2OConfig, Report, Stage, StageProgress
from trainer.o2o.simulated import first_log_episode
from trainer.o2o.venue import BOUND, Setup, Venue, spec_of
from trainer.tracking import Experiment, Tracking, settings_of


@dataclass(slots=True)
class _Learned:
    offline: OfflineResult | None = None
    online: OnlineResult | None = None
    online_only: OnlineResult | None = None
    log_rate: float | None = None
    data_hash: str = ""
    validation: dict[str, float] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def all(self) -> dict[str, OfflineResult | OnlineResult]:
        """Return what has been learned, by name."""
        found = {OFFLINE: self.offline, O2O: self.online, ONLINE_ONLY: self.online_only}
        return {name: each for name, each in found.items() if each is not None}


def run(
    venue: Venue,
    config: O2OConfig,
    out: Path,
    *,
    progress: Report | None = None,
    tracking: Tracking | None = None,
    resume: bool = True,
) -> O2OResult:
    """Run the whole experiment on ``venue``; checkpoints and policies go to ``out``.

    ``tracking`` is told the metrics as they come; who made it ends it.

    With ``resume`` what is in ``out`` is continued; it must be of the same plan and settings. On a
    network, runs that are done are not done again, and the best policy is deployed at the end.

    Raises:
        UsageError: settings that are not possible there (``Venue.identity``), an unknown method, or
            ``out`` has results of a different experiment, of one that has learned more, or
            another one works there, or a tracker cannot begin.
        PermanentError: a loss is no longer finite; runs of a network fail or are outside their
            limits of fidelity.
        TemporaryError: a policy did not reach all nodes, a node is not healthy, or something did
            not answer; the same call goes on.
    """
    mine = venue.identity(config)
    # Before the folder is made: what is refused leaves nothing behind.
    there = ExperimentLedger.check(out, venue.driver, mine, resume=resume).path.exists()
    with working_in(out, "experiment"):
        ledger = ExperimentLedger.claim(out, venue.driver, mine, resume=resume)
        setup = Setup(config, ledger, progress or (lambda _: None), tracking or Tracking())
        setup.tracking.begin(_described(venue, config, out, continued=resume and there))
        venue.begin(setup)
        return _run(venue, setup, resume)


def _run(venue: Venue, setup: Setup, resume: bool) -> O2OResult:
    config, ledger, out = setup.config, setup.ledger, setup.out
    learned = _Learned()
    if config.offline:
        _learn_offline(venue, setup, learned, resume)
    if config.offline and config.online:
        with ledger.measure("online"):
            _learn_online(venue, setup, learned, resume)
    if config.online_only:
        with ledger.measure("online-only"):
            learned.online_only = fine_tune(
                venue,
                spec_of(venue.plan, config),
                config.recipe.online,
                out / FOLDERS[ONLINE_ONLY],
                progress=_online_progress(setup, "online-only"),
                resume=resume,
            )
    actors = {name: each.actor for name, each in learned.all().items()}
    with ledger.measure("evaluation"):
        rates = _evaluate(venue, setup, actors)
    means = {name: float(np.nanmean(each)) for name, each in rates.items()}
    setup.tracking.metrics("evaluation", 0, means)
    result = _result(venue, setup, learned, rates)
    kept = {**learned.kept, **venue.kept(actors)}
    policies = keep_policies(result, out, venue.store, kept)
    return replace(result, policies=policies, details=venue.finish(policies, actors))


def _described(venue: Venue, config: O2OConfig, out: Path, *, continued: bool) -> Experiment:
    plan = venue.plan
    chosen = {
        "scenario_hash": plan.scenario_hash,
        "driver": venue.driver,
        **asdict(config),
        "recipe": document(config.recipe),
    }
    return Experiment(plan.name, out, settings_of(chosen), continued)


def _learn_offline(venue: Venue, setup: Setup, learned: _Learned, resume: bool) -> None:
    config, recipe = setup.config, setup.config.recipe
    with setup.ledger.measure("logs"):
        logged = venue.log(first_log_episode(config.seed), config.log_episodes)
        learned.log_rate = float(np.nanmean(logged.success_rate))
        learned.data_hash = hash_of(logged)
        transitions = logged.transitions(recipe.offline_reward)
        del logged
    with setup.ledger.measure("offline"):
        learned.offline = train_offline(
            transitions,
            replace(recipe.offline, scale=spec_of(venue.plan, config).scale),
            setup.out / FOLDERS[OFFLINE],
            progress=_offline_progress(setup),
            resume=resume,
        )
    facts = {"data_hash": learned.data_hash, "training": training_of(config, OFFLINE)}
    policy = venue.hand_over(learned.offline.actor, facts)
    if policy is not None:
        learned.kept[OFFLINE] = policy


def _learn_online(venue: Venue, setup: Setup, learned: _Learned, resume: bool) -> None:
    config, recipe, offline = setup.config, setup.config.recipe, learned.offline
    assert offline is not None
    folder = setup.out / FOLDERS[O2O]
    episodes = recipe.online.evaluation_episodes
    reference = venue.evaluate(offline.actor, episodes)
    learned.validation[OFFLINE] = float(np.nanmean(reference))
    learned.validation[config.source] = float(np.nanmean(venue.source_rates(episodes)))
    learned.online = fine_tune(
        venue,
        offline.actor.spec,
        recipe.online,
        folder,
        start=Start(offline.weights, offline.reward_scale, reference),
        progress=_online_progress(setup, "online"),
        # An offline policy that was trained further is another start.
        resume=resume and begun_from(folder, offline.weights),
    )


def _evaluate(venue: Venue, setup: Setup, actors: Mapping[str, Actor]) -> dict[str, Scores]:
    config = setup.config
    names = list(dict.fromkeys((*config.methods, *actors)))
    if config.with_bound:
        names.append(BOUND)
    rates = {}
    for done, name in enumerate(names):
        setup.say(StageProgress("evaluation", done, len(names), name))
        rates[name] = venue.rates(name, config.evaluation_episodes, actors.get(name))
    setup.say(StageProgress("evaluation", len(names), len(names), "done"))
    return rates


def _result(
    venue: Venue, setup: Setup, learned: _Learned, rates: Mapping[str, Scores]
) -> O2OResult:
    tuned = {name: each for name, each in learned.all().items() if isinstance(each, OnlineResult)}
    online, offline = learned.online, learned.offline
    return O2OResult(
        plan=venue.plan,
        driver=venue.driver,
        config=setup.config,
        rates={name: each for name, each in rates.items() if name != BOUND},
        bound=rates.get(BOUND),
        log_rate=learned.log_rate,
        curves={name: each.history for name, each in tuned.items()},
        validation=learned.validation,
        gate=None if online is None else online.gate,
        refused=online is not None and online.refused,
        rollbacks=0 if online is None else online.rollbacks,
        best_update=0 if online is None else online.best_update,
        offline_metrics={} if offline is None else offline.metrics,
        durations=setup.ledger.seconds,
        actors={name: each.actor for name, each in learned.all().items()},
        data_hash=learned.data_hash,
        notes=venue.notes,
    )


def hash_of(logged: LoggedSequences) -> str:
    """sha256 over what was seen, done and got: which data a policy was trained on."""
    digest = hashlib.sha256()
    for array in (logged.states, logged.action, logged.team):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _offline_progress(setup: Setup) -> Callable[[OfflineProgress], None]:
    def told(now: OfflineProgress) -> None:
        setup.tracking.metrics("offline", now.step, now.metrics)
        setup.say(
            StageProgress("offline", now.step, now.steps, f"entropy {now.metrics['entropy']:.2f}")
        )

    return told


def _online_progress(setup: Setup, stage: Stage) -> Callable[[CurvePoint], None]:
    total = setup.config.recipe.online.episodes

    def told(point: CurvePoint) -> None:
        setup.tracking.metrics(stage, point.update, numbers_of(point))
        parts = []
        if point.collected is not None:
            parts.append(f"collected {100 * point.collected:.1f} %")
        if point.evaluation is not None:
            parts.append(f"evaluated {100 * point.evaluation:.1f} %, {point.verdict}")
        setup.say(StageProgress(stage, point.episodes, total, ", ".join(parts)))

    return told
