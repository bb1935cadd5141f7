"""The story of offline-to-online learning on a network that is up: real runs, logs and deploys.

The same learners, recipes and checks as in the simulator; only what runs an episode differs. Knows
the network by its controller, its task log and its artifact store, so it does not matter where the
nodes run. What was done is in ``network.json`` of the output folder after every run, and a story
that was interrupted goes on there.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from testbed.errors import PermanentError, Problem, TestbedError, UsageError
from testbed.experiment.o2o import Story
from testbed.experiment.o2o_simulated import curve_of
from testbed.policies import SHIPPED_DEFAULT, SHIPPED_PREFIX
from testbed.rpc.operator import OperatorClient
from testbed.scenario.plan import Plan
from testbed.schedulers.registry import check as check_scheduler
from testbed.sim.arrays import without_control_delay
from testbed.sim.bound import bound
from testbed.sim.play import evaluate
from testbed.sim.vector import ENCODER
from testbed.storage import dataset
from testbed.storage.tasklog import TaskLog
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.offline import OfflineResult, train_offline
from trainer.learning.online import Collected, OnlineResult, begun_from, fine_tune
from trainer.o2o.feedback import logged_of, rates_of
from trainer.o2o.hand_over import artifact_of, keep
from trainer.o2o.logged import Logged
from trainer.o2o.pipeline import Progress, Report, hash_of
from trainer.o2o.recipe import Recipe
from trainer.o2o.simulated import (
    FIRST_VALIDATION_EPISODE,
    first_log_episode,
    first_online_episode,
)
from trainer.o2o.sizes import refuse_too_few

STATE: Final = "network.json"
RUN_EPISODES: Final = 50
"""Most episodes of one run, so that an interruption costs little."""


UNTRAINED: Final = "untrained"
PER_DESTINATION: Final = "per-destination"

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
)
"""What runs on nodes; ``central`` and ``oracle`` need a simulator."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Settings of one story on a network.

    Raises:
        UsageError: a value outside its range.
    """

    recipe: Recipe
    source: str = "ratc"
    log_episodes: int = 200
    evaluation_episodes: int = 10
    methods: tuple[str, ...] = BASELINES
    include_invalid: bool = False
    """Learn from runs outside their limits of fidelity too, instead of refusing them."""
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_too_few(self.log_episodes, self.evaluation_episodes, self.seed)


@dataclass(slots=True)
class _State:
    """Runs that are done, by purpose, and how long things took."""

    path: Path
    identity: dict[str, Any]
    runs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], *, resume: bool) -> _State:
        """Continue what is there, or begin.

        Raises:
            UsageError: it is of another story.
        """
        state = cls(path, json.loads(json.dumps(identity)))
        if resume and path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            theirs = stored.get("identity", {})
            problems = [
                Problem(f"{path}: {name}", str(theirs.get(name)), f"{value} as now asked for")
                for name, value in state.identity.items()
                if theirs.get(name) != value
            ]
            if problems:
                raise UsageError(
                    "the folder belongs to another story; choose another one, or begin anew",
                    problems,
                )
            state.runs, state.seconds = stored["runs"], stored["seconds"]
        return state

    def save(self) -> None:
        document = {"identity": self.identity, "runs": self.runs, "seconds": self.seconds}
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.path)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + taken, 3)
            self.save()


class NetworkRollout:
    """Episodes that the nodes of a testbed run (``trainer.learning.online.Rollout``).

    A policy goes to the nodes by the controller's deploy, as it would in service: fetched from the
    artifact store, verified, acknowledged by all.
    """

    def __init__(
        self,
        client: OperatorClient,
        log: TaskLog,
        store: str,
        plan: Plan,
        config: NetworkConfig,
        out: Path,
        state: _State,
        say: Report,
    ) -> None:
        self._client, self._log, self._store = client, log, store
        self._plan, self._config, self._out = plan, config, out
        self._state, self._say = state, say
        self._deployed = ""
        self.parents: tuple[str, ...] = ()

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        """Run ``episodes`` under ``drl``; trajectories from what the nodes logged."""
        policy = self.deploy(actor)
        first = first_online_episode(seed)
        run = self.run("drl", episodes, first, f"online {policy}")
        logged = self.logged([run], "online-data")
        config = self._config
        return Collected(
            logged.trajectories(config.recipe.online_reward), np.array(self.rates([run]))
        )

    def evaluate(self, actor: Actor, episodes: int) -> NDArray[np.float64]:
        """Success rates of the validation episodes under ``drl``."""
        policy = self.deploy(actor)
        run = self.run("drl", episodes, FIRST_VALIDATION_EPISODE, f"validation {policy}")
        return np.array(self.rates([run]))

    def deploy(self, actor: Actor, name: str = "o2o") -> str:
        """Bring ``actor`` to all nodes; returns its id.

        Raises:
            PermanentError: not every node has it; the others go on as before.
        """
        card, onnx = artifact_of(actor, self._plan, name, parents=self.parents)
        keep(card, onnx, None, self._store)
        if card.id != self._deployed:
            done = self._client.deploy_policy(f"policies/{card.id}")
            if not done.complete:
                said = "; ".join(f"node {each.node}: {each.reason}" for each in done.failures)
                raise PermanentError(f"policy {card.id} did not come to all nodes: {said}")
            self._deployed = card.id
        return card.id

    def run(
        self,
        scheduler: str,
        episodes: int,
        first: int,
        purpose: str,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Run episodes and wait for their end; a run that this story has done is not done again.

        Raises:
            PermanentError: the run failed twice, or is not to be trusted and may not be used.
        """
        key = f"{purpose} {first}+{episodes} {scheduler}"
        known = self._state.runs.get(key)
        if known is not None and self._usable(known):
            return known
        reason = ""
        for _attempt in range(2):
            run = self._client.start_run(
                scheduler=scheduler,
                options=options,
                episodes=episodes,
                first_episode=first,
                label=f"o2o {purpose}",
            )
            reason = self._watch(run, episodes, purpose)
            if self._usable(run):
                self._state.runs[key] = run
                self._state.save()
                return run
        state = self._log.run(run).state
        raise PermanentError(
            f"run {run} ({purpose}) is {state}: {reason or 'see `testbed status`'}; run on a "
            "quieter machine, with a larger time scale, or take it all the same: --include-invalid"
        )

    def _watch(self, run: str, episodes: int, purpose: str) -> str:
        """Wait for the end of a run; returns what was wrong with it. Ends it if interrupted."""
        reason = ""
        try:
            for progress in self._client.watch_run(run):
                rate = progress.success_rate
                shown = "" if rate is None else f", {100 * rate:.1f} %"
                self._say(Progress("network", progress.completed, episodes, purpose + shown))
                reason = "; ".join(
                    filter(None, dict.fromkeys((progress.reason, *progress.invalid_because)))
                )
        except BaseException:
            with suppress(TestbedError):
                self._client.stop_run(run)
            raise
        return reason

    def logged(self, runs: list[str], name: str) -> Logged:
        """The data set of these runs, written to the output folder, with the worth of decisions."""
        folder = self._out / name
        dataset.build(
            self._log,
            runs,
            ENCODER,
            folder,
            include_untrustworthy=self._config.include_invalid,
            overwrite=True,
        )
        return logged_of(
            self._log, dataset.load(folder), self._plan, self._config.recipe.later_weight
        )

    def rates(self, runs: list[str]) -> list[float]:
        """Success rate of every episode of these runs, in order; NaN without a task."""
        return [rate for run in runs for rate in episode_rates(self._log, run)]

    def _usable(self, run: str) -> bool:
        try:
            found = self._log.run(run)
        except UsageError:
            return False
        if found.trustworthy:
            return True
        complete = str(found.state) in {"invalid", "degraded"}
        return complete and self._config.include_invalid


def episode_rates(log: TaskLog, run: str) -> list[float]:
    """Success rate of every episode of a run, in order; NaN of one without a task."""
    info, found = log.run(run).info, rates_of(log.tasks(run))
    numbers = range(info.first_episode, info.first_episode + info.episodes)
    return [found.get(number, math.nan) for number in numbers]


def check_story(plan: Plan, config: NetworkConfig, out: Path, *, resume: bool = True) -> None:
    """Refuse, before anything is run, what `run_on_network` would refuse of its settings.

    Raises:
        UsageError: an unknown source, ``out`` is of another story or holds something else.
    """
    if ":" not in config.source:
        # Classes of other people need to be importable on the nodes only.
        check_scheduler(config.source)
    if out.exists() and not (out.is_dir() and ((out / STATE).exists() or not any(out.iterdir()))):
        raise UsageError(
            "nothing was done",
            [
                Problem(
                    str(out),
                    "holds something else",
                    "an empty or new folder, or one of a story on a network",
                )
            ],
        )
    _State.open(out / STATE, _identity(plan, config), resume=resume)


def run_on_network(
    client: OperatorClient,
    log: TaskLog,
    store: str,
    plan: Plan,
    config: NetworkConfig,
    out: Path,
    *,
    progress: Report | None = None,
    resume: bool = True,
) -> Story:
    """Tell the whole story on the network behind ``client``; checkpoints and policies in ``out``.

    ``log`` is the network's task log and ``store`` the URL of its artifact store. With ``resume``
    what is in ``out`` is continued: runs that are done are not done again, learners go on from
    their checkpoints. At the end the best policy is deployed.

    Raises:
        UsageError: an unknown source, ``out`` is of another story, of one that has learned more,
            or holds something else, or another run is active.
        PermanentError: runs fail or are outside their limits of fidelity, or a deploy failed.
    """
    tell = progress or (lambda _: None)
    check_story(plan, config, out, resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in ("offline", "online", "data", "online-data"):
            shutil.rmtree(out / name, ignore_errors=True)
    state = _State.open(out / STATE, _identity(plan, config), resume=resume)
    state.save()
    rollout = NetworkRollout(client, log, store, plan, config, out, state, tell)
    offline, log_rate, data_hash = _offline(plan, config, out, rollout, state, tell, resume)
    offline_card, onnx = artifact_of(
        offline.actor,
        plan,
        "offline",
        data_hash=data_hash,
        training=_training(config, online=False),
    )
    policies = {"offline": keep(offline_card, onnx, out / "policies" / "offline", store)}
    rollout.parents = (offline_card.id,)
    with state.measure("online"):
        online = _online(offline, config, out, rollout, tell, resume)
    with state.measure("evaluation"):
        rates = _evaluate(config, rollout, {"offline": offline.actor, "o2o": online.actor})
    card, onnx = artifact_of(
        online.actor,
        plan,
        "o2o",
        data_hash=data_hash,
        parents=rollout.parents,
        evaluation={
            "driver": "network",
            "episodes": len(rates["o2o"]),
            "success_rate": round(float(np.nanmean(rates["o2o"])), 6),
        },
        training=_training(config, online=True),
    )
    policies["o2o"] = keep(card, onnx, out / "policies" / "o2o", store)
    deployed = client.deploy_policy(f"policies/{card.id}")
    limit = np.array([bound(plan, number) for number in range(config.evaluation_episodes)])
    gate = online.gate
    return Story(
        plan=plan,
        driver="network",
        rates=rates,
        bound=limit,
        curves={"o2o": curve_of(online.history)},
        reference_lines=_references(config, rollout, online),
        settings=json.loads(json.dumps(asdict(config))),
        durations=state.seconds,
        policies=policies,
        details={
            "log_success_rate": log_rate,
            "gate": None if gate is None else asdict(gate),
            "refused": online.refused,
            "rollbacks": online.rollbacks,
            "best_update": online.best_update,
            "offline_metrics": dict(offline.metrics),
            "deployed": deployed.complete,
            "simulated": _simulated(plan, config, {"offline": offline.actor, "o2o": online.actor}),
            "runs": dict(state.runs),
        },
    )


def _offline(
    plan: Plan,
    config: NetworkConfig,
    out: Path,
    rollout: NetworkRollout,
    state: _State,
    tell: Report,
    resume: bool,
) -> tuple[OfflineResult, float, str]:
    first = first_log_episode(config.seed)
    with state.measure("logs"):
        runs = []
        for start in range(0, config.log_episodes, RUN_EPISODES):
            count = min(RUN_EPISODES, config.log_episodes - start)
            runs.append(rollout.run(config.source, count, first + start, "logs"))
        logged = rollout.logged(runs, "data")
    with state.measure("offline"):
        offline = train_offline(
            logged.transitions(config.recipe.offline_reward),
            config.recipe.offline,
            out / "offline",
            progress=lambda now: tell(
                Progress("offline", now.step, now.steps, f"entropy {now.metrics['entropy']:.2f}")
            ),
            resume=resume,
        )
    return offline, float(np.nanmean(logged.success_rate)), hash_of(logged)


def _online(
    offline: OfflineResult,
    config: NetworkConfig,
    out: Path,
    rollout: NetworkRollout,
    tell: Report,
    resume: bool,
) -> OnlineResult:
    settings = config.recipe.online
    # The source and the offline policy in the episodes by which policies are judged.
    reference = rollout.evaluate(offline.actor, settings.evaluation_episodes)
    rollout.run(
        config.source, settings.evaluation_episodes, FIRST_VALIDATION_EPISODE, "validation source"
    )
    return fine_tune(
        rollout,
        offline.actor.spec,
        settings,
        out / "online",
        weights=offline.weights,
        reward_scale=offline.reward_scale,
        reference=reference,
        progress=lambda point: tell(
            Progress(
                "online",
                point.episodes,
                settings.episodes,
                point.verdict
                if point.evaluation is None
                else f"evaluated {100 * point.evaluation:.1f} %, {point.verdict}",
            )
        ),
        # An offline policy that was trained further is another start.
        resume=resume and begun_from(out / "online", offline.weights),
    )


def _references(
    config: NetworkConfig, rollout: NetworkRollout, online: OnlineResult
) -> dict[str, float]:
    episodes = config.recipe.online.evaluation_episodes
    run = rollout.run(config.source, episodes, FIRST_VALIDATION_EPISODE, "validation source")
    found = {config.source: float(np.nanmean(rollout.rates([run])))}
    first = online.history[0].evaluation
    return found if first is None else {**found, "offline": first}


def _evaluate(
    config: NetworkConfig, rollout: NetworkRollout, actors: Mapping[str, Actor]
) -> dict[str, NDArray[np.float64]]:
    """Paired: all methods meet episodes 0, 1, ..."""
    rates = {}
    episodes = config.evaluation_episodes
    for name in (*config.methods, *actors):
        scheduler, options = name, None
        if name in actors or name == UNTRAINED:
            actor = actors[name] if name in actors else untrained(actors["offline"].spec)
            policy = rollout.deploy(actor, name)
            scheduler, options = "drl", {"policy": f"policies/{policy}"}
        elif name == PER_DESTINATION:
            scheduler, options = "drl", {"policy": SHIPPED_PREFIX + SHIPPED_DEFAULT}
        run = rollout.run(scheduler, episodes, 0, f"evaluation {name}", options)
        rates[name] = np.array(rollout.rates([run]))
    return rates


def _simulated(plan: Plan, config: NetworkConfig, actors: Mapping[str, Actor]) -> dict[str, float]:
    """Mean rates of the same policies in the same episodes in the simulator."""
    plan = without_control_delay(plan)
    found = evaluate(plan, [config.source, *actors], config.evaluation_episodes, actors)
    return {name: round(float(np.nanmean(rates)), 6) for name, rates in found.items()}


def untrained(spec: NetworkSpec) -> Actor:
    """The policy that takes every unmasked destination alike."""
    widths = (spec.features, *spec.hidden, spec.actions)
    layers = tuple(
        (np.zeros((rows, columns), np.float32), np.zeros(rows, np.float32))
        for columns, rows in pairwise(widths)
    )
    return Actor(spec, layers)


def _training(config: NetworkConfig, *, online: bool) -> dict[str, Any]:
    recipe = config.recipe
    return {
        "recipe": recipe.name,
        "source": config.source,
        "log_episodes": config.log_episodes,
        "offline_steps": recipe.offline.steps,
        "online_episodes": recipe.online.episodes if online else 0,
        "seed": config.seed,
    }


def _identity(plan: Plan, config: NetworkConfig) -> dict[str, Any]:
    """What must be equal for a folder to be continued; how much is learned may be raised."""
    recipe = asdict(config.recipe)
    recipe["offline"].pop("steps")
    recipe["online"].pop("episodes")
    return {
        "scenario_hash": plan.scenario_hash,
        "time_scale": plan.time_scale,
        "recipe": recipe,
        "source": config.source,
        "log_episodes": config.log_episodes,
        "evaluation_episodes": config.evaluation_episodes,
        "seed": config.seed,
    }
