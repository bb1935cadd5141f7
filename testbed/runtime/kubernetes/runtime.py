"""Testbeds on a Kubernetes cluster that exists, one namespace each.

Keeps no state of its own: what is up is found again from labels and from the Secret of the testbed,
by anybody who has the rights, on any machine. ``up`` makes the cluster hold what the scenario says,
and changes no more than that; so it may be interrupted, and called again.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testbed import environment
from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    Problem,
    TemporaryError,
    TestbedError,
    UsageError,
)
from testbed.rpc import identity
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import of_operator
from testbed.rpc.operator import NODES_SERVICE, OperatorClient
from testbed.runtime.base import (
    CONTROLLER,
    Lack,
    Report,
    Stopped,
    Teardown,
    Testbed,
    node_process,
    valid_name,
)
from testbed.runtime.directory import RunDirectory
from testbed.runtime.kubernetes import waiting
from testbed.runtime.kubernetes.api import PATIENCE_S, Access, Cluster, Document, until
from testbed.runtime.kubernetes.certificates import (
    CREDENTIALS,
    OPERATOR_KEY,
    PASSWORD_KEY,
    SECRETS,
    Contents,
    completed,
)
from testbed.runtime.kubernetes.forward import PortForward
from testbed.runtime.kubernetes.kubeconfig import current_context
from testbed.runtime.kubernetes.rendering import (
    APPLICATION,
    ARTIFACTS_ANNOTATION,
    COMPONENT_LABEL,
    CONFIGURATION_ANNOTATION,
    CONTROLLER_PORT,
    DATANODE_PORT,
    EDGE_NODE,
    IN_CLUSTER_ARTIFACTS,
    IN_CLUSTER_STORE,
    INSTANCE_LABEL,
    MANAGED_LABEL,
    MYSQL_PORT,
    NAME_LABEL,
    NAMENODE_PORT,
    OPTIONS_ANNOTATION,
    OWNED_ANNOTATION,
    SCENARIO_ANNOTATION,
    STORE_ANNOTATION,
    ClusterOptions,
    Services,
    namespace_of,
    render,
    render_trainer,
)
from testbed.runtime.registry import Settings
from testbed.scenario.plan import Plan
from testbed.scenario.secrets import split_password

READY_S: Final = 300.0
READY_PER_NODE_S: Final = 3.0
"""How long ``up`` waits for all pods, and for each node on top of that."""
HEALTHY_S: Final = 60.0
"""How long the controller gets to find all nodes healthy once their pods are ready."""
GONE_S: Final = 180.0
"""How long ``down`` waits for the namespace to be gone."""
VOLUMES_GONE_S: Final = 60.0
WAVE: Final = 50
"""So many nodes are started at a time; more at once is a burden for API server and registry."""
_LOG_LINES: Final = 20_000
_TAIL: Final = 10
_AT_ONCE: Final = 8
_TELL_EVERY_S: Final = 1.0
_SELECTOR: Final = f"{NAME_LABEL}={APPLICATION}"
TRAINER_JOB: Final = "trainer"
WAS_UP: Final = "was-up"

NEEDED: Final = (
    *(Access(verb, "Namespace") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(
        Access(verb, kind)
        for kind in (
            *("ConfigMap", "Service", "ServiceAccount", "NetworkPolicy", "StatefulSet", "Job"),
        )
        for verb in ("get", "list", "create", "patch", "delete")
    ),
    Access("create", "Secret"),
    *(Access(verb, "Secret", name=name) for name in SECRETS for verb in ("get", "patch", "delete")),
    *(Access(verb, "Pod") for verb in ("get", "list", "watch", "delete")),
    Access("get", "Pod", "log"),
    Access("get", "Pod", "portforward"),
    Access("create", "Pod", "portforward"),
    Access("list", "Event"),
    *(Access(verb, "PersistentVolumeClaim") for verb in ("list", "watch", "delete")),
)
"""What the commands do on a cluster; ``manifests/rbac`` grants it."""

_NAMESPACE_GIVEN: Final = frozenset({"list", "watch", "create", "patch", "delete"})
"""Rights on namespaces that are not needed where the namespace is given."""


class ClusterRuntime:
    """The ``Runtime`` of the cluster that ``context`` of ``kubeconfig`` names.

    ``namespace`` is one that somebody made for this testbed; None: one is made, and removed with
    it. ``store`` and ``artifacts`` of ``up`` have to be reachable from pods. With ``retain`` what a
    failed ``up`` has started stays, to be looked at. ``force`` takes over fields that others set.
    ``patience_s`` is how long every call waits for an API server that is away; ``tell`` is told so.
    Logs of what is taken down are kept below ``home``.
    """

    def __init__(
        self,
        home: Path,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        namespace: str | None = None,
        options: ClusterOptions | None = None,
        artifacts: str | None = None,
        retain: bool = False,
        force: bool = False,
        ready_s: float = READY_S,
        hopeless_s: float = waiting.HOPELESS_S,
        patience_s: float = PATIENCE_S,
        tell: Report = lambda line: None,
    ) -> None:
        self.home = home.absolute()
        self.cluster = Cluster(kubeconfig, context, patience_s=patience_s, tell=tell)
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = namespace
        self._options = options
        self._artifacts = artifacts
        self._retain = retain
        self._force = force
        self._ready_s = ready_s
        self._hopeless_s = hopeless_s
        self._forwards: dict[tuple[str, str, int], PortForward] = {}
        self._forwarding = threading.Lock()

    takes = frozenset({"context", "kubeconfig", "namespace", "deployment", "retain", "force"})

    @classmethod
    def open(cls, settings: Settings) -> ClusterRuntime:
        """See ``RuntimeFactory``."""
        return cls(
            settings.home,
            kubeconfig=Path(settings.kubeconfig) if settings.kubeconfig else None,
            context=settings.context or None,
            namespace=settings.namespace or None,
            options=ClusterOptions.of(settings.deployment),
            retain=settings.retain,
            force=settings.force,
            patience_s=PATIENCE_S if settings.patience_s is None else settings.patience_s,
            tell=settings.tell,
        )

    # --- the seam ---------------------------------------------------------------------------

    on_this_machine = False

    def check(self) -> tuple[Lack, ...]:
        """See ``Runtime``. Asks the API server what the user may do."""
        try:
            self.cluster.version()
        except PrerequisiteMissing as error:
            return (Lack(error.what, error.fix),)
        except TestbedError as error:
            return (Lack(str(error), "see that `kubectl cluster-info` answers"),)
        namespace = self._namespace or namespace_of("default")
        needed = [
            each
            for each in NEEDED
            if not (self._namespace and each.kind == "Namespace" and each.verb in _NAMESPACE_GIVEN)
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            allowed = pool.map(lambda each: self.cluster.may(each, namespace), needed)
            refused = [str(each) for each, may in zip(needed, allowed, strict=True) if not may]
        if not refused:
            return ()
        where = f"in namespace {namespace}" if self._namespace else "on this cluster"
        return (
            Lack(
                f"you may not {', '.join(refused)} {where}",
                "have an administrator apply manifests/rbac/operator.yaml and bind its role to you",
            ),
        )

    def up(
        self,
        plan: Plan,
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
        if before is not None and _ending(before):
            report(f"namespace {namespace} is being removed; waiting until it is gone")
            self._wait_gone(namespace, report)
            before = None
        if before is not None:
            self._refuse_foreign(before, name)
        kept = {} if before is None else self._annotations(namespace)
        options = self._options or ClusterOptions.from_json(kept.get(OPTIONS_ANNOTATION, "{}"))
        asked = store or plan.storage_url or kept.get(STORE_ANNOTATION)
        if asked == IN_CLUSTER_STORE:
            asked = None
        artifacts = self._artifacts or plan.artifacts_url
        services = Services.of(asked, artifacts or _elsewhere(kept), options)
        made = before is None
        try:
            if made or _is_made_by_us(before):
                self._apply_namespace(plan, name, namespace)
            credentials, authority = self._credentials(name, namespace, plan, asked, new=made)
            arguments: dict[str, Any] = {
                "namespace": namespace,
                "scenario": scenario,
                "credentials": credentials,
                "authority": authority,
                "services": services,
                "options": options,
            }
            self._apply(plan, name, namespace, arguments, made, report)
            self.cluster.apply(_was_up(name, namespace), force=self._force)
            return self._found(name, namespace)
        except BaseException as error:
            # Ctrl-C too. What was up before stays; the next `up` goes on from here.
            if made and not self._retain:
                self._clear_away(namespace, error, report)
            raise

    def find(self, name: str) -> Testbed:
        """See ``Runtime``. Opens ports of this machine to the controller and the services."""
        namespace = self._namespace_of(valid_name(name))
        found = self.cluster.get("Namespace", namespace)
        if found is None or not _is_ours(found, name):
            raise self._no_testbed(name)
        if _ending(found):
            raise UsageError(
                f"testbed '{name}' is being taken down; wait for `testbed teardown --name {name}`"
            )
        return self._found(name, namespace)

    def names(self) -> tuple[str, ...]:
        """See ``Runtime``."""
        if self._namespace is not None:
            found = self.cluster.get("Namespace", self._namespace)
            listed = [] if found is None else [found]
        else:
            listed = self.cluster.find_all("Namespace", selector=_SELECTOR)
        names = (each["metadata"]["labels"].get(INSTANCE_LABEL) for each in listed)
        return tuple(sorted(name for name in names if name))

    def kill(self, name: str, node: int) -> Stopped:
        """See ``Runtime``. The cluster starts another pod in its place."""
        namespace = self._existing(name)
        pods = {each["metadata"]["name"]: each for each in self._pods(namespace)}
        pod = pods.get(f"{EDGE_NODE}-{node}")
        if pod is None or _ending(pod) or pod["status"].get("phase") != "Running":
            running = sorted(_process(each) for each in pods if each.startswith(EDGE_NODE))
            raise UsageError(
                "no such node",
                [Problem("node", f"{node_process(node)} is not running", ", ".join(running))],
            )
        self.cluster.delete(
            "Pod", pod["metadata"]["name"], namespace, grace_s=0, uid=pod["metadata"]["uid"]
        )
        return Stopped(node_process(node), None, forced=True)

    def down(self, name: str, *, report: Report = lambda line: None) -> Teardown:
        """See ``Runtime``. Its volumes go too, and with them a task log of its own."""
        began = time.monotonic()
        namespace = self._namespace_of(valid_name(name))
        found = self.cluster.get("Namespace", namespace)
        kept = self._kept(name)
        if found is None or not _is_ours(found, name):
            return Teardown(name, (), time.monotonic() - began, kept)
        pods = self._pods(namespace)
        kept = self._keep_logs(name, namespace, pods) or kept
        self.close()
        if _is_made_by_us(found):
            self.cluster.delete("Namespace", namespace, uid=found["metadata"]["uid"])
            self._wait_gone(namespace, report)
        else:
            self._empty(namespace, name, report)
        stopped = tuple(
            Stopped(_process(each["metadata"]["name"]), None, forced=False) for each in pods
        )
        return Teardown(name, stopped, time.monotonic() - began, kept)

    def logs(
        self, name: str, process: str, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """See ``Runtime``. After ``down`` those that it kept; of a restarted pod the newest."""
        namespace = self._namespace_of(valid_name(name))
        found = self.cluster.get("Namespace", namespace)
        if found is not None and _is_ours(found, name):
            pods = {each["metadata"]["name"]: each for each in self._pods(namespace)}
            known = {_process(each): each for each in pods}
            if (pod := known.get(process)) is not None:
                yield from self.cluster.log(pod, namespace, lines=lines, follow=follow)
                return
        else:
            place = RunDirectory(self.home, name)
            known = {file.stem: file.stem for file in place.logs.glob("*.log")}
            if process in known:
                written = place.log(process).read_text(encoding="utf-8", errors="replace")
                every = written.splitlines()
                yield from every if lines is None else every[len(every) - lines :]
                return
        raise UsageError(
            "no such log",
            [Problem("process", repr(process), ", ".join(sorted(known)) or "there is none")],
        )

    # --- on a cluster only ------------------------------------------------------------------

    @property
    def on_cluster(self) -> ClusterRuntime:
        """See ``Runtime``."""
        return self

    @property
    def place(self) -> Mapping[str, str]:
        """See ``Runtime``."""
        found = {"context": self._context or current_context(self._kubeconfig)}
        if self._kubeconfig is not None:
            found["kubeconfig"] = str(self._kubeconfig)
        if self._namespace:
            found["namespace"] = self._namespace
        return found

    def server(self) -> str:
        """See ``OnCluster``."""
        return f"Kubernetes {self.cluster.version()} at {self.cluster.server}"

    def scenario(self, name: str) -> str:
        """See ``OnCluster``."""
        namespace = self._existing(name)
        described = self.cluster.get("ConfigMap", "scenario", namespace)
        text = (described or {}).get("data", {}).get("scenario.yaml")
        if text is None:
            raise UsageError(f"testbed '{name}' was not made from a scenario file")
        return str(text)

    def own_log(self, name: str) -> str | None:
        """See ``Runtime``."""
        try:
            found = self.find(name)
        except UsageError:
            # None is up, or it is half-made.
            return None
        services = _services(self._annotations(self._namespace_of(name)))
        return found.store if services.own_mysql else None

    def was_up(self, name: str) -> bool:
        """See ``Runtime``."""
        namespace = self._namespace_of(valid_name(name))
        return self.cluster.get("ConfigMap", WAS_UP, namespace) is not None

    def start_trainer(
        self, name: str, arguments: Sequence[str], report: Report = lambda line: None
    ) -> str:
        """See ``OnCluster``. Its folder stays, so one that was stopped goes on where it was."""
        namespace = self._existing(name)
        kept = self._annotations(namespace)
        options = ClusterOptions.from_json(kept.get(OPTIONS_ANNOTATION, "{}"))
        services = _services(kept)
        job = self.cluster.get("Job", TRAINER_JOB, namespace)
        if job is not None:
            if (job.get("status") or {}).get("active"):
                raise UsageError(
                    f"the trainer of '{name}' is at work; see `testbed logs trainer`, or stop it "
                    f"first: testbed trainer stop --name {name}"
                )
            # What a Job does cannot be changed, only done anew.
            report("removing the trainer that has ended")
            self.stop_trainer(name)
        for document in render_trainer(
            name, arguments, namespace=namespace, services=services, options=options
        ):
            self.cluster.apply(document, force=self._force)
        return TRAINER_JOB

    def stop_trainer(self, name: str) -> bool:
        """See ``OnCluster``."""
        namespace = self._existing(name)
        if not self.cluster.delete("Job", TRAINER_JOB, namespace):
            return False
        deadline = until(GONE_S)
        selector = f"{_SELECTOR},{COMPONENT_LABEL}=trainer"
        for pods in self.cluster.watch("Pod", namespace, selector):
            if not pods:
                return True
            if time.monotonic() > deadline:
                break
        raise PermanentError(f"the trainer's pods do not end: {', '.join(sorted(pods))}")

    def leftovers(self, name: str) -> tuple[str, ...]:
        """See ``Runtime``.

        Looks at the namespace and at volumes that were claimed from it. Volumes that go with their
        claim get a minute to do so.
        """
        namespace = self._namespace_of(valid_name(name))
        found = []
        existing = self.cluster.get("Namespace", namespace)
        if existing is not None and _is_made_by_us(existing):
            found.append(f"namespace {namespace}")
        elif existing is not None:
            for kind in ("Pod", *_KINDS, "PersistentVolumeClaim"):
                selector = f"{_SELECTOR},{INSTANCE_LABEL}={name}"
                listed = self._of_testbed(kind, namespace, selector)
                found += [f"{kind.lower()} {each['metadata']['name']}" for each in listed]
        # Volumes belong to no namespace; not everybody may look at them.
        if not self.cluster.may(Access("list", "PersistentVolume"), None):
            return tuple(found)
        deadline = until(VOLUMES_GONE_S)
        while True:
            volumes = [
                each
                for each in self.cluster.find_all("PersistentVolume")
                if (each["spec"].get("claimRef") or {}).get("namespace") == namespace
            ]
            going = [
                each
                for each in volumes
                if each["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
            ]
            if not going or time.monotonic() > deadline:
                return (*found, *(f"persistentvolume {v['metadata']['name']}" for v in volumes))
            # Whoever made them removes them, some time after their claims.
            time.sleep(1.0)

    def close(self) -> None:
        """Close the ports of this machine that lead to pods."""
        with self._forwarding:
            forwards, self._forwards = self._forwards, {}
        for each in forwards.values():
            each.close()

    # --- up ---------------------------------------------------------------------------------

    def _apply_namespace(self, plan: Plan, name: str, namespace: str) -> None:
        (document,) = (d for d in render(plan, name, namespace=namespace) if _is(d, "Namespace"))
        document["metadata"]["annotations"] = {OWNED_ANNOTATION: APPLICATION}
        self.cluster.apply(document, force=self._force)

    def _credentials(
        self, name: str, namespace: str, plan: Plan, store: str | None, *, new: bool
    ) -> tuple[Contents, str]:
        """The contents of its Secrets and whose certificates they hold: what is there, completed.

        A password that was given is taken. Certificates that end soon are replaced, and pods with
        them, unless a run is under way.
        """
        kept = {} if new else {each: self._secret(namespace, each) for each in SECRETS}
        contents, authority = completed(
            kept,
            name,
            plan.topology.size,
            renew=lambda: self._current_run(name, namespace) is None,
        )
        given = None if store is None else split_password(store)[1]
        if store is not None and given is None:
            given = os.environ.get(environment.MYSQL_PASSWORD)
        own = contents[CREDENTIALS]
        if given is not None:
            own[PASSWORD_KEY] = given
        own.setdefault(PASSWORD_KEY, secrets.token_urlsafe(24))
        return contents, authority

    def _apply(
        self,
        plan: Plan,
        name: str,
        namespace: str,
        arguments: Mapping[str, Any],
        made: bool,
        report: Report,
    ) -> None:
        wanted = plan.topology.size
        standing = None if made else self.cluster.get("StatefulSet", EDGE_NODE, namespace)
        current = 0 if standing is None else int(standing["spec"].get("replicas", 1))
        replicas = wanted if wanted <= current else min(wanted, max(current, WAVE))
        deadline = until(self._ready_s + READY_PER_NODE_S * wanted)
        first = True
        while True:
            documents = render(plan, name, replicas=replicas, **arguments)
            if first and not made:
                self._refuse_in_a_run(documents, name, namespace)
            changed = self._apply_all(documents, made and first)
            if first:
                what = "made" if made else ("changed " + ", ".join(changed) if changed else "")
                report(f"namespace {namespace}: {what or 'nothing differs'}")
                if not made:
                    self._prune(documents, name, namespace, report)
            first = False
            self._wait_ready(documents, namespace, deadline, report)
            if replicas == wanted:
                break
            replicas = min(wanted, replicas + WAVE)
        self._wait_healthy(namespace, report)

    def _refuse_in_a_run(self, documents: Sequence[Document], name: str, namespace: str) -> None:
        """Another scenario is another controller, and would cut a run short.

        Raises: UsageError: there is a run, and the scenario differs.
        """
        standing = self.cluster.get("StatefulSet", CONTROLLER, namespace)
        (wanted,) = (
            d for d in documents if d["metadata"]["name"] == CONTROLLER and _is(d, "StatefulSet")
        )
        if standing is None or _configuration(standing) == _configuration(wanted):
            return
        run = self._current_run(name, namespace)
        if run is not None:
            raise UsageError(
                f"run {run} is under way on '{name}', and another scenario would end "
                "it; wait for it, or end it with Ctrl-C where it was started"
            )

    def _current_run(self, name: str, namespace: str) -> str | None:
        """The run that is under way; None if there is none, or nobody who could tell."""
        try:
            up = self._found(name, namespace)
            with OperatorClient(up.address, up.token, timeout=5.0) as operator:
                run = operator.status().run
        except TestbedError:
            # Half-made, or its controller does not run: there is nothing to cut short.
            return None
        return run.progress.run if run is not None and run.progress.state == "running" else None

    def _apply_all(self, documents: Sequence[Document], fresh: bool) -> list[str]:
        """Apply all; what that changed, as in ``statefulset/edge-node``."""
        changed = []
        for document in documents:
            if _is(document, "Namespace"):
                continue
            metadata = document["metadata"]
            before = None
            if not fresh:
                before = self.cluster.get(document["kind"], metadata["name"], metadata["namespace"])
            after = self.cluster.apply(document, force=self._force)
            if before is None or _version(before) != _version(after):
                changed.append(f"{document['kind'].lower()}/{metadata['name']}")
        return changed

    def _prune(
        self, documents: Sequence[Document], name: str, namespace: str, report: Report
    ) -> None:
        """Remove what an earlier ``up`` made and this one does not have any more."""
        wanted = {(each["kind"], each["metadata"]["name"]) for each in documents}
        selector = f"{_SELECTOR},{INSTANCE_LABEL}={name},{MANAGED_LABEL}={APPLICATION}"
        for kind in _KINDS:
            for each in self._of_testbed(kind, namespace, selector):
                key = kind, each["metadata"]["name"]
                if key not in wanted and key[1] != WAS_UP:
                    report(f"removing {kind.lower()}/{key[1]}")
                    self.cluster.delete(*key, namespace)

    def _wait_ready(
        self, documents: Sequence[Document], namespace: str, deadline: float, report: Report
    ) -> None:
        """Return when all pods of the StatefulSets are there, as they should be, and ready."""
        sets = {
            each["metadata"]["name"]: int(each["spec"].get("replicas", 1))
            for each in documents
            if _is(each, "StatefulSet")
        }
        expected = {f"{name}-{number}" for name, count in sets.items() for number in range(count)}
        since: dict[tuple[str, str], float] = {}
        told, told_at = "", 0.0
        for pods in self.cluster.watch("Pod", namespace, _SELECTOR):
            now = time.monotonic()
            present = [pods[name] for name in sorted(expected & pods.keys())]
            obstacles = [o for o in map(waiting.obstacle, present) if o is not None]
            if len(present) == len(expected) and not obstacles and self._settled(namespace, sets):
                return
            if len(present) < len(expected):
                obstacles += self._refusals(namespace)
            current = {(each.pod, each.kind) for each in obstacles}
            since = {key: since.get(key, now) for key in current}
            hopeless = [
                each
                for each in obstacles
                if each.hopeless and now - since[each.pod, each.kind] >= self._hopeless_s
            ]
            if hopeless:
                said = _unready("these pods do not become ready", hopeless)
                raise PermanentError(said + self._last_words(hopeless, namespace))
            if now > deadline:
                raise TemporaryError(
                    _unready(
                        f"{len(expected) - len(present)} of {len(expected)} pods are missing and "
                        f"{len(obstacles)} not ready in time",
                        obstacles,
                    )
                )
            done = len(present) - len([o for o in obstacles if o.pod in pods])
            first = next(iter(waiting.told(obstacles, 1)), "")
            line = f"{done} of {len(expected)} pods ready" + (f"; {first}" if first else "")
            if line != told and now - told_at >= _TELL_EVERY_S:
                report(line)
                told, told_at = line, now

    def _last_words(self, obstacles: Sequence[waiting.Obstacle], namespace: str) -> str:
        """The end of the log of a pod that keeps ending, if there is one."""
        for each in obstacles:
            if each.kind == "crash":
                with contextlib.suppress(TestbedError):
                    lines = list(self.cluster.log(each.pod, namespace, lines=_TAIL, previous=True))
                    told = "".join(f"\n  | {line}" for line in lines)
                    return f"\nthe end of the log of {each.pod}:{told}" if told else ""
        return ""

    def _settled(self, namespace: str, sets: Mapping[str, int]) -> bool:
        """Whether the cluster has seen what was applied and no pod is of an earlier version."""
        for each in self.cluster.find_all("StatefulSet", namespace, _SELECTOR):
            name, status = each["metadata"]["name"], each.get("status", {})
            if name in sets and (
                status.get("observedGeneration", 0) < each["metadata"]["generation"]
                or status.get("readyReplicas", 0) != sets[name]
                or status.get("updatedReplicas", status.get("replicas", 0)) != sets[name]
                or status.get("currentRevision") != status.get("updateRevision")
            ):
                return False
        return True

    def _refusals(self, namespace: str) -> list[waiting.Obstacle]:
        sets = {
            each["metadata"]["name"]: each["metadata"]["uid"]
            for each in self.cluster.find_all("StatefulSet", namespace, _SELECTOR)
        }
        return waiting.refusals(self.cluster.find_all("Event", namespace), sets)

    def _wait_healthy(self, namespace: str, report: Report) -> None:
        """Return when the controller finds all nodes healthy."""
        report("all pods ready; waiting for the controller to find all nodes healthy")
        address = self._forward(namespace, f"{CONTROLLER}-0", CONTROLLER_PORT).address
        token = self._secret(namespace, CREDENTIALS).get(OPERATOR_KEY, "")
        deadline = until(HEALTHY_S)
        last = "it does not answer"
        while (left := deadline - time.monotonic()) > 0:
            with connect_blocking(address, of_operator(token), identity.CONTROLLER) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest(service=NODES_SERVICE)
                try:
                    for reply in stub.Watch(request, wait_for_ready=True, timeout=left):
                        if reply.status == health_pb2.HealthCheckResponse.SERVING:
                            return
                        last = "not all nodes are healthy"
                except grpc.RpcError as error:
                    # The connection broke; it is tried again while there is time.
                    last = error.details() or last
                    time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        raise TemporaryError(f"the controller: {last}" + self._unhealthy(namespace, address))

    def _unhealthy(self, namespace: str, address: str) -> str:
        token = self._secret(namespace, CREDENTIALS).get(OPERATOR_KEY, "")
        try:
            with OperatorClient(address, token, timeout=3.0) as client:
                nodes = client.status().nodes
        except TestbedError as error:
            return f"; {error}"
        ill = [node for node in nodes if node.condition != "healthy"]
        return "".join(f"\n  - node {n.node} is {n.condition}: {n.reason}" for n in ill[:10])

    def _clear_away(self, namespace: str, error: BaseException, report: Report) -> None:
        report(f"removing namespace {namespace} again")
        self.close()
        try:
            self.cluster.delete("Namespace", namespace)
            self._wait_gone(namespace, report)
        except TestbedError as left:
            error.add_note(
                f"{left}; the next `testbed up` or `testbed teardown` takes it from here"
            )

    # --- finding ----------------------------------------------------------------------------

    def _found(self, name: str, namespace: str) -> Testbed:
        controller = self.cluster.get("StatefulSet", CONTROLLER, namespace)
        nodes = self.cluster.get("StatefulSet", EDGE_NODE, namespace)
        described = self.cluster.get("ConfigMap", "scenario", namespace)
        credentials = self._secret(namespace, CREDENTIALS)
        token = credentials.get(OPERATOR_KEY, "")
        if controller is None or nodes is None or described is None or not token:
            raise UsageError(
                f"testbed '{name}' was left half-made; go on with `testbed up`, or clear it away "
                f"with `testbed teardown --name {name}`"
            )
        annotations = described["metadata"].get("annotations") or {}
        password = credentials.get(PASSWORD_KEY, "")
        services = _services(annotations)
        return Testbed(
            name=name,
            directory=self.home / name,
            address=self._forward(namespace, f"{CONTROLLER}-0", CONTROLLER_PORT).address,
            token=token,
            store=self._store(namespace, services, password),
            scenario=annotations.get(SCENARIO_ANNOTATION, ""),
            nodes=int(nodes["spec"].get("replicas", 1)),
            artifacts=self._artifact_store(namespace, services),
        )

    def _store(self, namespace: str, services: Services, password: str) -> str:
        """The task log's URL from here; it holds the password, and is not for showing."""
        scheme, _, rest = services.store.partition("://")
        user, _, place = rest.rpartition("@")
        if services.own_mysql:
            _, _, database = place.partition("/")
            address = self._forward(namespace, "mysql-0", MYSQL_PORT).address
            place = f"{address}/{database}"
        login = f"{user}:{quote(password, safe='')}@" if user else ""
        return f"{scheme}://{login}{place}"

    def _artifact_store(self, namespace: str, services: Services) -> str:
        """The artifact store's URL from here; empty if it cannot be reached from here."""
        if not services.own_hdfs:
            return services.artifacts if "://" in services.artifacts else ""
        scheme, _, rest = services.artifacts.partition("://")
        user, _, place = rest.rpartition("@")
        _, _, path = place.partition("/")
        name_node = self._forward(namespace, "namenode-0", NAMENODE_PORT).address
        data_node = self._forward(namespace, "datanode-0", DATANODE_PORT).address
        via = f"datanode-0.datanode:{DATANODE_PORT}={data_node}"
        return f"{scheme}://{user}@{name_node}/{path}?via={via}"

    def _forward(self, namespace: str, pod: str, port: int) -> PortForward:
        key = namespace, pod, port
        with self._forwarding:
            if key not in self._forwards:
                self._forwards[key] = PortForward(self.cluster, namespace, pod, port)
            return self._forwards[key]

    def _namespace_of(self, name: str) -> str:
        return self._namespace or namespace_of(name)

    def _existing(self, name: str) -> str:
        namespace = self._namespace_of(valid_name(name))
        found = self.cluster.get("Namespace", namespace)
        if found is None or not _is_ours(found, name):
            raise self._no_testbed(name)
        return namespace

    def _of_testbed(self, kind: str, namespace: str, selector: str) -> list[Document]:
        """Objects of a kind. Secrets are not listed: who operates a testbed may read these only."""
        if kind != "Secret":
            return self.cluster.find_all(kind, namespace, selector)
        found = [self.cluster.get("Secret", each, namespace) for each in SECRETS]
        return [each for each in found if each is not None and _labels(each).get(NAME_LABEL)]

    def _pods(self, namespace: str) -> list[Document]:
        return self.cluster.find_all("Pod", namespace, _SELECTOR)

    def _secret(self, namespace: str, name: str) -> dict[str, str]:
        """Return what a Secret of the testbed holds; empty if there is none.

        Without the end of a line: who makes one by hand makes files with it.
        """
        secret = self.cluster.get("Secret", name, namespace)
        data = (secret or {}).get("data") or {}
        found = {}
        for key, value in data.items():
            with contextlib.suppress(ValueError):
                found[key] = base64.b64decode(value).decode().strip("\r\n")
        return found

    def _annotations(self, namespace: str) -> Mapping[str, str]:
        """How the testbed in this namespace was brought up; empty if none has been."""
        described = self.cluster.get("ConfigMap", "scenario", namespace)
        return ((described or {}).get("metadata") or {}).get("annotations") or {}

    def _refuse_foreign(self, namespace: Document, name: str) -> None:
        if _is_ours(namespace, name):
            return
        found = namespace["metadata"]["name"]
        label = f"{NAME_LABEL}={APPLICATION} {INSTANCE_LABEL}={name}"
        raise UsageError(
            "the namespace is not this testbed's",
            [
                Problem(
                    "name",
                    f"namespace {found} exists on {self.cluster.server} and is somebody else's",
                    "choose another --name; if it was made for this testbed, label it: "
                    f"kubectl label namespace {found} {label}",
                )
            ],
        )

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

    # --- down -------------------------------------------------------------------------------

    def _wait_gone(self, namespace: str, report: Report) -> None:
        deadline = until(GONE_S)
        selector = f"kubernetes.io/metadata.name={namespace}"
        began, told = time.monotonic(), time.monotonic()
        for found in self.cluster.watch("Namespace", None, selector):
            now = time.monotonic()
            if namespace not in found:
                return
            if now > deadline:
                raise PermanentError(
                    f"namespace {namespace} is not gone after {now - began:.0f} s"
                    + _remaining(found[namespace])
                )
            if now - told >= 5.0:
                report(f"waiting for namespace {namespace} to go" + _remaining(found[namespace]))
                told = now

    def _empty(self, namespace: str, name: str, report: Report) -> None:
        """Remove what is the testbed's from a namespace that is not, and wait until it is gone."""
        selector = f"{_SELECTOR},{INSTANCE_LABEL}={name}"
        for kind in (*_KINDS, "PersistentVolumeClaim"):
            for each in self._of_testbed(kind, namespace, selector):
                self.cluster.delete(kind, each["metadata"]["name"], namespace)
        deadline = until(GONE_S)
        for pods in self.cluster.watch("Pod", namespace, selector):
            if not pods:
                break
            if time.monotonic() > deadline:
                raise PermanentError(f"these pods do not end: {', '.join(sorted(pods))}")
        for claims in self.cluster.watch("PersistentVolumeClaim", namespace, selector):
            if not claims:
                return
            if time.monotonic() > deadline:
                raise PermanentError(f"these volumes do not go: {', '.join(sorted(claims))}")

    def _keep_logs(self, name: str, namespace: str, pods: Sequence[Document]) -> Path | None:
        """Write the logs of all pods below home; as far as they can be had."""
        place = RunDirectory(self.home, name)

        def keep(pod: Document) -> None:
            pod_name = pod["metadata"]["name"]
            with contextlib.suppress(TestbedError):
                text = "\n".join(self.cluster.log(pod_name, namespace, lines=_LOG_LINES))
                place.log(_process(pod_name)).write_text(text + "\n", encoding="utf-8")

        try:
            place.logs.mkdir(parents=True, exist_ok=True)
            for stale in place.logs.glob("*.log"):
                stale.unlink()
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(keep, pods))
        except OSError:
            # A full disk or a home that is not ours keeps no testbed from being taken down.
            return None
        return self._kept(name)

    def _kept(self, name: str) -> Path | None:
        path = RunDirectory(self.home, name).path
        return path if path.is_dir() else None


_KINDS: Final = (
    "StatefulSet",
    "Job",
    "Service",
    "ConfigMap",
    "Secret",
    "NetworkPolicy",
    "ServiceAccount",
)
"""Kinds a testbed is made of, in the order in which they are removed."""


def _was_up(name: str, namespace: str) -> Document:
    labels = {NAME_LABEL: APPLICATION, INSTANCE_LABEL: name, MANAGED_LABEL: APPLICATION}
    metadata = {"name": WAS_UP, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def _is(document: Document, kind: str) -> bool:
    return bool(document["kind"] == kind)


def _configuration(controller: Document) -> Any:
    annotations = controller["spec"]["template"]["metadata"].get("annotations") or {}
    return annotations.get(CONFIGURATION_ANNOTATION)


def _labels(document: Document) -> Mapping[str, str]:
    return document["metadata"].get("labels") or {}


def _is_ours(namespace: Document, name: str) -> bool:
    labels = _labels(namespace)
    return labels.get(NAME_LABEL) == APPLICATION and labels.get(INSTANCE_LABEL) == name


def _is_made_by_us(namespace: Document | None) -> bool:
    annotations = ((namespace or {}).get("metadata") or {}).get("annotations") or {}
    return annotations.get(OWNED_ANNOTATION) == APPLICATION


def _services(annotations: Mapping[str, str]) -> Services:
    return Services(
        annotations.get(STORE_ANNOTATION, IN_CLUSTER_STORE),
        annotations.get(ARTIFACTS_ANNOTATION, IN_CLUSTER_ARTIFACTS),
    )


def _elsewhere(annotations: Mapping[str, str]) -> str | None:
    """The artifact store that a testbed uses and that is not on its cluster."""
    url = annotations.get(ARTIFACTS_ANNOTATION, "")
    return url if "://" in url and url != IN_CLUSTER_ARTIFACTS else None


def _ending(document: Document) -> bool:
    return "deletionTimestamp" in document["metadata"]


def _version(document: Document) -> Any:
    return document["metadata"].get("resourceVersion")


def _process(pod: str) -> str:
    """What a pod's process is called everywhere: ``node-3``, ``controller``, ``mysql``."""
    name, _, number = pod.rpartition("-")
    return node_process(int(number)) if name == EDGE_NODE else name


def _unready(what: str, obstacles: Sequence[waiting.Obstacle]) -> str:
    return what + "".join(f"\n  - {line}" for line in waiting.told(obstacles))


def _remaining(namespace: Document) -> str:
    """Why a namespace is not gone yet, from its conditions."""
    conditions = (namespace.get("status") or {}).get("conditions") or ()
    reasons = [
        each.get("message", "")
        for each in conditions
        if each.get("status") == "True" and each["type"].startswith("Namespace")
    ]
    return f": {'; '.join(reasons)}" if reasons else ""
