"""The loop: run, learn from the log, deploy, test, keep or roll back, until the budget is used up.

Guarantees: no policy goes on deciding that the gate found worse, beyond noise, than the one it
replaced or than the best so far; episodes that policies are tested by are never learned from; only
decisions of the policy in force are learned from; what is done is not done again when the same
command goes on after an interruption; an interruption leaves the accepted policy on the nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from testbed.errors import TestbedError
from testbed.experiment.live import gate
from testbed.experiment.live.curve import write_curve
from testbed.experiment.live.settings import FIRST_GATE_EPISODE, LiveConfig
from testbed.experiment.live.state import Ended, LiveState, Point, refuse_foreign
from testbed.experiment.live.venue import Learner, Order, Say, Step, Venue
from testbed.files import working_in

RATC = "ratc"
"""The scheduler that decides where no policy does."""


def learn(
    venue: Venue,
    learner: Learner,
    config: LiveConfig,
    folder: Path,
    *,
    name: str,
    say: Say = lambda _: None,
    resume: bool = True,
    now: Callable[[], float] = time.monotonic,
) -> LiveState:
    """Learn until the budget is used up or nothing gets better; leave the best policy deployed.

    Args:
        venue: Runs the episodes.
        learner: Makes policies of the runs.
        config: Settings.
        folder: Where the state and the curve are kept; learning in it goes on with ``resume``.
        name: Name of the testbed, for the labels of the runs: ``learn NAME: ...``.
        say: Told of progress.
        resume: False: start over, discarding the results in ``folder``.
        now: Seconds of a clock that only goes forward.

    Raises:
        UsageError: the folder holds something else, or another process learns there.
        PermanentError: a run failed or cannot be used.
        TemporaryError: a policy did not reach all nodes, or something did not answer; the same call
            goes on.
    """
    refuse_foreign(folder)
    with working_in(folder, "learner"):
        state = LiveState.claim(
            folder, venue.plan.scenario_hash, venue.driver, config, resume=resume
        )
        _Loop(venue, learner, config, state, name, say, now).go()
        return state


class _Loop:
    def __init__(
        self,
        venue: Venue,
        learner: Learner,
        config: LiveConfig,
        state: LiveState,
        name: str,
        say: Say,
        now: Callable[[], float],
    ) -> None:
        self._venue, self._learner, self._config = venue, learner, config
        self._state, self._name, self._tell, self._now = state, name, say, now
        self._noted = now()

    def go(self) -> None:
        """Learn from where the state is."""
        state = self._state
        try:
            if state.points:
                self._say(f"going on after {state.spent} episodes", notable=True)
            else:
                self._begin()
            while not (reason := self._over()):
                self._round()
            if reason != state.ended:
                state.ended = reason
                self._save()
            self._venue.deploy(_key(state.best))
        except BaseException:
            # What has not been accepted does not go on deciding.
            if state.points:
                with suppress(TestbedError):
                    self._venue.deploy(_key(state.current))
            raise

    def _begin(self) -> None:
        """Evaluate what decides first."""
        policy = self._learner.start()
        self._venue.deploy(policy)
        rates: dict[int, float] = {}
        first = FIRST_GATE_EPISODE
        for size in self._config.parts:
            rates |= self._evaluated(policy, 0, first, size)
            first += size
        self._enter(Point(0, policy or RATC, self._state.spent, rates))

    def _over(self) -> Ended:
        """Return why learning ends now; empty if it goes on."""
        config, state = self._config, self._state
        # An interrupted round has run some of its own episodes already.
        before = state.points[-1].episodes
        if before + config.update + config.gate > config.episodes:
            return "budget"
        without_gain = len(state.points) - 1 - state.best.number
        return "plateau" if 0 < config.patience <= without_gain else ""

    def _round(self) -> None:
        config, state = self._config, self._state
        current, number = state.current, len(state.points)
        policy = _key(current)
        self._venue.deploy(policy)
        run = self._run(
            f"update {number}",
            Order(
                policy,
                config.first_episode + (number - 1) * config.update,
                config.update,
                self._label(f"update {number}"),
            ),
        )
        collected = list(self._venue.rates(run).values())
        # After a rollback, the decisions of the rounds before are still of this policy.
        runs = [state.runs[f"update {each}"] for each in range(current.number + 1, number + 1)]
        rate = config.learning_rate * config.shrink ** (len(runs) - 1)
        self._say(f"update {number}: learning from {len(runs) * config.update} episodes")
        update = self._learner.update(runs, policy, number, rate)
        self._venue.deploy(update.policy)
        references = {point.policy: point.rates for point in (current, state.best)}
        verdict, rates = gate.tested(
            lambda first, size: self._evaluated(update.policy, number, first, size),
            references,
            FIRST_GATE_EPISODE,
            config.parts,
            # In the simulator the same episodes end the same way.
            self._again(update.policy, number) if self._venue.driver == "network" else None,
        )
        if not verdict.accepted:
            self._venue.deploy(policy)
        self._enter(
            Point(
                number,
                update.policy,
                state.spent,
                rates,
                verdict.document(),
                sum(collected) / max(1, len(collected)),
                update.facts,
            )
        )

    def _again(self, candidate: str, number: int) -> Callable[[str, int, int], Mapping[int, float]]:
        """Return what runs a reference anew while ``candidate`` is tested."""

        def again(reference: str, first: int, size: int) -> Mapping[int, float]:
            policy = None if reference == RATC else reference
            self._venue.deploy(policy)
            order = Order(policy, first, size, self._label(f"gate {number} again"))
            run = self._run(f"again {number} {reference} {first}+{size}", order)
            self._venue.deploy(candidate)
            return self._venue.rates(run)

        return again

    def _evaluated(
        self, policy: str | None, number: int, first: int, size: int
    ) -> Mapping[int, float]:
        """Return the success rates of a policy in episodes of the gate."""
        order = Order(policy, first, size, self._label(f"gate {number}"))
        return self._venue.rates(self._run(f"gate {number} {policy or RATC} {first}+{size}", order))

    def _run(self, key: str, order: Order) -> str:
        """Run episodes that have not been run; return the id of their run."""
        state = self._state
        if (known := state.runs.get(key)) is not None:
            return known
        what = " ".join(key.split()[:2])
        who = order.policy or RATC

        def tell(done: int, message: str) -> None:
            told = f"{what}, {who}" + (f": {message}" if message else "")
            self._tell(Step(state.spent + done, self._config.episodes, told))

        run = self._venue.run(order, tell)
        self._count_time()
        state.note_run(key, run, order.episodes)
        return run

    def _enter(self, point: Point) -> None:
        self._state.points.append(point)
        self._save()
        self._say(told(point, self._state), notable=True)

    def _save(self) -> None:
        self._count_time()
        self._state.save()
        write_curve(self._state)

    def _count_time(self) -> None:
        now = self._now()
        self._state.seconds += now - self._noted
        self._noted = now

    def _label(self, what: str) -> str:
        return f"learn {self._name}: {what}"

    def _say(self, message: str, *, notable: bool = False) -> None:
        self._tell(Step(self._state.spent, self._config.episodes, message, notable))


def told(point: Point, state: LiveState) -> str:
    """Return the result of a gate in a line."""
    rate = f"{100 * point.mean:.1f} %"
    if point.verdict is None:
        return f"{point.policy} begins with {rate} in {len(point.rates)} episodes"
    difference = point.verdict["difference"]
    apart = "" if difference is None else f", {100 * difference:+.1f} points"
    done = (
        f"accepted{' as the best so far' if point is state.best else ''}"
        if point.accepted
        else f"rolled back after {len(point.rates)} episodes"
    )
    reference = point.verdict["reference"]
    return f"update {point.number}: {point.policy} has {rate}{apart} against {reference}: {done}"


def _key(point: Point) -> str | None:
    return None if point.policy == RATC else point.policy
