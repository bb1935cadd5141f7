"""Testbeds on a kind cluster that is made for them: it comes with the first, goes with the last.

What is on the cluster is the business of ``ClusterRuntime``; this sees to the cluster and its
images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    Problem,
    TemporaryError,
    TestbedError,
    UsageError,
)
from testbed.runtime.base import (
    Lack,
    Report,
    Stopped,
    Teardown,
    Testbed,
    TrainerCommand,
    valid_name,
)
from testbed.runtime.kind.cluster import NAME, STARTED_S, KindCluster
from testbed.runtime.kind.config import KindSettings, Mount, PortMapping
from testbed.runtime.kubernetes import ClusterOptions, ClusterRuntime
from testbed.runtime.kubernetes.api import PATIENCE_S, Cluster, Document
from testbed.runtime.kubernetes.bringing_up import DEFAULT_PATIENCE, Patience
from testbed.runtime.kubernetes.rendering import TRAINER_JOB, Requests, pods_of, render, requests_of
from testbed.runtime.registry import Settings
from testbed.scenario.plan import PlanHead


class KindRuntime:
    """The ``Runtime`` of the kind cluster of ``home``; several testbeds share it.

    ``wanted`` is for a cluster that is made; one that is there is used as it is, unless it is given
    and differs. ``reaching`` is as for ``Cluster``. With ``merge_kubeconfig`` the user's own
    kubeconfig gets its context, too. ``keep_cluster`` leaves it when its last testbed goes.
    """

    def __init__(
        self,
        home: Path,
        *,
        wanted: KindSettings | None = None,
        merge_kubeconfig: bool = False,
        keep_cluster: bool = False,
        options: ClusterOptions | None = None,
        retain: bool = False,
        force: bool = False,
        patience: Patience = DEFAULT_PATIENCE,
        **reaching: Any,
    ) -> None:
        self.home = home.absolute()
        self.kind = KindCluster(home, NAME)
        self._wanted = wanted
        self._merge_into = _users_kubeconfig() if merge_kubeconfig else None
        self._keep_cluster = keep_cluster
        self._options = options
        self._retain = retain
        self._force = force
        self._patience = patience
        self._reaching = reaching
        self._started = False

    takes = frozenset(
        {
            *("deployment", "deployment.kind", "retain", "force"),
            *("merge_kubeconfig", "keep_cluster"),
        }
    )

    @classmethod
    def open(cls, settings: Settings) -> KindRuntime:
        """See ``RuntimeFactory``."""
        own = settings.deployment.kind if settings.deployment else None
        return cls(
            settings.home,
            wanted=cluster_settings(own.workers, own.node_image, own.ports, own.mounts)
            if own
            else None,
            merge_kubeconfig=settings.merge_kubeconfig,
            keep_cluster=settings.keep_cluster,
            options=ClusterOptions.of(settings.deployment),
            retain=settings.retain,
            force=settings.force,
            tell=settings.tell,
            patience_s=PATIENCE_S if settings.patience_s is None else settings.patience_s,
        )

    on_this_machine = False
    place: Mapping[str, str] = MappingProxyType({})

    @property
    def on_cluster(self) -> OnKind:
        """The runtime of what is on the cluster."""
        return self._on_cluster({})

    def _on_cluster(self, image_ids: Mapping[str, str]) -> OnKind:
        return OnKind(
            self.kind,
            self.home,
            Cluster(self.kind.kubeconfig, self.kind.context, **self._reaching),
            options=self._options,
            retain=self._retain,
            force=self._force,
            patience=self._patience,
            image_ids=image_ids,
        )

    def check(self) -> tuple[Lack, ...]:
        """See ``Runtime``."""
        return self.kind.check(self._wanted)

    def up(
        self,
        plan: PlanHead,
        name: str,
        *,
        store: str | None = None,
        scenario: str | None = None,
        report: Report = lambda line: None,
    ) -> Testbed:
        """See ``Runtime``; what is there already is only changed where it differs."""
        valid_name(name)
        wanted = self._wanted
        there = self.kind.exists()
        found = self.kind.preflight(wanted, wanted=self._requests(plan, name, store))
        if found.lacks:
            raise PrerequisiteMissing(
                "; ".join(lack.what for lack in found.lacks),
                "; ".join(lack.fix for lack in found.lacks),
            )
        if found.cautions and not there:
            seen = "; ".join(caution.what for caution in found.cautions)
            report(f"{seen} (what to do: testbed doctor)")
        if not self._is_up:
            # Before minutes are spent on a cluster for nothing.
            self.kind.find_images(self.on_cluster.images(plan, name, store, fresh=True))
        self.kind.ensure(wanted, retain=self._retain, merge_into=self._merge_into, report=report)
        try:
            self._await_server(report)
            # Asked of the cluster: what was given once is stored there.
            images = self.on_cluster.images(plan, name, store)
            self.kind.load_images(images, report=report)
            cluster = self._on_cluster(self.kind.find_images(images))
            return cluster.up(plan, name, store=store, scenario=scenario, report=report)
        except BaseException as error:
            if not there:
                self._clear_away(error, report)
            raise

    def _await_server(self, report: Report) -> None:
        """Return when the API server answers; after a start of its node that takes a while.

        Raises: PrerequisiteMissing, TemporaryError: it does not in time.
        """
        until = time.monotonic() + STARTED_S
        cluster = Cluster(self.kind.kubeconfig, self.kind.context, **self._reaching)
        while True:
            try:
                cluster.version()
                return
            except (PrerequisiteMissing, TemporaryError) as error:
                if time.monotonic() > until:
                    raise
                report(f"waiting for the cluster: {error.seen}")
                time.sleep(1.0)

    def _requests(self, plan: PlanHead, name: str, store: str | None) -> Requests:
        running = self._is_up and all(node.running for node in self.kind.nodes())
        return requests_of(self.on_cluster.rendered(plan, name, store, fresh=not running))

    def _clear_away(self, error: BaseException, report: Report) -> None:
        """Remove the cluster of a first testbed that did not come up; note in ``error`` if not."""
        try:
            if self._retain:
                error.add_note(
                    f"kind cluster '{self.kind.name}' is kept for a look at it: the next "
                    "`testbed up` uses it, `testbed teardown` removes it"
                )
            elif not self.on_cluster.names():
                self.kind.delete(report=report)
        except TestbedError as left:
            error.add_note(
                f"kind cluster '{self.kind.name}' could not be removed again ({left}); "
                "to remove it: testbed teardown --all"
            )

    def find(self, name: str) -> Testbed:
        """See ``Runtime``."""
        valid_name(name)
        if not self._is_up:
            raise self._no_testbed(name)
        return self.on_cluster.find(name)

    def names(self) -> tuple[str, ...]:
        """See ``Runtime``."""
        return self.on_cluster.names() if self._is_up else ()

    def kill(self, name: str, node: int) -> Stopped:
        """See ``Runtime``."""
        valid_name(name)
        if not self._is_up:
            raise self._no_testbed(name)
        return self.on_cluster.kill(name, node)

    def start_stopped(self, *, report: Report = lambda line: None) -> bool:
        """See ``Runtime``: the nodes of the cluster, as after a restart of the machine."""
        if not self._is_up or all(node.running for node in self.kind.nodes()):
            return self._started
        try:
            self._started = self.kind.start_stopped(report=report)
            if self._started:
                self._await_server(report)
            return self._started
        except (PermanentError, PrerequisiteMissing, TemporaryError) as error:
            error.add_note(
                f"to remove the cluster with everything on it: {self.kind.remove_command}, "
                "then testbed teardown"
            )
            raise

    def down(self, name: str, *, report: Report = lambda line: None) -> Teardown:
        """See ``Runtime``. With its last testbed the cluster goes, unless it is to be kept."""
        valid_name(name)
        if not self._is_up:
            # Also what an interrupted `up` left: a cluster that nothing answers on.
            if self.kind.owned() and not self._keep_cluster:
                self.kind.delete(report=report)
            return Teardown(name, (), 0.0, None)
        cluster = self.on_cluster
        done = cluster.down(name, report=report)
        if not self._keep_cluster and not cluster.names():
            self.kind.delete(report=report)
        return done

    def logs(
        self, name: str, process: str, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """See ``Runtime``."""
        return self.on_cluster.logs(name, process, lines=lines, follow=follow)

    def own_log(self, name: str) -> str | None:
        """See ``Runtime``."""
        return self.on_cluster.own_log(name) if self._is_up else None

    def was_up(self, name: str) -> bool:
        """See ``Runtime``."""
        return self._is_up and self.on_cluster.was_up(name)

    def idle(self) -> tuple[str, ...]:
        """See ``Runtime``: the cluster, whole or not, while no testbed is on it."""
        nodes = self.kind.nodes()
        if not nodes:
            return ()
        if self._is_up and (
            # Nobody can say what is on one that does not run.
            not all(node.running for node in nodes) or self.on_cluster.names()
        ):
            return ()
        containers = ", ".join(node.name for node in nodes)
        return (f"kind cluster '{self.kind.name}' (containers: {containers})",)

    def remove_idle(self, *, report: Report = lambda line: None) -> tuple[str, ...]:
        """See ``Runtime``; not with ``keep_cluster``."""
        if self._keep_cluster or not (found := self.idle()):
            return ()
        self.kind.delete(report=report)
        return found

    def leftovers(self, name: str) -> tuple[str, ...]:
        """See ``Runtime``; the containers of a cluster that was made for it, too."""
        if not self._is_up:
            return tuple(f"container {node.name}" for node in self.kind.nodes())
        return self.on_cluster.leftovers(name)

    @property
    def _is_up(self) -> bool:
        return self.kind.owned() and self.kind.kubeconfig.exists()

    def _no_testbed(self, name: str) -> UsageError:
        return UsageError(
            "no such testbed",
            [Problem("name", f"no testbed '{name}': there is no kind cluster", "testbed up")],
        )


class OnKind(ClusterRuntime):
    """The runtime of what is on a kind cluster, whose nodes pull no images: they are loaded."""

    def __init__(self, kind: KindCluster, home: Path, cluster: Cluster, **settings: Any) -> None:
        super().__init__(home, cluster, **settings)
        self._kind = kind

    def rendered(
        self, plan: PlanHead, name: str, store: str | None = None, *, fresh: bool = False
    ) -> list[Document]:
        """Return the objects that ``up`` will apply, without Secrets; ``fresh``: see ``images``."""
        kept = {} if fresh else self._objects.annotations(self._namespace_of(name))
        options, services, _ = self._agreed(plan, store, kept)
        # Its text is what a plan is too large for; what is asked of this is not in it.
        return render(plan, name, scenario="", services=services, options=options)

    def images(
        self, plan: PlanHead, name: str, store: str | None = None, *, fresh: bool = False
    ) -> tuple[str, ...]:
        """Return the images that pods of ``up`` will ask for and that no registry has.

        With the options and services that the testbed has and that are not given; ``fresh``: there
        is none yet, so no API server is asked.
        """
        kept = {} if fresh else self._objects.annotations(self._namespace_of(name))
        options, _, _ = self._agreed(plan, store, kept)
        if options.image_registry:
            return ()
        pods = pods_of(self.rendered(plan, name, store, fresh=fresh))
        return tuple(sorted({each["image"] for pod in pods for each in pod["containers"]}))

    def start_trainer(
        self,
        name: str,
        arguments: Sequence[str],
        report: Report = lambda line: None,
        *,
        command: TrainerCommand = "o2o",
    ) -> str:
        """See ``OnCluster``."""
        options = self.options_of(name)
        if not options.image_registry:
            self._kind.load_images([options.image(TRAINER_JOB)], report=report)
        return super().start_trainer(name, arguments, report, command=command)


def cluster_settings(
    workers: int, node_image: str, ports: Sequence[str], mounts: Sequence[str]
) -> KindSettings | None:
    """Return the settings of a cluster; None if nothing is given (0 and empty texts).

    ``ports`` are ``HOST:NODE``, ``mounts`` are ``HERE:THERE``.

    Raises: UsageError: with all that are not valid.
    """
    problems = []
    mapped = []
    for text in ports:
        here, _, there = text.partition(":")
        if here.isdecimal() and there.isdecimal():
            mapped.append(PortMapping(int(here), int(there)))
        else:
            problems.append(
                Problem("deployment.kind.ports", repr(text), "HOST:NODE, as in 8080:30080")
            )
    mounted = []
    for text in mounts:
        folder, _, there = text.rpartition(":")
        if folder and there:
            mounted.append(Mount(Path(folder).expanduser().absolute(), there))
        else:
            problems.append(
                Problem("deployment.kind.mounts", repr(text), "HERE:THERE, as in ./data:/data")
            )
    if problems:
        raise UsageError("invalid settings of the kind cluster", problems)
    given: dict[str, Any] = {"workers": workers} if workers else {}
    if node_image:
        given["node_image"] = node_image
    if ports or mounts:
        given |= {"ports": tuple(mapped), "mounts": tuple(mounted)}
    return KindSettings(**given) if given else None


def _users_kubeconfig() -> Path:
    """Return where kubectl writes: the first file of KUBECONFIG, else the user's."""
    first = os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    return Path(first) if first else Path.home() / ".kube" / "config"
