"""Testbeds that are up, from Python: brought up, used and taken down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from testbed.api import home, html, lifecycle, notices, places, running
from testbed.api.planning import LoadedPlan, load
from testbed.api.reading import Log
from testbed.api.results import RunResult
from testbed.errors import PermanentError
from testbed.runtime.base import valid_name
from testbed.scenario.secrets import without_password

if TYPE_CHECKING:
    import pandas as pd

    from testbed.rpc.operator import Acknowledgement, FaultList, PolicyDeployment, Progress, Status
    from testbed.runtime.base import Runtime, Teardown, Testbed


class Lab:
    """A testbed that is up: real processes, or pods of a cluster.

    As a context manager, one that ``up`` brought up is taken down at the end of the block, also
    after an error or Ctrl-C; one that ``connect`` found stays up.
    """

    def __init__(self, testbed: Testbed, runtime: Runtime, *, owned: bool) -> None:
        self.testbed = testbed
        self._runtime = runtime
        self._owned = owned

    @property
    def name(self) -> str:
        """The testbed's name."""
        return self.testbed.name

    def status(self) -> Status:
        """Ask the controller for the testbed's state, its run, and every node."""
        with running.client_of(self.testbed) as client:
            return client.status()

    @property
    def nodes(self) -> pd.DataFrame:
        """A row per node: health, scheduler, queue length, backlog and lag (microseconds)."""
        import dataclasses

        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(node) for node in self.status().nodes])

    def run(
        self,
        scheduler: str = "",
        *,
        options: Mapping[str, Any] | None = None,
        episodes: int | None = None,
        first_episode: int = 0,
        label: str = "",
        time_scale: float | None = None,
    ) -> LiveRun:
        """Start a run and return at once; ``wait`` on what is returned for its result.

        Args:
            scheduler: Scheduler of all nodes, a registered name or ``module:Class`` that the nodes
                can import; empty: the scenario's.
            options: Options of the scheduler.
            episodes: Number of episodes; None: the scenario's.
            first_episode: Number of the first one; equal numbers meet equal tasks and failures.
            label: Free text to identify the run later.
            time_scale: Real seconds per emulated second; None: the scenario's.

        Raises: UsageError: unknown scheduler, another run is active, or a node is not healthy.
        """
        from testbed.rpc.repeated import start

        with running.client_of(self.testbed) as client, running.stopped_by_interrupt(client):
            run = start(
                client,
                scheduler=scheduler,
                options=options,
                episodes=episodes or 0,
                first_episode=first_episode,
                label=label,
                time_scale=time_scale or 0.0,
            )
        return LiveRun(run, self.testbed, self._runtime)

    def set_scheduler(
        self,
        scheduler: str,
        *,
        nodes: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Acknowledgement, ...]:
        """Change the scheduler of ``nodes`` (none: all) in the run that goes on; all or none.

        Raises: UsageError: no run is active, or a node refused; then nothing has changed.
        """
        return running.set_scheduler(self.testbed, scheduler, nodes, options or {})

    def deploy(self, policy: str, *, nodes: Sequence[int] = ()) -> PolicyDeployment:
        """Bring a policy to ``nodes`` (none: all) while they run: to all of them or to none.

        ``policy`` is its key, ``shipped/NAME``, or a folder, which is imported into the testbed's
        artifact store first. Where ``drl`` decides, the policy does from then on.

        Raises: UsageError: no such policy, or it does not fit.
        """
        from testbed.api.policies import imported

        with running.client_of(self.testbed) as client:
            store = self.testbed.artifacts or client.status().artifacts
            return client.deploy_policy(imported(policy, store), nodes=nodes)

    def inject_fault(self, kind: str, duration: str, **parameters: Any) -> FaultList:
        """Inject a fault into the run that goes on; it ends by itself.

        Args:
            kind: A kind of docs/faults.md, such as ``"slow-node"``.
            duration: Emulated time with its unit, such as ``"5s"``.
            parameters: The kind's other keys as in a scenario: ``nodes=[0]``, ``factor=0.2``;
                ``source`` stands for ``from`` and ``destination`` for ``to``.

        Raises: UsageError: no run is active, or a parameter is wrong; names every problem.
        """
        from testbed.api.faulting import fault_of

        names = {"source": "from", "destination": "to", "both_ways": "bothWays"}
        names["failure_rate"] = "failureRate"
        given = {names.get(key, key): value for key, value in parameters.items()}
        entry = {"kind": kind, "for": duration, **given}
        with running.client_of(self.testbed) as client:
            return client.inject_fault(fault_of(entry, len(client.status().nodes)))

    def clear_faults(self) -> FaultList:
        """Release all faults that were injected by hand; those of the scenario stay."""
        with running.client_of(self.testbed) as client:
            return client.clear_faults()

    def kill(self, node: int) -> None:
        """End a node at once, as a crash would. Raises: UsageError: it is not running."""
        self._runtime.kill(self.name, node)

    def log(self) -> Log:
        """Open the task log of the testbed. Raises: PrerequisiteMissing: no run is in it yet."""
        from testbed.storage.tasklog import open_task_log

        store = self.testbed.store
        return Log(open_task_log(store, create=False), without_password(store))

    def down(self) -> Teardown:
        """Take the testbed down; no-op if it is down. Its task log stays.

        Raises: PermanentError: something of it could not be ended; names it.
        """
        done = lifecycle.take_down(self._runtime, self.name)
        lifecycle.settle(done)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._owned:
            self.down()

    def __repr__(self) -> str:
        return f"Lab({self.name}, {self.testbed.scenario}, {self.testbed.nodes} nodes)"

    def _repr_html_(self) -> str:
        status = self.status()
        healthy = sum(node.condition == "healthy" for node in status.nodes)
        run = "none yet"
        if status.run is not None:
            progress = status.run.progress
            run = f"{progress.run} ({progress.scheduler}), {progress.state}"
        return html.facts(
            f"Testbed {self.name}",
            [
                ("scenario", f"{status.scenario} [{status.scenario_hash[:12]}]"),
                ("nodes", f"{healthy} of {len(status.nodes)} healthy"),
                ("task log", status.store),
                ("run", run),
            ],
        )


class LiveRun:
    """A run on a testbed that is up."""

    def __init__(self, run: str, testbed: Testbed, runtime: Runtime) -> None:
        self.id = run
        self._testbed = testbed
        self._runtime = runtime

    def watch(self) -> Iterator[Progress]:
        """Yield the run's progress whenever it changes, at most about five a second, to its end."""
        with running.client_of(self._testbed) as client:
            yield from running.follow(client, self.id, self._runtime)

    def wait(self) -> RunResult:
        """Wait for the end of the run and return its result; Ctrl-C stops the run in order.

        A run in which a node was out, or that was not faithful, is a result too: see ``state``.

        Raises:
            PermanentError: the run failed.
            TemporaryError: the controller does not answer any more.
        """
        from testbed.experiment.summary import summary_of
        from testbed.storage.tasklog import open_task_log

        last: Progress | None = None
        try:
            for progress in self.watch():
                last = progress
        except KeyboardInterrupt:
            notices.note("stopping the run")
            self.stop()
            raise
        if last is None:
            raise PermanentError(f"the controller says nothing about run {self.id}")
        for line in running.complaints(last):
            notices.warn(line)
        running.refuse_failed(last)
        store = self._testbed.store
        log = Log(open_task_log(store, create=False), without_password(store))
        return RunResult(summary_of(log.task_log, self.id), log)

    def stop(self) -> None:
        """End the run in order; what has happened is in the task log. No-op if it is over."""
        with running.client_of(self._testbed) as client:
            client.stop_run(self.id)

    def __repr__(self) -> str:
        return f"LiveRun({self.id} on {self._testbed.name})"


def up(
    plan: LoadedPlan | str,
    name: str = "default",
    *,
    runtime: str = "local",
    context: str = "",
    kubeconfig: str | Path = "",
    namespace: str = "",
) -> Lab:
    """Bring a testbed up: a controller and the processes of the nodes, until all are healthy.

    In a ``with`` block it is taken down at the end. Interrupted or failed, it leaves nothing.

    Args:
        plan: What ``load`` returns, or a scenario as ``load`` takes it.
        name: Name of the testbed, by which ``connect`` and the command line find it.
        runtime: ``"local"``: processes of this machine; ``"kind"``: pods of a kind cluster that is
            made for it; ``"cluster"``: pods of a cluster that exists. How it is put there stands in
            the scenario's section ``deployment``.
        context: Context of the cluster in the kubeconfig; empty: the current one.
        kubeconfig: Path of the kubeconfig; empty: as kubectl finds it.
        namespace: A namespace that was made for the testbed; empty: one of its own.

    Raises:
        UsageError: a testbed of that name is up, or something that is asked for is not known.
        PrerequisiteMissing: the runtime lacks something.
        PermanentError: a process could not start; the message shows the end of its log.
        TemporaryError: not all nodes became healthy in time.
    """
    valid_name(name)
    loaded = plan if isinstance(plan, LoadedPlan) else load(plan)
    where = _place(runtime, context, kubeconfig, namespace)
    place = places.open_place(where, deployment=loaded.scenario.deployment)
    drawn = lifecycle.planned(loaded.scenario, place, episodes=loaded.plan.episodes)
    if place.on_this_machine:
        from testbed.api.calibrating import shared_processes, warn_if_doubtful

        warn_if_doubtful(drawn, shared=shared_processes(drawn, loaded.scenario.deployment))
    where = places.settled(where, place)
    testbed = lifecycle.bring_up(place, where, drawn, name, loaded.text)
    return Lab(testbed, place, owned=True)


def connect(name: str = "default") -> Lab:
    """Return the testbed that is up under this name, wherever it was brought up.

    Raises: UsageError: there is none, or it is incomplete; names those there are.
    """
    place = places.runtime(name)
    return Lab(place.find(name), place, owned=False)


def _place(runtime: str, context: str, kubeconfig: str | Path, namespace: str) -> places.Place:
    path = str(Path(kubeconfig).expanduser().absolute()) if kubeconfig else ""
    given = {"context": context, "kubeconfig": path, "namespace": namespace}
    places.refuse_unused(runtime, [(name, name) for name, value in given.items() if value])
    return places.Place(runtime, **given)


def use_home(folder: str | Path | None) -> Path:
    """Keep testbeds, task log, policies and data sets in ``folder`` from now on; return it.

    None: what ``TESTBED_HOME`` says, else the user's folder for state.

    Raises: UsageError: it cannot be a folder.
    """
    home.choose(None if folder is None else Path(folder))
    return home.home()
