"""A network that is up as a venue: real runs, logs and deploys.

Knows the network by its controller, its task log and its artifact store, so it does not matter
where the nodes run. What was done is in ``network.json`` of the output folder after every run, and
an interrupted experiment is continued there.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from testbed.errors import PermanentError, Problem, UsageError
from testbed.files import refuse_if_busy
from testbed.policies import SHIPPED_DEFAULT, SHIPPED_PREFIX
from testbed.policies.card import PolicyCard
from testbed.rpc.operator import OperatorClient, Progress
from testbed.rpc.repeated import deploy_to_all, mark_of, start_marked, wait_for_end
from testbed.scenario.plan import Plan
from testbed.schedulers.registry import check as check_scheduler
from testbed.sim.bound import bound
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.play import PER_DESTINATION, UNTRAINED, evaluate
from testbed.storage import dataset
from testbed.storage.tasklog import TaskLog
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.export import actor_onnx
from trainer.learning.online import Collected, Scores
from trainer.o2o.feedback import logged_of, rates_of
from trainer.o2o.folder import DATA, ONLINE_DATA, ExperimentLedger, identity
from trainer.o2o.hand_over import artifact_of, keep
from trainer.o2o.logged import LoggedSequences
from trainer.o2o.result import training_of
from trainer.o2o.settings import O2O, OFFLINE, Driver, O2OConfig, StageProgress
from trainer.o2o.simulated import FIRST_VALIDATION_EPISODE, first_online_episode
from trainer.o2o.venue import BOUND, Setup, incomplete_note, spec_of

RUN_EPISODES: Final = 50
"""Most episodes of one run, so that an interruption costs little."""


class NetworkVenue:
    """A whole experiment on the network behind ``client`` (``trainer.o2o.venue.Venue``).

    ``log`` is the network's task log and ``store`` the URL of its artifact store. A policy goes to
    the nodes by the controller's deploy, as it would in service: fetched from the artifact store,
    verified, acknowledged by all.
    """

    driver: Final[Driver] = "network"

    def __init__(self, client: OperatorClient, log: TaskLog, store: str, plan: Plan) -> None:
        self._client, self._log = client, log
        self.store, self.plan = store, plan
        self._deployed = ""
        self._facts: dict[str, Any] = {}
        self._artifacts: dict[bytes, tuple[PolicyCard, bytes]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """The number of episodes with incomplete logs that were learned from, if any."""
        counts = self._setup.ledger.incomplete.values()
        return incomplete_note(sum(some for some, _ in counts), sum(all_ for _, all_ in counts))

    def identity(self, config: O2OConfig) -> dict[str, Any]:
        """Return the identity of this experiment's folder.

        Raises:
            UsageError: an unknown source, or learning from nothing.
        """
        return _identity(self.plan, config)

    def begin(self, setup: Setup) -> None:
        """Run for this experiment from now on."""
        self._setup, self._deployed, self._facts = setup, "", {}
        self._mark = mark_of(setup.out)
        self._artifacts.clear()

    def log(self, first: int, episodes: int) -> LoggedSequences:
        """Run the source of the experiment, and read what was logged."""
        source = self._setup.config.source
        runs = []
        for start in range(0, episodes, RUN_EPISODES):
            count = min(RUN_EPISODES, episodes - start)
            runs.append(self.run(source, count, first + start, "logs"))
        return self.logged(runs, DATA)

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        """Run ``episodes`` under ``drl``; trajectories from what the nodes logged."""
        policy = self.deploy(actor)
        run = self.run("drl", episodes, first_online_episode(seed), f"online {policy}")
        logged = self.logged([run], ONLINE_DATA)
        reward = self._setup.config.recipe.online_reward
        return Collected(logged.trajectories(reward), self._rates(run))

    def evaluate(self, actor: Actor, episodes: int) -> Scores:
        """Return the success rates of the validation episodes under ``drl``."""
        policy = self.deploy(actor)
        return self._rates(
            self.run("drl", episodes, FIRST_VALIDATION_EPISODE, f"validation {policy}")
        )

    def source_rates(self, episodes: int) -> Scores:
        """Return the success rates of the source in the validation episodes."""
        source = self._setup.config.source
        return self._rates(
            self.run(source, episodes, FIRST_VALIDATION_EPISODE, "validation source")
        )

    def hand_over(self, actor: Actor, facts: Mapping[str, Any]) -> str | None:
        """Keep the offline policy: it is the parent of all that are deployed from now on."""
        self._facts = dict(facts)
        card, onnx = self._artifact(actor, OFFLINE)
        policy = keep(card, onnx, self._setup.out / "policies" / OFFLINE, self.store)
        # Not how many episodes there are to be: the policies between are the same with more.
        training = training_of(self._setup.config, O2O)
        del training["online_episodes"]
        self._facts = {**facts, "training": training, "parents": (policy,)}
        return policy

    def kept(self, actors: Mapping[str, Actor]) -> dict[str, str]:
        """Write the policies of ``actors`` that nodes have run to the folder; return their ids."""
        found = {}
        for name, actor in actors.items():
            known = self._artifacts.get(_digest(actor))
            if known is not None:
                found[name] = keep(*known, self._setup.out / "policies" / name, self.store)
        return found

    def _artifact(self, actor: Actor, name: str) -> tuple[PolicyCard, bytes]:
        """Return the artifact of ``actor``: one, under the name that it was first needed by.

        So what is evaluated, what is deployed in the end and what the runs in between name is the
        same policy, where it is the same actor.
        """
        key = _digest(actor)
        if key not in self._artifacts:
            facts = {} if name == UNTRAINED else self._facts
            self._artifacts[key] = artifact_of(actor, self.plan, name, **facts)
        return self._artifacts[key]

    def rates(self, method: str, episodes: int, actor: Actor | None = None) -> Scores:
        """Success rates of ``method`` in episodes 0, 1, ...; that of ``actor``, where given."""
        if method == BOUND:
            return np.array([bound(self.plan, number) for number in range(episodes)])
        scheduler, options = method, None
        if actor is None and method == UNTRAINED:
            actor = untrained(spec_of(self.plan, self._setup.config))
        if actor is not None:
            policy = self.deploy(actor, method)
            scheduler, options = "drl", {"policy": f"policies/{policy}"}
        elif method == PER_DESTINATION:
            scheduler, options = "drl", {"policy": SHIPPED_PREFIX + SHIPPED_DEFAULT}
        return self._rates(self.run(scheduler, episodes, 0, f"evaluation {method}", options))

    def finish(self, policies: Mapping[str, str], actors: Mapping[str, Actor]) -> dict[str, Any]:
        """Deploy the best policy; returns whether there is one, the runs, and rates.

        Those are mean rates of the same policies in the same episodes in the simulator.

        Raises:
            TemporaryError: not every node has it; the others go on as before.
        """
        best = policies.get(O2O) or policies.get(OFFLINE)
        if best is not None:
            deploy_to_all(self._client, f"policies/{best}")
        config = self._setup.config
        found = evaluate(
            without_control_delay(self.plan),
            [config.source, *actors],
            config.evaluation_episodes,
            actors,
        )
        return {
            "deployed": best is not None,
            "simulated": {
                name: round(float(np.nanmean(rates)), 6) for name, rates in found.items()
            },
            "runs": dict(self._setup.ledger.runs),
        }

    def deploy(self, actor: Actor, name: str = O2O) -> str:
        """Bring ``actor`` to all nodes; returns its id.

        Raises:
            TemporaryError: not every node has it; the others go on as before.
        """
        card, onnx = self._artifact(actor, name)
        keep(card, onnx, None, self.store)
        if card.id != self._deployed:
            deploy_to_all(self._client, f"policies/{card.id}")
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
        """Run episodes and wait for their end; a run that this experiment has done is not repeated.

        Raises:
            PermanentError: the run failed twice, or is not to be trusted and may not be used.
            TemporaryError: a node is not healthy, or the controller does not answer.
        """
        key = f"{purpose} {first}+{episodes} {scheduler}"
        ledger = self._setup.ledger
        known = ledger.runs.get(key)
        if known is not None and self._usable(known):
            return known
        if known is not None:
            self._repeated(purpose, episodes, known, "")
        reason = ""
        for attempt in range(2):
            run = start_marked(
                self._client,
                self._mark,
                f"o2o {purpose}",
                lambda told: self._note(episodes, f"{purpose}: {told}"),
                scheduler=scheduler,
                options=options,
                episodes=episodes,
                first_episode=first,
            )
            reason = self._watch(run, episodes, purpose)
            if self._usable(run):
                ledger.runs[key] = run
                ledger.save()
                return run
            if attempt == 0:
                self._repeated(purpose, episodes, run, reason)
        state = self._log.run(run).state
        raise PermanentError(
            f"run {run} ({purpose}) is {state}: {reason or 'see `testbed status`'}; run on a "
            "quieter machine, with a larger time scale, or accept it with --include-invalid; the "
            "same command goes on from here"
        )

    def _repeated(self, purpose: str, episodes: int, run: str, reason: str) -> None:
        """Say why a run is made again."""
        try:
            state = f"is {self._log.run(run).state}"
        except UsageError:
            state = "is not in this task log"
        told = f"{purpose}: run {run} {state}, so it is repeated" + (
            f" ({reason})" if reason else ""
        )
        self._note(episodes, told)

    def _note(self, episodes: int, told: str) -> None:
        self._setup.say(StageProgress("network", 0, episodes, told, notable=True))

    def _watch(self, run: str, episodes: int, purpose: str) -> str:
        """Wait for the end of a run; return what was wrong with it."""

        def told(progress: Progress) -> None:
            rate = progress.success_rate
            shown = "" if rate is None else f", {100 * rate:.1f} %"
            self._setup.say(StageProgress("network", progress.completed, episodes, purpose + shown))

        return wait_for_end(self._client, run, self._client.watch_run(run), told)

    def logged(self, runs: list[str], name: str) -> LoggedSequences:
        """The data set of these runs, written to the output folder, with the worth of decisions."""
        config, folder = self._setup.config, self._setup.out / name
        dataset.build(
            self._log,
            runs,
            config.encoder,
            folder,
            include_untrustworthy=config.include_invalid,
            overwrite=True,
        )
        data, weight = dataset.load(folder), config.recipe.later_weight
        logged = logged_of(self._log, data, self.plan, weight)
        ledger = self._setup.ledger
        ledger.incomplete |= incomplete_episodes(logged)
        ledger.save()
        return logged

    def _rates(self, run: str) -> Scores:
        """Return the success rate of every episode of a run, in order; NaN without a task."""
        return np.array(episode_rates(self._log, run))

    def _usable(self, run: str) -> bool:
        try:
            found = self._log.run(run)
        except UsageError:
            return False
        if found.trustworthy:
            return True
        complete = str(found.state) in {"invalid", "degraded"}
        return complete and self._setup.config.include_invalid


def _digest(actor: Actor) -> bytes:
    return hashlib.sha256(actor_onnx(actor)).digest()


def incomplete_episodes(logged: LoggedSequences) -> dict[str, tuple[int, int]]:
    """Return by run how many episodes have an incomplete log, and how many there are."""
    seen = set(zip(logged.run, logged.episode.tolist(), strict=True)) | logged.incomplete.keys()
    among = Counter(run for run, _ in seen)
    some = Counter(run for run, _ in logged.incomplete)
    return {run: (some[run], among[run]) for run in among}


def episode_rates(log: TaskLog, run: str) -> list[float]:
    """Return the success rate of every episode of a run, in order; NaN of one without a task."""
    info, found = log.run(run).info, rates_of(log.tasks(run))
    numbers = range(info.first_episode, info.first_episode + info.episodes)
    return [found.get(number, math.nan) for number in numbers]


def check_experiment(plan: Plan, config: O2OConfig, out: Path, *, resume: bool = True) -> None:
    """Refuse, before anything is run, what would be refused once the network is up.

    Raises:
        UsageError: an unknown source, learning from nothing, ``out`` has results of a different
            experiment, holds something else, or an experiment is working there.
    """
    ExperimentLedger.check(out, "network", _identity(plan, config), resume=resume)
    refuse_if_busy(out, "experiment")


def untrained(spec: NetworkSpec) -> Actor:
    """Return the policy that takes every unmasked destination alike."""
    widths = (spec.features, *spec.hidden, spec.actions)
    layers = tuple(
        (np.zeros((rows, columns), np.float32), np.zeros(rows, np.float32))
        for columns, rows in pairwise(widths)
    )
    return Actor(spec, layers)


def _identity(plan: Plan, config: O2OConfig) -> dict[str, Any]:
    if config.online_only:
        raise UsageError(
            "--online-only works only with --simulate",
            [Problem("o2o.online_only", "true", "false on a network")],
        )
    if ":" not in config.source:
        # Classes of other people need to be importable on the nodes only.
        check_scheduler(config.source)
    return identity(plan, config, time_scale=plan.time_scale)
