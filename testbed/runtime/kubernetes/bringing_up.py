"""Bringing a testbed up on a cluster: apply what differs, and wait until all is healthy."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testbed import environment
from testbed.errors import PermanentError, Problem, TemporaryError, TestbedError, UsageError
from testbed.rpc import identity
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import of_operator
from testbed.rpc.operator import NODES_SERVICE, OperatorClient
from testbed.runtime.base import Report
from testbed.runtime.kubernetes import waiting
from testbed.runtime.kubernetes.api import Cluster, Document, until
from testbed.runtime.kubernetes.certificates import (
    CREDENTIALS,
    PASSWORD_KEY,
    SECRETS,
    Contents,
    completed,
)
from testbed.runtime.kubernetes.objects import (
    KINDS,
    SELECTOR,
    WAS_UP,
    configuration,
    images,
    is_at_work,
    is_ending,
    is_kind,
    is_ours,
    labels_of,
    version_of,
    was_up_mark,
)
from testbed.runtime.kubernetes.reaching import Connections
from testbed.runtime.kubernetes.rendering import (
    APPLICATION,
    COMPONENT_LABEL,
    EDGE_NODE,
    INSTANCE_LABEL,
    MANAGED_LABEL,
    NAME_LABEL,
    OWNED_ANNOTATION,
    TRAINER_JOB,
    ClusterOptions,
    Services,
    note_images,
    render,
)
from testbed.runtime.kubernetes.taking_down import wait_gone
from testbed.scenario.plan import PlanHead
from testbed.scenario.secrets import split_password

READY_S: Final = 300.0
READY_PER_NODE_S: Final = 3.0
"""Time that ``up`` waits for all pods, and additional time for each node."""
HEALTHY_S: Final = 60.0
"""Time that the controller gets to find all nodes healthy once their pods are ready."""
WAVE: Final = 50
"""Number of nodes started at a time, to limit the load on API server and registry."""
_TAIL: Final = 10
_TELL_EVERY_S: Final = 1.0
_REMIND_EVERY_S: Final = 20.0
"""Time after which what is waited for is said again, with the last event about it."""
_LOOK_EVERY_S: Final = 0.5
_EVENTS: Final = 3
_REVISION_LABEL: Final = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of the waiting of ``up``: for all pods, and for one that cannot become ready."""

    ready_s: float = READY_S
    hopeless_s: float = waiting.HOPELESS_S


DEFAULT_PATIENCE: Final = Patience()


class BringingUp:
    """One ``up`` of the testbed ``name`` in a namespace.

    ``made``: there is none yet. ``force`` overwrites fields that others have changed.
    """

    def __init__(
        self,
        connections: Connections,
        plan: PlanHead,
        name: str,
        namespace: str,
        report: Report,
        *,
        made: bool,
        force: bool,
        patience: Patience,
    ) -> None:
        self.connections = connections
        self.objects = connections.objects
        self.cluster = connections.cluster
        self.plan = plan
        self.name = name
        self.namespace = namespace
        self.report = report
        self.made = made
        self._force = force
        self._patience = patience

    def run(
        self,
        services: Services,
        options: ClusterOptions,
        *,
        store: str | None,
        scenario: str | None,
        image_ids: Mapping[str, str],
        own_namespace: bool,
    ) -> None:
        """Apply everything, and return when all nodes are healthy.

        ``store`` is the URL of a task log that was asked for; ``scenario`` the text of the scenario
        file. ``image_ids`` are as for ``note_images``.
        ``own_namespace``: the namespace is the testbed's own.
        """
        if own_namespace:
            self._apply_namespace()
        credentials, authority = self._credentials(store)
        arguments: dict[str, Any] = {
            "namespace": self.namespace,
            "scenario": scenario,
            "credentials": credentials,
            "authority": authority,
            "services": services,
            "options": options,
        }
        self._apply(arguments, image_ids)
        self.cluster.apply(was_up_mark(self.name, self.namespace), force=self._force)

    def clear_away(self, error: BaseException) -> None:
        """Remove the namespace again, after ``error``, which gets a note of what keeps it."""
        self.report(f"removing namespace {self.namespace} again")
        self.connections.close()
        try:
            self.cluster.delete("Namespace", self.namespace)
            wait_gone(self.objects, self.namespace, self.report)
        except TestbedError as left:
            error.add_note(
                f"{left}; the next `testbed up` or `testbed teardown` takes it from here"
            )

    def _apply_namespace(self) -> None:
        (document,) = (
            d
            for d in render(self.plan, self.name, namespace=self.namespace)
            if is_kind(d, "Namespace")
        )
        document["metadata"]["annotations"] = {OWNED_ANNOTATION: APPLICATION}
        self.cluster.apply(document, force=self._force)

    def _credentials(self, store: str | None) -> tuple[Contents, str]:
        """Return the contents of its Secrets, and the authority of the certificates in them.

        What is there already is completed.

        A password that was given is taken. Certificates that end soon are replaced, and pods with
        them, unless a run or the trainer is under way.
        """
        kept = (
            {}
            if self.made
            else {each: self.objects.secret(self.namespace, each) for each in SECRETS}
        )
        contents, authority = completed(
            kept,
            self.name,
            self.plan.size,
            renew=self._is_idle,
        )
        given = None if store is None else split_password(store)[1]
        if store is not None and given is None:
            given = os.environ.get(environment.MYSQL_PASSWORD)
        own = contents[CREDENTIALS]
        if given is not None:
            own[PASSWORD_KEY] = given
        own.setdefault(PASSWORD_KEY, secrets.token_urlsafe(24))
        return contents, authority

    def _is_idle(self) -> bool:
        return self.connections.current_run(self.name, self.namespace) is None and not is_at_work(
            self.cluster.get("Job", TRAINER_JOB, self.namespace)
        )

    def _apply(self, arguments: Mapping[str, Any], image_ids: Mapping[str, str]) -> None:
        wanted = self.plan.size
        standing = None if self.made else self.cluster.get("StatefulSet", EDGE_NODE, self.namespace)
        current = 0 if standing is None else int(standing["spec"].get("replicas", 1))
        replicas = wanted if wanted <= current else min(wanted, max(current, WAVE))
        deadline = until(self._patience.ready_s + READY_PER_NODE_S * wanted)
        first = True
        while True:
            documents = render(self.plan, self.name, replicas=replicas, **arguments)
            note_images(documents, image_ids)
            if first and not self.made:
                self._refuse_in_a_run(documents)
            applied = self._apply_all(documents, self.made and first)
            if first:
                lists = [f"{verb} {', '.join(of)}" for verb, of in applied.items() if of]
                what = "made" if self.made else "; ".join(lists) or "no differences"
                self.report(f"namespace {self.namespace}: {what}")
                if not self.made:
                    self._prune(documents)
            first = False
            self._wait_ready(documents, deadline)
            if replicas == wanted:
                break
            replicas = min(wanted, replicas + WAVE)
        self._wait_healthy()

    def _refuse_in_a_run(self, documents: Sequence[Document]) -> None:
        """Refuse what needs another controller during a run, which that would end.

        That is another scenario, or an image that was built again: of the controller, of the nodes
        or of a service. The same while the trainer is at work, which has runs now and then.

        Raises: UsageError: there is a run or a trainer, and one of these differs.
        """
        changed = ""
        for document in documents:
            if not is_kind(document, "StatefulSet"):
                continue
            standing = self.cluster.get("StatefulSet", document["metadata"]["name"], self.namespace)
            if standing is None:
                continue
            if configuration(standing) != configuration(document):
                changed = "another scenario"
                break
            if images(standing) != images(document):
                changed = "another image"
        if not changed:
            return
        if is_at_work(self.cluster.get("Job", TRAINER_JOB, self.namespace)):
            raise UsageError(
                f"the trainer of '{self.name}' is at work, and {changed} would end what it does",
                fix=f"wait for it (testbed logs trainer --follow --name {self.name}), or stop it: "
                f"testbed trainer stop --name {self.name}",
            )
        run = self.connections.current_run(self.name, self.namespace)
        if run is not None:
            raise UsageError(
                f"run {run} is in progress on '{self.name}', and {changed} would end it; wait for "
                "it, or end it with Ctrl-C where it was started"
            )

    def _apply_all(self, documents: Sequence[Document], fresh: bool) -> dict[str, list[str]]:
        """Apply all, and return what that changed and made, as in ``statefulset/edge-node``."""
        applied: dict[str, list[str]] = {"changed": [], "made": []}
        for document in documents:
            if is_kind(document, "Namespace"):
                continue
            metadata = document["metadata"]
            before = None
            if not fresh:
                before = self.cluster.get(document["kind"], metadata["name"], metadata["namespace"])
            after = self.cluster.apply(document, force=self._force)
            if before is None or version_of(before) != version_of(after):
                verb = "made" if before is None else "changed"
                applied[verb].append(f"{document['kind'].lower()}/{metadata['name']}")
        return applied

    def _prune(self, documents: Sequence[Document]) -> None:
        """Remove what an earlier ``up`` made and this one does not have any more."""
        wanted = {(each["kind"], each["metadata"]["name"]) for each in documents}
        selector = f"{SELECTOR},{INSTANCE_LABEL}={self.name},{MANAGED_LABEL}={APPLICATION}"
        for kind in KINDS:
            for each in self.objects.of_testbed(kind, self.namespace, selector):
                key = kind, each["metadata"]["name"]
                # The trainer is started and stopped by commands of its own.
                if labels_of(each).get(COMPONENT_LABEL) == TRAINER_JOB:
                    continue
                if key not in wanted and key[1] != WAS_UP:
                    self.report(f"removing {kind.lower()}/{key[1]}")
                    self.cluster.delete(*key, self.namespace)

    def _wait_ready(self, documents: Sequence[Document], deadline: float) -> None:
        """Return when all pods of the StatefulSets are there, as they should be, and ready."""
        sets = {
            each["metadata"]["name"]: int(each["spec"].get("replicas", 1))
            for each in documents
            if is_kind(each, "StatefulSet")
        }
        expected = {f"{name}-{number}" for name, count in sets.items() for number in range(count)}
        since: dict[tuple[str, str], float] = {}
        began = time.monotonic()
        told, told_at, looked_at, replaced_at = "", 0.0, 0.0, 0.0
        refusals: list[waiting.Obstacle] = []
        for pods in self.cluster.watch("Pod", self.namespace, SELECTOR):
            now = time.monotonic()
            present = [pods[name] for name in sorted(expected & pods.keys())]
            obstacles = [o for o in map(waiting.obstacle, present) if o is not None]
            if len(present) == len(expected) and not obstacles and self._settled(sets):
                return
            if len(present) < len(expected):
                # Not at every change of a pod: with many, that would be most of all requests.
                if now - looked_at >= _LOOK_EVERY_S:
                    refusals, looked_at = self._refusals(), now
                obstacles += refusals
            current = {(each.pod, each.kind) for each in obstacles}
            since = {key: since.get(key, now) for key in current}
            old = [
                each
                for each in obstacles
                if each.hopeless or now - since[each.pod, each.kind] >= self._patience.hopeless_s
            ]
            if old and not self.made and now - replaced_at >= _LOOK_EVERY_S:
                self._replace_broken(pods, old)
                replaced_at = now
            hopeless = [
                each
                for each in old
                if each.hopeless and now - since[each.pod, each.kind] >= self._patience.hopeless_s
            ]
            if hopeless:
                said = self._unready("these pods do not become ready", hopeless)
                raise PermanentError(said + self._last_words(hopeless))
            if now > deadline:
                missing = len(expected) - len(present)
                unready = len([each for each in obstacles if each.pod in pods])
                counts = [f"{missing} missing"] if missing else []
                counts += [f"{unready} not ready"] if unready else []
                raise TemporaryError(
                    self._unready(
                        f"of {len(expected)} pods {' and '.join(counts) or 'none is settled'} "
                        f"after {now - began:.0f} s",
                        obstacles,
                    )
                    + self._last_words(obstacles)
                )
            done = len(present) - len([o for o in obstacles if o.pod in pods])
            first = next(iter(waiting.told(obstacles, 1, kubectl=self.cluster.kubectl)), "")
            line = f"{done} of {len(expected)} pods ready" + (f"; {first}" if first else "")
            if line != told and now - told_at >= _TELL_EVERY_S:
                self.report(line)
                told, told_at = line, now
            elif obstacles and now - told_at >= _REMIND_EVERY_S:
                why = waiting.last_events(
                    self.cluster.find_all("Event", self.namespace), obstacles[0].pod, 1
                )
                self.report(
                    f"{line}; for {now - began:.0f} s so far, at most {deadline - began:.0f} s"
                    + (f"; last event: {why[0]}" if why else "")
                )
                told_at = now

    def _unready(self, what: str, obstacles: Sequence[waiting.Obstacle]) -> str:
        lines = waiting.told(obstacles, kubectl=self.cluster.kubectl)
        return what + "".join(f"\n  - {line}" for line in lines)

    def _last_words(self, obstacles: Sequence[waiting.Obstacle]) -> str:
        """Return the last events of one of these pods and the end of its log, as far as known."""
        # One that keeps ending says most, then one that runs and is not ready.
        rank = {"crash": 0, "starting": 1}
        for each in sorted(obstacles, key=lambda one: rank.get(one.kind, 2)):
            said = self._events_of(each.pod)
            if each.kind in rank:
                with contextlib.suppress(TestbedError):
                    previous = each.kind == "crash"
                    found = self.cluster.log(
                        each.pod, self.namespace, lines=_TAIL, previous=previous
                    )
                    if log := "".join(f"\n  | {line}" for line in found):
                        said += f"\nthe end of the log of {each.pod}:{log}"
            if said:
                return said
        return ""

    def _events_of(self, pod: str) -> str:
        with contextlib.suppress(TestbedError):
            found = self.cluster.find_all("Event", self.namespace)
            if lines := waiting.last_events(found, pod, _EVENTS):
                return f"\nthe last events of {pod}:" + "".join(f"\n  | {each}" for each in lines)
        return ""

    def _replace_broken(
        self, pods: Mapping[str, Document], stuck: Sequence[waiting.Obstacle]
    ) -> None:
        """End pods that are not of the newest revision and do not become ready.

        A StatefulSet that starts its pods in order waits for each to be ready before it replaces
        it, and so for ever where the new revision is what would make it ready:
        https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
        """
        newest = {
            each["metadata"]["uid"]: each["status"].get("updateRevision")
            for each in self.cluster.find_all("StatefulSet", self.namespace, SELECTOR)
            if each["status"].get("observedGeneration") == each["metadata"]["generation"]
        }
        for obstacle in stuck:
            if (pod := pods.get(obstacle.pod)) is None or is_ending(pod):
                continue
            owners = pod["metadata"].get("ownerReferences") or ()
            wanted = next((newest[own["uid"]] for own in owners if own["uid"] in newest), None)
            if wanted not in (None, labels_of(pod).get(_REVISION_LABEL)):
                self.report(f"replacing {obstacle}")
                self.cluster.delete(
                    "Pod", obstacle.pod, self.namespace, grace_s=0, uid=pod["metadata"]["uid"]
                )

    def _settled(self, sets: Mapping[str, int]) -> bool:
        """Return whether the cluster has done what was applied, for every pod."""
        for each in self.cluster.find_all("StatefulSet", self.namespace, SELECTOR):
            name, status = each["metadata"]["name"], each.get("status", {})
            if name in sets and (
                status.get("observedGeneration", 0) < each["metadata"]["generation"]
                or status.get("readyReplicas", 0) != sets[name]
                or status.get("updatedReplicas", status.get("replicas", 0)) != sets[name]
                or status.get("currentRevision") != status.get("updateRevision")
            ):
                return False
        return True

    def _refusals(self) -> list[waiting.Obstacle]:
        sets = {
            each["metadata"]["name"]: each["metadata"]["uid"]
            for each in self.cluster.find_all("StatefulSet", self.namespace, SELECTOR)
        }
        return waiting.refusals(self.cluster.find_all("Event", self.namespace), sets)

    def _wait_healthy(self) -> None:
        """Return when the controller finds all nodes healthy."""
        self.report("all pods ready; waiting for the controller to find all nodes healthy")
        address = self.connections.controller(self.namespace)
        token = self.connections.operator_key(self.namespace)
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
        raise TemporaryError(f"the controller: {last}" + self._unhealthy(address))

    def _unhealthy(self, address: str) -> str:
        token = self.connections.operator_key(self.namespace)
        try:
            with OperatorClient(address, token, timeout=3.0) as client:
                nodes = client.status().nodes
        except TestbedError as error:
            return f"; {error}"
        ill = [node for node in nodes if node.condition != "healthy"]
        return "".join(f"\n  - node {n.node} is {n.condition}: {n.reason}" for n in ill[:10])


def refuse_foreign(cluster: Cluster, namespace: Document, name: str) -> None:
    """Return if a namespace is that of the testbed ``name``.

    Raises: UsageError: it is not.
    """
    if is_ours(namespace, name):
        return
    found = namespace["metadata"]["name"]
    label = f"{NAME_LABEL}={APPLICATION} {INSTANCE_LABEL}={name}"
    raise UsageError(
        "the namespace belongs to something else",
        [
            Problem(
                "name",
                f"namespace {found} exists on {cluster.server} and was not created for testbed "
                f"'{name}'",
                "choose another --name; if it was made for this testbed, label it: "
                f"{cluster.kubectl} label namespace {found} {label}",
            )
        ],
    )
