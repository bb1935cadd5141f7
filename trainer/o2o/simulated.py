"""The simulator as a venue: heuristic logs, rollouts of a policy, evaluations of methods.

Numbers of episodes are apart by purpose, so that no policy is evaluated on what it learned from or
was chosen by: the final evaluation uses 0, 1, ..., all others large numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from testbed.model.encoders import DEFAULT
from testbed.scenario.plan import Plan
from testbed.schedulers.catalogue import SIMULATOR_ONLY
from testbed.schedulers.registry import check as check_scheduler
from testbed.sim.engine.arrays import check, pack, without_control_delay
from testbed.sim.engine.compiled import ABSENT, SUCCEEDED, Batch
from testbed.sim.engine.episodes import Played, record, record_baseline
from testbed.sim.engine.fates import bounds
from testbed.sim.engine.features import kernel_of
from testbed.sim.engine.heuristics import METHODS
from testbed.sim.engine.threads import Threads
from testbed.sim.engine.vector import VectorEnv
from testbed.sim.play import evaluate
from testbed.sim.record import record_run
from testbed.sim.simulator import EpisodeResult
from testbed.storage import dataset
from testbed.storage.tasklog import open_task_log
from trainer.credit.gains import gains_of
from trainer.credit.weight import BY_LOAD, LaterWeight
from trainer.learning.actor import Actor
from trainer.learning.checkpoint import read_checkpoint, write_checkpoint
from trainer.learning.online import Collected, Scores
from trainer.learning.transitions import FloatArray
from trainer.o2o.feedback import logged_of
from trainer.o2o.folder import RESULT, identity
from trainer.o2o.logged import LoggedSequences, RewardKind, joined, of_engine
from trainer.o2o.settings import Driver, O2OConfig, StageProgress
from trainer.o2o.venue import BOUND, Setup

FIRST_LOG_EPISODE: Final = 10_000_000
FIRST_ONLINE_EPISODE: Final = 100_000_000
FIRST_VALIDATION_EPISODE: Final = 5_000_000
"""Of the evaluations during fine-tuning, by which policies are kept and rolled back."""

_STARTS: Final = 2_000_000
_PER_START: Final = 1_000
"""The largest number must fit 32 bits, as the controller takes it."""

_PER_SEED: Final = 1_000_000
"""Log episodes set aside for one seed of the experiment."""

AT_ONCE: Final = 100
"""Episodes side by side in one batch."""


def first_log_episode(seed: int) -> int:
    """Return the number of the first episode of logs of an experiment with this seed."""
    return FIRST_LOG_EPISODE + seed * _PER_SEED


def first_online_episode(seed: int) -> int:
    """Return the number of the first episode of an update whose episodes are drawn by this seed."""
    return FIRST_ONLINE_EPISODE + seed % _STARTS * _PER_START


def log_episodes(
    plan: Plan,
    method: str,
    numbers: Sequence[int],
    *,
    later_weight: LaterWeight = BY_LOAD,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    encoder: str = DEFAULT,
) -> LoggedSequences:
    """Return what the scheduler ``method`` decided in episodes ``numbers``, as its log has it.

    Baselines play in the compiled engine, at thousands of episodes a second; any other scheduler
    (``drl``, by default the policy that ships, or ``module:Class``) in the heap simulator.

    Raises:
        UsageError: a plan the engine does not cover, or an unknown scheduler.
    """
    if method not in METHODS:
        return _log_by_heap(plan, method, numbers, later_weight, progress, encoder)
    parts = []
    for first in range(0, len(numbers), AT_ONCE):
        part = list(numbers[first : first + AT_ONCE])
        batch = pack([plan] * len(part), encoder)
        played = record_baseline(plan, method, part, threads, batch=batch, encoder=encoder)
        parts.append(_logged(plan, played, batch, part, method, later_weight, threads))
        if progress is not None:
            progress(first + len(part), len(numbers))
    return joined(parts)


def _log_by_heap(
    plan: Plan,
    method: str,
    numbers: Sequence[int],
    later_weight: LaterWeight,
    progress: Callable[[int, int], None] | None,
    encoder: str,
) -> LoggedSequences:
    """Runs in a task log of their own, read as those of a network are."""
    done = 0

    def count(_: EpisodeResult) -> None:
        nonlocal done
        done += 1
        if progress is not None and done % 10 == 0:
            progress(done, len(numbers))

    plan = replace(plan, log_idle_slots=True)
    with (
        tempfile.TemporaryDirectory(prefix="edge-testbed-") as folder,
        open_task_log(Path(folder) / "log.sqlite") as task_log,
    ):
        runs = [
            record_run(
                plan,
                task_log,
                scheduler=method,
                episodes=len(part),
                first_episode=part[0],
                on_episode=count,
            )
            for part in _stretches(numbers)
        ]
        data = Path(folder) / "data"
        dataset.build(task_log, runs, encoder, data)
        return logged_of(task_log, dataset.load(data), plan, later_weight)


def _stretches(numbers: Sequence[int]) -> list[list[int]]:
    """``numbers`` cut into stretches without gaps: a run has a first episode and a count."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def rollout_episodes(
    plan: Plan,
    actor: Actor,
    numbers: Sequence[int],
    *,
    later_weight: LaterWeight = BY_LOAD,
    threads: int | None = None,
    env: VectorEnv | None = None,
) -> LoggedSequences:
    """Return what ``actor`` decided in episodes ``numbers``, actions sampled."""
    env = env or VectorEnv([plan] * len(numbers), threads, actor.encoder)
    played = record(env, actor, numbers)
    return _logged(plan, played, env.batch, numbers, "drl", later_weight, threads)


class SimulatedRollout:
    """Episodes of ``plan`` in the compiled engine (``trainer.learning.online.Rollout``)."""

    def __init__(
        self,
        plan: Plan,
        reward: RewardKind,
        *,
        later_weight: LaterWeight = BY_LOAD,
        threads: int | None = None,
    ) -> None:
        self._plan, self._reward = plan, reward
        self._later_weight, self._threads = later_weight, threads
        self._envs: dict[tuple[int, str], VectorEnv] = {}

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        """Return episodes whose numbers follow from ``seed``."""
        key = episodes, actor.encoder
        if key not in self._envs:
            self._envs[key] = VectorEnv([self._plan] * episodes, self._threads, actor.encoder)
        logged = rollout_episodes(
            self._plan,
            actor,
            online_numbers(episodes, seed),
            later_weight=self._later_weight,
            threads=self._threads,
            env=self._envs[key],
        )
        return Collected(logged.trajectories(self._reward), logged.success_rate)

    def evaluate(self, actor: Actor, episodes: int) -> NDArray[np.float64]:
        """Return the success rates of the episodes kept for this purpose."""
        numbers = self.evaluation_numbers(episodes)
        return evaluate(self._plan, ["policy"], numbers, {"policy": actor}, threads=self._threads)[
            "policy"
        ]

    def evaluation_numbers(self, episodes: int) -> range:
        """Return the episodes that `evaluate` runs."""
        return range(FIRST_VALIDATION_EPISODE, FIRST_VALIDATION_EPISODE + episodes)


class SimulatedVenue:
    """A whole experiment in the simulator (``trainer.o2o.venue.Venue``).

    Control messages take no time here; ``notes`` has a remark where they do in the plan.
    ``threads`` None takes one per processor. ``rollout`` runs the online episodes somewhere
    else than in this process (``trainer.o2o.cluster``). ``store`` is the URL of an artifact store
    for policies.
    """

    driver: Final[Driver] = "simulator"

    def __init__(
        self,
        plan: Plan,
        *,
        threads: int | None = None,
        rollout: SimulatedRollout | None = None,
        store: str | None = None,
    ) -> None:
        self.notes: tuple[str, ...] = ()
        if plan.rules.control_delay:
            most = "" if plan.rules.link_delays is None else "up to "
            self.notes = (
                f"control messages take {most}{plan.rules.control_delay / 1000:g} ms in this "
                "scenario and no time in this simulation",
            )
            plan = without_control_delay(plan)
        self.plan, self.store = plan, store
        self._threads, self._elsewhere = threads, rollout
        self._known: dict[str, Scores] = {}

    def identity(self, config: O2OConfig) -> dict[str, Any]:
        """Return the identity of this experiment's folder.

        Raises:
            UsageError: a plan or an encoder the compiled engine does not cover, or an unknown
                source.
        """
        check(self.plan)
        kernel_of(config.encoder)
        if config.source not in SIMULATOR_ONLY:
            check_scheduler(config.source)
        return identity(self.plan, config, schedulers_seed=self.plan.seeds.schedulers)

    def begin(self, setup: Setup) -> None:
        """Run for this experiment from now on."""
        self._setup, recipe = setup, setup.config.recipe
        self._rollout = self._elsewhere or SimulatedRollout(
            self.plan,
            recipe.online_reward,
            later_weight=recipe.later_weight,
            threads=self._threads,
        )
        path = setup.out / RESULT
        self._known = dict(read_checkpoint(path, "evaluation")[0]) if path.exists() else {}

    def log(self, first: int, episodes: int) -> LoggedSequences:
        """Return what the source decides in ``episodes`` episodes from ``first`` on."""
        config = self._setup.config
        return log_episodes(
            self.plan,
            config.source,
            range(first, first + episodes),
            later_weight=config.recipe.later_weight,
            threads=self._threads,
            encoder=config.encoder,
            progress=lambda done, total: self._setup.say(
                StageProgress("logs", done, total, f"{done} of {total} episodes of {config.source}")
            ),
        )

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        """Return episodes whose numbers follow from ``seed``."""
        return self._rollout.collect(actor, episodes, seed)

    def evaluate(self, actor: Actor, episodes: int) -> Scores:
        """Return the success rates of the episodes kept for this purpose."""
        return self._rollout.evaluate(actor, episodes)

    def source_rates(self, episodes: int) -> Scores:
        """Return the success rates of the source in the episodes of ``evaluate``."""
        source = self._setup.config.source
        return evaluate(self.plan, [source], self._rollout.evaluation_numbers(episodes))[source]

    def kept(self, actors: Mapping[str, Actor]) -> dict[str, str]:
        """Return nothing: policies are written when the experiment has ended."""
        return {}

    def hand_over(self, actor: Actor, facts: Mapping[str, Any]) -> str | None:
        """Nothing to do: the policy is kept once it has been evaluated."""
        return None

    def rates(self, method: str, episodes: int, actor: Actor | None = None) -> Scores:
        """Success rates of ``method`` in episodes 0, 1, ...; that of ``actor``, where given."""
        if actor is None and method in self._known:
            # Baselines do not change when the learners are given more to learn from.
            return self._known[method]
        numbers = range(episodes)
        if method == BOUND:
            found = bounds(self.plan, numbers, self._threads)
        else:
            learned = {} if actor is None else {method: actor}
            found = evaluate(self.plan, [method], numbers, learned, threads=self._threads)[method]
        self._known[method] = found
        write_checkpoint(self._setup.out / RESULT, "evaluation", self._known, {})
        return found

    def finish(self, policies: Mapping[str, str], actors: Mapping[str, Actor]) -> dict[str, Any]:
        """Nothing to do, and nothing else is known."""
        return {}


def online_numbers(episodes: int, seed: int) -> range:
    """Return the episodes that an update with this seed learns from."""
    first = first_online_episode(seed)
    return range(first, first + episodes)


def own_and_credit(
    plan: Plan, batch: Batch, later_weight: LaterWeight, threads: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Feedback and credit of all decisions of finished episodes, each [E, N, T].

    The feedback is +1 or -1 by outcome; the credit is that of ``trainer.credit.gains``, in tasks.
    """
    tasks = batch.tasks
    arrived = tasks["stage"] != ABSENT
    feedback = np.where(tasks["outcome"] == SUCCEEDED, 1.0, -1.0)
    episodes = len(batch.episodes)
    gain = gains_of([plan] * episodes, batch, Threads(episodes, threads), later_weight)
    size = plan.topology.size

    def by_node(values: NDArray[np.float64]) -> FloatArray:
        shaped = np.where(arrived, values, np.nan).reshape(len(tasks), -1, size)
        return np.ascontiguousarray(shaped.transpose(0, 2, 1), np.float32)

    return by_node(feedback), by_node(gain)


def _logged(
    plan: Plan,
    played: Played,
    batch: Batch,
    numbers: Sequence[int],
    method: str,
    later_weight: LaterWeight,
    threads: int | None,
) -> LoggedSequences:
    own, credit = own_and_credit(plan, batch, later_weight, threads)
    return of_engine(played, own, credit, numbers, method)
