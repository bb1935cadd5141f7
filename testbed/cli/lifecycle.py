"""Testbeds come and go: up, scale, teardown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from testbed.api import home, places
from testbed.cli import console, deployment_options
from testbed.cli.network import REMOVE_IDLE, with_name
from testbed.cli.options import (
    AUTO,
    Json,
    Name,
    ScenarioName,
    Settings,
    Storage,
    TimeScale,
    key_values,
    refuse_auto_elsewhere,
)
from testbed.errors import PermanentError, Problem, TestbedError, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.runtime.base import Runtime, Teardown
    from testbed.scenario.plan import PlanHead
    from testbed.scenario.schema import ScenarioFile

_CLUSTER = "Kubernetes"

MergeKubeconfig: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--merge-kubeconfig",
        help="Add the kind cluster to your own kubeconfig; by default it has a separate one.",
        rich_help_panel=_CLUSTER,
    ),
]
KeepOnFailure: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--keep-on-failure",
        help="Keep what was started if this fails, for inspection.",
        rich_help_panel=_CLUSTER,
    ),
]
ForceConflicts: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--force-conflicts",
        help="Overwrite fields of its objects that someone else has changed.",
        rich_help_panel=_CLUSTER,
    ),
]


def up(
    scenario: ScenarioName,
    name: Name = "default",
    settings: Settings = None,
    time_scale: TimeScale = None,
    storage: Storage = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts",
            metavar="URL",
            help="Store of policies: a folder or a WebHDFS URL. Default: the scenario's, else the "
            "home's, or an HDFS on the cluster.",
        ),
    ] = None,
    nodes_per_process: deployment_options.NodesPerProcess = "",
    transport: deployment_options.Transport = "",
    deployment: deployment_options.DeploymentFile = None,
    image_registry: deployment_options.ImageRegistry = "",
    workers: deployment_options.Workers = 0,
    merge_kubeconfig: MergeKubeconfig = False,
    keep_on_failure: KeepOnFailure = False,
    force_conflicts: ForceConflicts = False,
    image_tag: deployment_options.ImageTag = "",
    mysql_image: deployment_options.MysqlImage = "",
    pull_secret: deployment_options.PullSecret = "",
    node_selector: deployment_options.NodeSelector = None,
    spread: deployment_options.Spread = False,
    without_hdfs: deployment_options.WithoutHdfs = False,
    storage_class: deployment_options.StorageClass = "",
    cpu_limits: deployment_options.CpuLimits = False,
    node_image: deployment_options.NodeImage = "",
    map_port: deployment_options.Ports = None,
    mount: deployment_options.Mounts = None,
) -> None:
    """Bring a network up: a controller and the processes of the nodes, until all are healthy.

    With --runtime kind, as pods of a kind cluster that is made for it; with --runtime cluster,
    of a cluster that exists (--context NAME). There it may be repeated: what differs is changed.
    """
    from testbed.api.lifecycle import planned
    from testbed.runtime.base import valid_name
    from testbed.scenario.load import dumps, load, warnings, without_deployment

    valid_name(name)
    changes = deployment_options.as_settings(
        {
            "--nodes-per-process": nodes_per_process,
            "--transport": transport,
            "--image-registry": image_registry,
            "--image-tag": image_tag,
            "--mysql-image": mysql_image,
            "--image-pull-secret": pull_secret,
            "--node-selector": key_values(node_selector, "--node-selector"),
            "--spread": spread,
            "--without-hdfs": without_hdfs,
            "--storage-class": storage_class,
            "--cpu-limits": cpu_limits,
            "--workers": workers,
            "--node-image": node_image,
            "--map-port": map_port,
            "--mount": mount,
        }
    )
    where = places.place_of(name)
    if not home.controller():
        used = [
            *([("deployment", "--deployment")] if deployment else []),
            *deployment_options.used(settings or ()),
            *changes.used,
            *([("retain", "--keep-on-failure")] if keep_on_failure else []),
            *([("force", "--force-conflicts")] if force_conflicts else []),
            *([("merge_kubeconfig", "--merge-kubeconfig")] if merge_kubeconfig else []),
        ]
        places.refuse_unused(where.runtime, used)
    given = [*(settings or ()), *changes.settings]
    if time_scale is not None and time_scale != AUTO:
        given.append(f"timeScale={time_scale}")
    loaded = load(scenario, given, deployment)
    place = places.runtime(
        name,
        deployment=loaded.deployment,
        retain=keep_on_failure,
        force=force_conflicts,
        merge_kubeconfig=merge_kubeconfig,
    )
    if time_scale == AUTO:
        loaded = _with_time_scale(loaded, place)
    for line in warnings(loaded):
        console.warn(line)
    plan = planned(loaded, place, storage=storage, artifacts=artifacts)
    if place.on_this_machine:
        from testbed.api.calibrating import shared_processes, warn_if_doubtful

        warn_if_doubtful(plan, shared=shared_processes(plan, loaded.deployment))
    # What is kept with the testbed and its runs is the network alone.
    text = dumps(without_deployment(loaded))
    _bring_up(place, places.settled(where, place), plan, name, text)


def _with_time_scale(scenario: ScenarioFile, place: Runtime) -> ScenarioFile:
    """Return ``scenario`` with the smallest time scale that this machine carries.

    Raises: UsageError: it is not for this machine, or the scenario has no tasks.
    """
    from testbed.api.calibrating import shared_processes, suited, told
    from testbed.scenario.load import draw

    refuse_auto_elsewhere(place)
    drawn = draw(scenario)
    expected = suited(drawn, shared=shared_processes(drawn, scenario.deployment))
    console.note(told(expected))
    return scenario.model_copy(update={"time_scale": expected.time_scale})


def _bring_up(
    place: Runtime, where: places.Place, plan: PlanHead, name: str, scenario: str
) -> None:
    from testbed.api.lifecycle import bring_up

    began = time.monotonic()
    testbed = bring_up(place, where, plan, name, scenario)
    seconds = time.monotonic() - began
    console.show(
        f"{console.mark('up', 'green')}: testbed '{name}', {counted(testbed.nodes, 'node')} "
        f"healthy after {seconds:.1f} s"
    )
    console.next_command(
        with_name(f"testbed run --scheduler {plan.scheduler.name}", name),
        with_name("testbed status", name),
        with_name("testbed teardown", name),
    )


def scale(
    nodes: Annotated[int, typer.Argument(metavar="NODES", min=1, help="Number of edge nodes.")],
    name: Name = "default",
) -> None:
    """Change the number of edge nodes of a testbed on a cluster; its network is drawn again.

    Everything else is as it was brought up with. Runs of different sizes cannot be paired.
    """
    from testbed.api.lifecycle import planned
    from testbed.scenario.load import dumps, loads

    where = places.place_of(name)
    place = places.runtime(name)
    cluster = place.on_cluster
    if cluster is None:
        raise UsageError(
            f"testbed '{name}' runs as processes of this machine, and has the number of nodes of "
            "its scenario",
            [
                Problem(
                    "scale",
                    "is for testbeds on a cluster",
                    f"testbed teardown, then testbed up SCENARIO --set nodes.count={nodes}",
                )
            ],
        )
    loaded = loads(cluster.scenario(name), [f"nodes.count={nodes}"])
    plan = planned(loaded, place)
    _bring_up(place, where, plan, name, dumps(loaded))


def teardown(
    name: Name = "default",
    everything: Annotated[
        bool, typer.Option("--all", help="All testbeds of this home instead of one.")
    ] = False,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge",
            help="Also remove the logs of its processes and events that are not stored yet.",
        ),
    ] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard",
            help="Discard the runs of a task log that is part of the testbed.",
            rich_help_panel=_CLUSTER,
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check that nothing is left, volumes included; exit code 5 if something is.",
            rich_help_panel=_CLUSTER,
        ),
    ] = False,
    keep_cluster: Annotated[
        bool,
        typer.Option(
            "--keep-cluster",
            help="Keep the kind cluster when its last testbed is removed.",
            rich_help_panel=_CLUSTER,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a testbed down and check that nothing of it still runs; no error if there is none.

    The task log stays, so that runs can be reported and compared later. One that is part of the
    testbed, as on a cluster, goes with it: its runs are copied into the one of the home first.
    """
    from testbed.api.lifecycle import settle, settle_abandoned, take_down

    done = []
    for testbed, place in _to_take_down(name, everything, keep_cluster):
        done.append(take_down(place, testbed, discard=discard, verify=verify))
    idle = _idle(done, everything, keep_cluster)
    for each in done:
        settle(each)
    settle_abandoned()
    if purge:
        done = [_purged(each) for each in done]
    if as_json:
        console.emit([asdict(each) for each in done])
        idle.tell(verify)
        return
    if not done and not idle.removed:
        console.out(f"no testbed is up in {home.home()}")
    for thing in idle.removed:
        console.out(f"removed: {thing}")
    for each in done:
        console.out(_in_words(each))
        for process in each.stopped:
            if process.forced:
                console.warn(f"{process.name} (process {process.pid}) had to be killed")
        if each.kept is not None:
            console.note(f"logs are kept in {each.kept}")
    idle.tell(verify)
    console.next_command("testbed runs list", "testbed compare")


def _to_take_down(name: str, everything: bool, keep_cluster: bool) -> list[tuple[str, Runtime]]:
    if not everything:
        return [(name, places.runtime(name, keep_cluster=keep_cluster))]
    if home.controller():
        place = places.runtime()
        return [(each, place) for each in place.names()]
    found = []
    for where in places.all_places():
        place = places.open_place(where, keep_cluster=keep_cluster)
        place.start_stopped(report=console.note)
        found += [(each, place) for each in place.names()]
    return found


@dataclass(frozen=True, slots=True)
class _Idle:
    """Clusters that were made for testbeds and carry none: ``removed``, and ``left``."""

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def tell(self, verify: bool) -> None:
        """Warn of what is left. Raises: PermanentError: the same, with ``verify``."""
        for each in self.left:
            text = f"{each} is still there, and no testbed is on it"
            if verify:
                raise PermanentError(text, fix=REMOVE_IDLE)
            console.warn(f"{text}; {REMOVE_IDLE}")


def _idle(done: Sequence[Teardown], everything: bool, keep_cluster: bool) -> _Idle:
    """Remove with ``--all`` what carries no testbed; look for it where nothing was taken down."""
    if keep_cluster or home.controller() or not (everything or _nothing(done)):
        return _Idle()
    removed: list[str] = []
    left: list[str] = []
    for where in places.all_places():
        place = places.open_place(where)
        try:
            if everything:
                removed += place.remove_idle(report=console.note)
            else:
                left += place.idle()
        except TestbedError as error:
            if everything:
                raise
            console.warn(str(error))
    return _Idle(tuple(removed), tuple(left))


def _nothing(done: Sequence[Teardown]) -> bool:
    return not any(each.stopped for each in done)


def _in_words(done: Teardown) -> str:
    if not done.stopped:
        return f"testbed '{done.name}': nothing was running"
    processes = {each.pid for each in done.stopped if each.pid is not None}
    number = f"{len(processes)} processes" if processes else f"{len(done.stopped)} pods"
    return f"testbed '{done.name}' is down: {number} ended in {done.seconds:.1f} s, none left"


def _purged(done: Teardown) -> Teardown:
    import dataclasses
    import shutil

    from testbed.cli.files import cannot_write

    if done.kept is None:
        return done
    try:
        shutil.rmtree(done.kept)
    except OSError as error:
        raise cannot_write(done.kept, error) from error
    return dataclasses.replace(done, kept=None)
