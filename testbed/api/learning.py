"""Learning where it runs: on a testbed that is up, wherever its nodes are, or in the simulator."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from testbed import environment
from testbed.api import home, notices, places, running
from testbed.errors import Problem, TestbedError, UsageError
from testbed.experiment.live.settings import LiveConfig
from testbed.scenario.plan import Plan, PlanHead

if TYPE_CHECKING:
    from testbed.experiment.live.state import LiveState
    from testbed.experiment.live.venue import Say
    from testbed.scenario.schema import ScenarioFile

LEARNING: Final = "learn"
"""Folder of the home that holds what was learned where it runs, by testbed."""

FIGURE: Final = "curve"


def folder_of(name: str) -> Path:
    """Return the folder of the home in which testbed ``name`` learns."""
    return home.home() / LEARNING / name


def learn(
    name: str = "default",
    config: LiveConfig | None = None,
    *,
    out: Path | None = None,
    time_scale: float = 0.0,
    say: Say = lambda _: None,
    resume: bool = True,
) -> LiveState:
    """Learn on the testbed ``name``, which is up, until the budget is used up or a plateau.

    Runs, logs and policies stay in its task log and artifact store, and the best policy deployed.

    Args:
        name: Name of the testbed.
        config: Settings; None: the defaults.
        out: Folder of the state and the curve; None: one of the home, by ``name``.
        time_scale: Real seconds per emulated second; 0: the scenario's.
        say: Told of progress.
        resume: False: start over.

    Raises:
        UsageError: no such testbed, one that serves requests, or ``out`` holds something else.
        PermanentError: a run failed or cannot be used.
        TemporaryError: the controller or the artifact store does not answer, a policy did not reach
            all nodes, or one is not healthy when a run begins; the same call goes on.
    """
    from testbed.experiment.live.learner import LogLearner
    from testbed.experiment.live.loop import learn as loop
    from testbed.experiment.live.network import NetworkVenue
    from testbed.rpc.repeated import mark_of
    from testbed.storage.tasklog import open_task_log

    config = config or LiveConfig()
    folder = out or folder_of(name)
    place = places.runtime(name)
    testbed = place.find(name)
    with running.client_of(testbed, timeout=30.0) as client:
        status, plan = client.status(), _with_tasks(client.plan())
        store = testbed.artifacts or status.artifacts
        _check_writable(store)
        with open_task_log(testbed.store, create=False) as log:
            venue = NetworkVenue(
                client,
                lambda run: running.follow(client, run, place),
                plan,
                log,
                store,
                mark=mark_of(folder),
                time_scale=time_scale,
                include_invalid=config.include_invalid,
                warn=notices.warn,
            )
            state = loop(
                venue,
                LogLearner(log, store, plan, config),
                config,
                folder,
                name=name,
                say=say,
                resume=resume,
            )
    return _finished(state, config)


def learn_in_simulator(
    scenario: ScenarioFile,
    config: LiveConfig | None = None,
    *,
    storage: str | None = None,
    out: Path | None = None,
    say: Say = lambda _: None,
    resume: bool = True,
) -> LiveState:
    """Learn as ``learn`` does, from the logs of a simulated network.

    Args:
        scenario: The network.
        config: Settings; None: the defaults.
        storage: URL of the task log; None: the scenario's, else that of the home.
        out: Folder of the state and the curve; None: one of the home, by the scenario's name.
        say: Told of progress.
        resume: False: start over.

    Raises:
        UsageError: a scenario of requests, or ``out`` holds something else.
    """
    from testbed.experiment.live.learner import LogLearner
    from testbed.experiment.live.loop import learn as loop
    from testbed.experiment.live.simulated import SimulatedVenue
    from testbed.scenario.load import draw, dumps
    from testbed.storage.tasklog import open_task_log

    config = config or LiveConfig()
    store = home.artifacts_url(None, scenario.artifacts)
    plan = _with_tasks(draw(scenario, artifacts_url=store))
    name = f"sim-{plan.name}"
    with open_task_log(home.choose_task_log(storage, scenario.storage)) as log:
        state = loop(
            SimulatedVenue(plan, log, store, dumps(scenario)),
            LogLearner(log, store, plan, config),
            config,
            out or folder_of(name),
            name=name,
            say=say,
            resume=resume,
        )
    return _finished(state, config)


def _check_writable(store: str) -> None:
    """Return if policies can be put into ``store`` from here, before an hour of runs shows it.

    Raises: TestbedError: what the store says, with what to do where it is another one from here.
    """
    from testbed.storage.artifacts.opening import open_artifact_store

    probe = f"probe-{secrets.token_hex(8)}"
    try:
        opened = open_artifact_store(store)
        opened.put(probe, {"probe": b"may be removed"})
        opened.remove(probe)
    except TestbedError as error:
        error.add_note(
            f"learning puts policies into the artifact store of the testbed, from here {store}; "
            f"where it has another address from here, let {environment.ARTIFACTS} name that "
            "(docs/learn.md)"
        )
        raise


def _with_tasks(plan: PlanHead) -> Plan:
    """Return the plan. Raises: UsageError: it is one of requests, for which no policy learns."""
    if not isinstance(plan, Plan):
        raise UsageError(
            "only schedulers of tasks learn",
            [Problem("scenario", f"{plan.name} serves requests", "a scenario of tasks")],
        )
    return plan


def _finished(state: LiveState, config: LiveConfig) -> LiveState:
    """Draw the curve beside its data."""
    from testbed.experiment.figures import as_files
    from testbed.experiment.live.curve import drawn

    formats = as_files(drawn(state, config.start))
    for suffix, content in formats._asdict().items():
        (state.folder / f"{FIGURE}.{suffix}").write_bytes(content)
    return state
