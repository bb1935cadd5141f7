"""A lane runs one trial after another and judges each; several lanes run side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from testbed.errors import TestbedError
from tests.campaign.checks import (
    COMPLETE,
    FINE,
    Account,
    Expected,
    Violation,
    account,
    judge,
    without_it,
)
from tests.campaign.network import NAME, Network
from tests.campaign.processes import COMMAND_S, Finished, Hang, rest, until
from tests.campaign.scene import FAULTS, Fault, Scene
from tests.campaign.services import Services
from tests.campaign.switchboard import Switchboard
from tests.campaign.trial import Trial

FRESH_AFTER: Final = 12
"""Trials of a lane after which its home is made anew: the task log grows."""

DELIVERED_S: Final = 10.0
"""How long the check after the next ``up`` waits for nodes to hand in what they still have."""


MARKER: Final = "active-run.json"

AT_ONCE_S: Final = 0.3
"""Within this time of its end a run need not notice a fault."""


@dataclass(slots=True)
class Result:
    """What a trial did and what was found."""

    trial: Trial
    note: str = ""
    told: str = ""
    seconds: float = 0.0
    expected: Expected = field(default_factory=Expected)
    accounts: dict[str, Account] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def wrong(self, kind: str, what: str) -> None:
        """Enter a violation, once."""
        found = Violation(kind, what)
        if found not in self.violations:
            self.violations.append(found)

    def document(self) -> dict[str, Any]:
        """As a line of the report."""
        trial = dataclasses.asdict(self.trial)
        return {
            **{key: trial.pop(key) for key in ("seed", "number", "fault")},
            "note": self.note,
            "ok": not self.violations,
            "violations": [dataclasses.asdict(each) for each in self.violations],
            "told": self.told,
            "runs": [
                {key: getattr(each, key) for key in ("run", "state", *_COUNTS)}
                for each in self.accounts.values()
            ],
            "seconds": round(self.seconds, 1),
            "network": trial,
        }


_COUNTS: Final = ("generated", "ended", "rows", "lost", "open")


class Lane:
    """Runs trials below ``folder``; logs of trials with violations are kept below ``evidence``."""

    def __init__(self, folder: Path, services: Services, evidence: Path) -> None:
        self._folder = folder
        self._services = services
        self._evidence = evidence
        self._made = 0
        self._trials = 0
        self._network = self._fresh()
        self._waiting: Result | None = None
        self._known: set[str] = set()

    def run(self, trial: Trial) -> Iterator[Result]:
        """Run a trial; gives each result once it is known, which takes the ``up`` of the next."""
        if (trial.store == "mysql") != (self._network.store is not None):
            yield from self.finish()
            self._renew(trial.store)
        began = time.monotonic()
        result = Result(trial)
        fault = FAULTS[trial.fault]
        with ExitStack() as stack:
            scene = self._prepare(trial, fault, stack)
            try:
                if fault.run:
                    yield from self._up(trial, result)
                else:
                    yield from self.finish()
                    self._known = self._runs()
                self._strike(scene, fault, result)
            except Hang as hang:
                result.wrong("hang", str(hang))
            except NoNetwork as error:
                result.wrong("up", str(error))
            except TestbedError as error:
                result.wrong("no answer", f"{type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - one trial may not end the campaign
                result.wrong("harness", repr(error))
            self._take_down(scene, result)
        result.seconds = time.monotonic() - began
        self._waiting = result
        self._trials += 1
        if result.violations or self._trials % FRESH_AFTER == 0:
            yield from self.finish()
            self._renew()

    def close(self) -> None:
        """End everything of this lane."""
        self._network.close()

    # --- one trial ------------------------------------------------------------------------------

    def _prepare(self, trial: Trial, fault: Fault, stack: ExitStack) -> Scene:
        network = self._network
        network.variables.clear()
        scene = Scene(trial, network, trial.random(), self._services)
        if fault.links:
            folder = network.folder / "s"
            scene.switchboard = stack.enter_context(Switchboard(folder))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            network.hook(
                CAMPAIGN_SWITCHBOARD=str(scene.switchboard.ask),
                CAMPAIGN_TWICE=str(fault.twice),
                CAMPAIGN_SEED=f"{trial.seed}/{trial.number}",
            )
        if fault.clock:
            path = network.folder / "clock"
            path.write_text("0")
            network.hook(CAMPAIGN_CLOCK=str(path))
        if "hdfs" in fault.needs:
            with self._services.hdfs() as server:
                network.variables["TESTBED_ARTIFACTS"] = f"{server.url}/{trial.number}"
        return scene

    def _up(self, trial: Trial, result: Result) -> Iterator[Result]:
        """Bring the network up, which proves that the trial before left nothing in its way."""
        done = self._network.up(trial)
        if done.code != 0 and self._waiting is not None:
            self._waiting.wrong("next up", f"`{done.line}` ended with {done.code}: {done.err}")
            waiting, self._waiting = self._waiting, None
            yield waiting
            self._keep(waiting)
            self._renew()
            done = self._network.up(trial)
        if done.code != 0:
            raise NoNetwork(f"`{done.line}` ended with {done.code}: {done.err}")
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._recheck(waiting)
            yield waiting
        self._known = self._runs()

    def finish(self) -> Iterator[Result]:
        """Bring the network up once more for the trial before, and down."""
        if self._waiting is None:
            return
        self._network.unhook()
        waiting, self._waiting = self._waiting, None
        try:
            done = self._network.up(waiting.trial)
            if done.code != 0:
                waiting.wrong("next up", f"`{done.line}` ended with {done.code}: {done.err}")
            else:
                self._recheck(waiting)
            self._network.do("teardown")
        except Hang as hang:
            waiting.wrong("hang", str(hang))
        if waiting.violations:
            self._keep(waiting)
            self._network.clean()
        yield waiting

    def _strike(self, scene: Scene, fault: Fault, result: Result) -> None:
        trial, network = scene.trial, scene.network
        if fault.run:
            if scene.switchboard is not None:
                self._name_processes(scene)
            scene.command = network.begin("run", "--json")
            run = until("the run begins", lambda: self._begun(scene), COMMAND_S)
            if run:
                scene.run = run
                rest(trial.moment * trial.planned_s)
        result.expected = fault.strike(scene)
        if scene.run and self._over(scene):
            result.expected = without_it(result.expected)
        expected = result.expected
        result.note = expected.note
        for problem in expected.problems:
            result.wrong("wrong answer", problem)
        if scene.command is None:
            return
        done = scene.command.wait(2 * COMMAND_S)
        self._judge_command(done, result)
        if expected.states.isdisjoint({"interrupted"}):
            self._wait_for_end(scene, expected)

    def _over(self, scene: Scene) -> bool:
        """Whether the run had ended when the fault had struck, or ends at the same moment."""
        rest(AT_ONCE_S)
        try:
            with self._network.log() as log:
                run = log.run(scene.run)
        except TestbedError:
            return False
        return run.state.value in FINE

    def _begun(self, scene: Scene) -> str | None:
        """The id of the run that has begun; empty if the command has ended before."""
        assert scene.command is not None
        status = scene.network.status()
        if status is not None and status.run is not None:
            return status.run.progress.run
        return None if scene.command.running else ""

    def _name_processes(self, scene: Scene) -> None:
        assert scene.switchboard is not None
        status = scene.network.status()
        if status is not None:
            scene.switchboard.names[status.address] = "controller"
            for node in status.nodes:
                if node.address is not None:
                    scene.switchboard.names[node.address] = f"node-{node.node}"

    def _judge_command(self, done: Finished, result: Result) -> None:
        expected = result.expected
        if done.code not in expected.exits:
            allowed = ", ".join(map(str, sorted(expected.exits)))
            result.wrong(
                "wrong exit",
                f"`{done.line}` ended with {done.code}, allowed are {allowed}: {done.err[-800:]}",
            )
        if "Traceback" in done.err or "This is a defect" in done.err:
            result.wrong("defect", f"`{done.line}` wrote {done.err[-1500:]}")
        result.told = _state_in(done.out)

    def _wait_for_end(self, scene: Scene, expected: Expected) -> None:
        """Wait until no run is under way, for a run whose watcher has gone."""

        def ended() -> bool | None:
            status = scene.network.status()
            over = status is None or status.run is None or status.run.progress.state != "running"
            return True if over else None

        until("the run ends", ended, COMMAND_S + scene.trial.planned_s)

    def _take_down(self, scene: Scene, result: Result) -> None:
        network = scene.network
        if scene.switchboard is not None:
            scene.switchboard.heal()
        for repair in scene.repairs:
            try:
                repair()
            except (TestbedError, OSError, Hang) as error:
                result.wrong("wrong answer", str(error))
        try:
            done = network.do("teardown")
            if done.code != 0:
                result.wrong("teardown", f"`teardown` ended with {done.code}: {done.err}")
            if left := network.leftovers():
                # What was just killed may take a moment to be gone.
                with contextlib.suppress(Hang):
                    until("nothing is left", lambda: None if network.leftovers() else True, 5.0)
                left = network.leftovers()
            for each in left:
                result.wrong("left behind", each)
        except Hang as hang:
            result.wrong("hang", str(hang))
        self._audit(result, final=False)
        if result.violations:
            self._keep(result)

    # --- the task log ---------------------------------------------------------------------------

    def _runs(self) -> set[str]:
        try:
            with self._network.log() as log:
                return {run.id for run in log.runs()}
        except TestbedError:
            return set()

    def _audit(self, result: Result, *, final: bool) -> None:
        """Judge the runs of this trial; ``final``: after the next ``up``."""
        expected = result.expected
        try:
            with self._network.log() as log:
                for run in log.runs():
                    if run.id in self._known and run.id not in result.accounts:
                        continue
                    found = account(log, run, final=final and not expected.damaged)
                    result.accounts[run.id] = found
                    result.violations += [v for v in found.problems if v not in result.violations]
                    if run.state.value == "running":
                        if final:
                            result.wrong("wrong state", f"run {run.id} is running for ever")
                    elif run.state.value in COMPLETE or final:
                        result.violations += [
                            v for v in judge(run, found, expected) if v not in result.violations
                        ]
                    alone = final and len(result.accounts) == 1
                    if alone and result.told not in ("", run.state.value):
                        result.wrong(
                            "wrong state",
                            f"run {run.id} is {run.state.value}, told was {result.told}",
                        )
        except TestbedError as error:
            if not expected.damaged and expected.runs:
                result.wrong("unreadable", str(error))

    def _recheck(self, result: Result) -> None:
        """Judge a trial again when the next testbed is up and nodes have handed in the rest."""

        def delivered() -> bool | None:
            status = self._network.status()
            if status is None or any(node.unacknowledged for node in status.nodes):
                return None
            return True

        with contextlib.suppress(Hang):
            until("nodes have handed in what they had", delivered, DELIVERED_S)
        if (self._network.home / NAME / MARKER).exists():
            # Kept for the next controller, where the log could not be told of the end of a run.
            result.wrong("left behind", f"{MARKER} after the next up")
        self._audit(result, final=True)

    # --- homes ----------------------------------------------------------------------------------

    def _fresh(self, store: str = "sqlite") -> Network:
        self._made += 1
        network = Network(self._folder / str(self._made))
        if store == "mysql":
            network.store, network.password = self._services.database(network)
        return network

    def _renew(self, store: str = "") -> None:
        """Begin with an empty home."""
        was = "mysql" if self._network.store is not None else "sqlite"
        self._network.close()
        self._network = self._fresh(store or was)
        self._known = set()

    def _keep(self, result: Result) -> None:
        """Keep the logs of a trial, to see what went wrong."""
        place = self._evidence / f"{result.trial.seed}-{result.trial.number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for source in (self._network.home / NAME / "logs", self._network.folder / "out"):
            if source.is_dir():
                shutil.copytree(source, place / source.name, dirs_exist_ok=True)
        for file in self._network.home.glob("tasklog.sqlite*"):
            shutil.copy(file, place)


def _state_in(out: str) -> str:
    """The state that `run --json` has told."""
    try:
        return str(json.loads(out)["state"])
    except (ValueError, KeyError, TypeError):
        return ""


class NoNetwork(Exception):
    """The network of a trial does not come up, in a home that the trial before did not touch."""
