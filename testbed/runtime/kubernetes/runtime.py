"""Testbeds on a Kubernetes cluster that exists, one namespace each.

Keeps no state of its own: what is up is found again from labels and from the Secret of the testbed,
by anybody who has the rights, on any machine. ``up`` makes the cluster hold what the scenario says,
and changes no more than that; so it may be interrupted, and called again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from testbed.errors import PermanentError, Problem, TemporaryError, TestbedError, UsageError
from testbed.runtime.base import (
    RESULTS_FOLDER,
    Lack,
    Report,
    Stopped,
    Teardown,
    Testbed,
    TrainerCommand,
    node_process,
    valid_name,
)
from testbed.runtime.directory import RunDirectory
from testbed.runtime.kubernetes import rights, taking_down, trainer, waiting
from testbed.runtime.kubernetes.api import PATIENCE_S, Cluster, Document
from testbed.runtime.kubernetes.bringing_up import (
    DEFAULT_PATIENCE,
    BringingUp,
    Patience,
    refuse_foreign,
)
from testbed.runtime.kubernetes.failures import RIGHTS, NoRight
from testbed.runtime.kubernetes.kubeconfig import current_context
from testbed.runtime.kubernetes.objects import (
    SELECTOR,
    WAS_UP,
    Objects,
    elsewhere,
    is_at_work,
    is_ending,
    is_made_by_us,
    is_ours,
    labels_of,
    process_of,
    processes,
    services_of,
)
from testbed.runtime.kubernetes.reaching import Connections
from testbed.runtime.kubernetes.rendering import (
    EDGE_NODE,
    HTTP_PORT,
    IN_CLUSTER_STORE,
    INSTANCE_LABEL,
    OPTIONS_ANNOTATION,
    STORE_ANNOTATION,
    TRAINER_JOB,
    ClusterOptions,
    Services,
    namespace_of,
)
from testbed.runtime.registry import Settings
from testbed.scenario.plan import PlanHead


class ClusterRuntime:
    """The ``Runtime`` of a cluster; by default the one that kubectl uses.

    ``namespace`` was created for this testbed; None: one is created, and removed with the testbed.
    ``store`` and ``artifacts`` of ``up`` have to be reachable from pods. With ``retain`` what a
    failed ``up`` has started is kept, for inspection. ``force`` overwrites fields that others have
    set. Logs of what is taken down are kept below ``home``. ``image_ids`` are ids of images by
    name, where they are known: pods whose image has another id than theirs are replaced.
    """

    def __init__(
        self,
        home: Path,
        cluster: Cluster | None = None,
        *,
        namespace: str | None = None,
        options: ClusterOptions | None = None,
        artifacts: str | None = None,
        retain: bool = False,
        force: bool = False,
        patience: Patience = DEFAULT_PATIENCE,
        image_ids: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.home = home.absolute()
        self.cluster = Cluster() if cluster is None else cluster
        self._namespace = namespace
        self._options = options
        self._artifacts = artifacts
        self._retain = retain
        self._force = force
        self._patience = patience
        self._image_ids = image_ids
        self._objects = Objects(self.cluster)
        self._connections = Connections(self._objects, self.home)

    takes = frozenset({"context", "kubeconfig", "namespace", "deployment", "retain", "force"})

    @classmethod
    def open(cls, settings: Settings) -> ClusterRuntime:
        """See ``RuntimeFactory``."""
        return cls(
            settings.home,
            Cluster(
                Path(settings.kubeconfig) if settings.kubeconfig else None,
                settings.context or None,
                patience_s=PATIENCE_S if settings.patience_s is None else settings.patience_s,
                tell=settings.tell,
            ),
            namespace=settings.namespace or None,
            options=ClusterOptions.of(settings.deployment),
            retain=settings.retain,
            force=settings.force,
        )

    # --- the seam ---------------------------------------------------------------------------

    on_this_machine = False

    def check(self) -> tuple[Lack, ...]:
        """See ``Runtime``. Asks the API server what the user may do."""
        return rights.lacks(self.cluster, self._namespace)

    def up(
        self,
        plan: PlanHead,
        name: str,
        *,
        store: str | None = None,
        scenario: str | None = None,
        report: Report = lambda line: None,
    ) -> Testbed:
        """See ``Runtime``; but one that is up is no clash: what differs is changed, and no more."""
        namespace = self._namespace_of(valid_name(name))
        report(f"{self.cluster.described}, namespace {namespace}")
        before = self.cluster.get("Namespace", namespace)
        if before is not None and is_ending(before):
            report(f"namespace {namespace} is being removed; waiting until it is gone")
            taking_down.wait_gone(self._objects, namespace, report)
            before = None
        if before is not None:
            refuse_foreign(self.cluster, before, name)
        kept = {} if before is None else self._objects.annotations(namespace)
        options, services, asked = self._agreed(plan, store, kept)
        made = before is None
        bringing_up = BringingUp(
            self._connections,
            plan,
            name,
            namespace,
            report,
            made=made,
            force=self._force,
            patience=self._patience,
        )
        try:
            bringing_up.run(
                services,
                options,
                store=asked,
                scenario=scenario,
                image_ids=self._image_ids,
                own_namespace=made or is_made_by_us(before),
            )
            return self._connections.testbed(name, namespace)
        except BaseException as error:
            # Ctrl-C too. What was up before stays; the next `up` goes on from here.
            if made and isinstance(error, PermanentError | TemporaryError):
                self._keep_logs(name, namespace, error)
            if made and not self._retain:
                bringing_up.clear_away(error)
            raise

    def _keep_logs(self, name: str, namespace: str, error: TestbedError) -> None:
        """Keep the logs of the pods after an error of ``up``, which gets a note of where."""
        pods: list[Document] = []
        place = RunDirectory(self.home, name)
        with suppress(TestbedError):
            pods = self._objects.pods(namespace)
        if not pods:
            return
        if taking_down.keep_logs(self._objects, place, namespace, pods):
            error.add_note(f"the logs of its pods are kept in {place.logs}")
        if self._retain:
            error.add_note(
                f"what was started is kept for a look at it, in namespace {namespace}: "
                f"`testbed teardown --name {name}` removes it"
            )
        else:
            error.add_note("to keep what was started for a look at it: --keep-on-failure")

    def find(self, name: str) -> Testbed:
        """See ``Runtime``. Opens ports of this machine to the controller and the services."""
        found = self._find_namespace(name)
        if found is None:
            raise self._no_testbed(name)
        namespace = found["metadata"]["name"]
        if is_ending(found):
            raise UsageError(
                f"testbed '{name}' is being taken down; wait for `testbed teardown --name {name}`"
            )
        return self._connections.testbed(name, namespace)

    def names(self) -> tuple[str, ...]:
        """See ``Runtime``."""
        if self._namespace is not None:
            found = self.cluster.get("Namespace", self._namespace)
            listed = [] if found is None else [found]
        else:
            listed = self.cluster.find_all("Namespace", selector=SELECTOR)
        names = set()
        for each in listed:
            name, namespace = labels_of(each).get(INSTANCE_LABEL), each["metadata"]["name"]
            # One that was made for a testbed may have none yet.
            if name and (
                is_made_by_us(each) or self.cluster.find_all("StatefulSet", namespace, SELECTOR)
            ):
                names.add(name)
        return tuple(sorted(names))

    def kill(self, name: str, node: int) -> Stopped:
        """See ``Runtime``. The cluster starts another pod in its place."""
        namespace = self._existing(name)
        pods = {each["metadata"]["name"]: each for each in self._objects.pods(namespace)}
        pod = pods.get(f"{EDGE_NODE}-{node}")
        if pod is None or is_ending(pod) or pod["status"].get("phase") != "Running":
            running = sorted(process_of(each) for each in pods if each.startswith(EDGE_NODE))
            raise UsageError(
                "no such node",
                [Problem("node", f"{node_process(node)} is not running", ", ".join(running))],
            )
        self.cluster.delete(
            "Pod", pod["metadata"]["name"], namespace, grace_s=0, uid=pod["metadata"]["uid"]
        )
        return Stopped(node_process(node), None, forced=True)

    def start_stopped(self, *, report: Report = lambda line: None) -> bool:
        """See ``Runtime``. A cluster that exists is started by others."""
        return False

    def down(self, name: str, *, report: Report = lambda line: None) -> Teardown:
        """See ``Runtime``. Its volumes go too, and with them a task log of its own."""
        began = time.monotonic()
        found = self._find_namespace(name)
        kept = self._kept(name)
        if found is None:
            return Teardown(name, (), time.monotonic() - began, kept)
        namespace = found["metadata"]["name"]
        pods = self._objects.pods(namespace)
        if taking_down.keep_logs(self._objects, RunDirectory(self.home, name), namespace, pods):
            kept = self._kept(name)
        self._keep_results(name, namespace, report)
        self.close()
        if is_made_by_us(found):
            self.cluster.delete("Namespace", namespace, uid=found["metadata"]["uid"])
            taking_down.wait_gone(self._objects, namespace, report)
        else:
            taking_down.empty(self._objects, namespace, name, report)
        stopped = tuple(
            Stopped(process_of(each["metadata"]["name"]), None, forced=False) for each in pods
        )
        return Teardown(name, stopped, time.monotonic() - began, kept)

    def idle(self) -> tuple[str, ...]:
        """See ``Runtime``. Nothing outlives its testbed."""
        return ()

    def remove_idle(self, *, report: Report = lambda line: None) -> tuple[str, ...]:
        """See ``Runtime``."""
        return ()

    def logs(
        self, name: str, process: str, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """See ``Runtime``. After ``down`` those that it kept; of a restarted pod the newest."""
        found = self._find_namespace(name)
        if found is not None:
            namespace = found["metadata"]["name"]
            pods = processes(self._objects.pods(namespace))
            if (pod := pods.get(process)) is not None:
                _refuse_unstarted(process, pod)
                yield from self.cluster.log(
                    pod["metadata"]["name"], namespace, lines=lines, follow=follow
                )
                return
            known = sorted(pods)
        else:
            place = RunDirectory(self.home, name)
            known = sorted(file.stem for file in place.logs.glob("*.log"))
            if process in known:
                written = place.log(process).read_text(encoding="utf-8", errors="replace")
                every = written.splitlines()
                yield from every if lines is None else every[len(every) - lines :]
                return
        raise UsageError(
            "no such log",
            [Problem("process", repr(process), ", ".join(known) or "there is none")],
        )

    def own_log(self, name: str) -> str | None:
        """See ``Runtime``."""
        try:
            found = self.find(name)
        except UsageError:
            # None is up, or it is incomplete.
            return None
        services = services_of(self._objects.annotations(self._existing(name)))
        return found.store if services.own_mysql else None

    def was_up(self, name: str) -> bool:
        """See ``Runtime``."""
        found = self._find_namespace(name)
        return found is not None and (
            self.cluster.get("ConfigMap", WAS_UP, found["metadata"]["name"]) is not None
        )

    def leftovers(self, name: str) -> tuple[str, ...]:
        """See ``Runtime``."""
        found = self._find_namespace(name)
        namespace = self._namespace_of(name) if found is None else found["metadata"]["name"]
        return taking_down.leftovers(self._objects, name, namespace)

    def close(self) -> None:
        """Close the ports of this machine that lead to pods."""
        self._connections.close()

    @property
    def place(self) -> Mapping[str, str]:
        """See ``Runtime``."""
        found = {"context": self.cluster.context or current_context(self.cluster.kubeconfig)}
        if self.cluster.kubeconfig is not None:
            found["kubeconfig"] = str(self.cluster.kubeconfig)
        if self._namespace:
            found["namespace"] = self._namespace
        return found

    # --- on a cluster only ------------------------------------------------------------------

    @property
    def on_cluster(self) -> ClusterRuntime:
        """See ``Runtime``."""
        return self

    def server(self) -> str:
        """See ``OnCluster``."""
        return f"Kubernetes {self.cluster.version()} at {self.cluster.server}"

    def where(self, name: str) -> str:
        """See ``OnCluster``."""
        return f"{self.cluster.described}, namespace {self._existing(name)}"

    def way_to_front(self, name: str, node: int) -> str:
        """See ``OnCluster``."""
        return (
            f"{self.cluster.kubectl} --namespace {self._existing(name)} "
            f"port-forward pod/{EDGE_NODE}-{node} 8000:{HTTP_PORT}"
        )

    def scenario(self, name: str) -> str:
        """See ``OnCluster``."""
        namespace = self._existing(name)
        described = self.cluster.get("ConfigMap", "scenario", namespace)
        text = (described or {}).get("data", {}).get("scenario.yaml")
        if text is None:
            raise UsageError(f"testbed '{name}' was not made from a scenario file")
        return str(text)

    def start_trainer(
        self,
        name: str,
        arguments: Sequence[str],
        report: Report = lambda line: None,
        *,
        command: TrainerCommand = "o2o",
    ) -> str:
        """See ``OnCluster``."""
        namespace = self._existing(name)
        return trainer.start(
            self._objects,
            name,
            namespace,
            arguments,
            report,
            command=command,
            force=self._force,
            hopeless_s=self._patience.hopeless_s,
        )

    def stop_trainer(self, name: str) -> bool:
        """See ``OnCluster``."""
        return trainer.stop(self._objects, self._existing(name))

    def fetch_results(
        self, name: str, folder: Path, report: Report = lambda line: None
    ) -> Sequence[Path]:
        """See ``OnCluster``."""
        return trainer.fetch(self._objects, name, self._existing(name), folder, report)

    def _keep_results(self, name: str, namespace: str, report: Report) -> None:
        """Copy the results of a trainer that has ended into the home; its volume is about to go."""
        job = self.cluster.get("Job", TRAINER_JOB, namespace)
        if job is None or is_at_work(job):
            # None has results, or it is about to be cut short; what it has said is kept.
            return
        folder = RunDirectory(self.home, name).path / RESULTS_FOLDER
        try:
            trainer.fetch(self._objects, name, namespace, folder, report)
        except (TestbedError, OSError) as error:
            report(f"the trainer's report is not kept ({error}); its log, with the result, is")
        else:
            report(f"the trainer's results are in {folder}")

    def options_of(self, name: str) -> ClusterOptions:
        """Return the options that a testbed was brought up with; the default if there is none."""
        kept = self._objects.annotations(self._namespace_of(valid_name(name)))
        return ClusterOptions.from_json(kept.get(OPTIONS_ANNOTATION, "{}"))

    # --- inside -----------------------------------------------------------------------------

    def _agreed(
        self, plan: PlanHead, store: str | None, kept: Mapping[str, str]
    ) -> tuple[ClusterOptions, Services, str | None]:
        """Return options, services and the URL of a task log asked for.

        What is not given is as it was (``kept``, the annotations of the testbed).
        """
        options = self._options or ClusterOptions.from_json(kept.get(OPTIONS_ANNOTATION, "{}"))
        asked = store or plan.storage_url or kept.get(STORE_ANNOTATION)
        if asked == IN_CLUSTER_STORE:
            asked = None
        artifacts = self._artifacts or plan.artifacts_url
        return options, Services.of(asked, artifacts or elsewhere(kept), options), asked

    def _namespace_of(self, name: str) -> str:
        return self._namespace or namespace_of(name)

    def _existing(self, name: str) -> str:
        found = self._find_namespace(name)
        if found is None:
            raise self._no_testbed(name)
        return str(found["metadata"]["name"])

    def _find_namespace(self, name: str) -> Document | None:
        """Return the namespace of a testbed: the one named, its own, or one that was made for it.

        None if there is none, or if the user may not look for one that was made for it.

        Raises: NoRight: the user may look into no namespace but one that was made for a testbed.
        """
        try:
            found = self.cluster.get("Namespace", self._namespace_of(valid_name(name)))
        except NoRight as error:
            if self._namespace is not None:
                raise
            raise NoRight(
                error.seen,
                fix=f"if a namespace was made for testbed '{name}', name it: --namespace NAME; "
                f"else {RIGHTS}",
            ) from None
        if found is not None and is_ours(found, name):
            return found
        if self._namespace is not None:
            return None
        try:
            listed = self.cluster.find_all(
                "Namespace", selector=f"{SELECTOR},{INSTANCE_LABEL}={name}"
            )
        except NoRight:
            return None
        return listed[0] if len(listed) == 1 else None

    def _no_testbed(self, name: str) -> UsageError:
        try:
            known = ", ".join(self.names()) or "none is up"
        except PermanentError:
            # Without the right to list namespaces.
            known = "name its namespace with --namespace"
        return UsageError(
            "no such testbed",
            [Problem("name", f"no testbed '{name}' on {self.cluster.server}", known)],
        )

    def _kept(self, name: str) -> Path | None:
        path = RunDirectory(self.home, name).path
        return path if path.is_dir() else None


def _refuse_unstarted(process: str, pod: Document) -> None:
    """Raises: TemporaryError: no container of the pod has run, so it has no log; says why."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if container.get("lastState") or "waiting" not in (container.get("state") or {}):
            return
    found = waiting.obstacle(pod)
    if found is not None:
        raise TemporaryError(f"{process} has not started, so it has no log: {found}", fix=found.fix)
