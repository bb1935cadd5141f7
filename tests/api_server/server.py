"""The fake as tests use it: ``ApiServer``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import yaml

from tests.api_server import patches, status
from tests.api_server.controllers import Controllers
from tests.api_server.events import NODE, Recorder
from tests.api_server.faults import Fault, Faults
from tests.api_server.http import Handler, Request, Services
from tests.api_server.kubelet import STATES, PodState, Rule, evicted
from tests.api_server.listener import HOST, Listener
from tests.api_server.logs import Logs
from tests.api_server.portforward import Routes
from tests.api_server.registry import Place, Registry, Write
from tests.api_server.resources import (
    NAMESPACES,
    PODS,
    QUOTAS,
    VERSION,
    Object,
    clone,
    named,
)
from tests.api_server.status import Refusal
from tests.api_server.store import Store
from tests.api_server.watches import Watches

T = TypeVar("T")

USER: Final = "fake-user"
TOKEN: Final = "fake-token"
CONTEXT: Final = "fake"


class ApiServer:
    """A Kubernetes API server with controllers and one node, on a port of this machine.

    Works from ``__enter__`` to ``__exit__``, after which none of its threads or sockets is left.
    All methods may be called from any thread and take effect at once; what the controllers make of
    it follows in their thread, and ``wait_for`` waits for it.

    Resources are named by their plural, ``pods`` or ``statefulsets.apps``; ``*`` is every one.
    """

    def __init__(self) -> None:
        self._store = Store()
        self._faults = Faults(USER, self._store.note)
        self._logs = Logs(self._store)
        self._routes = Routes()
        self._watches = Watches(self._store)
        self._registry = Registry(self._store, self._faults)
        record = Recorder(self._store)
        self._controllers = Controllers(self._registry, record, self._logs, self._routes)
        self.requests: list[Request] = []
        """Every request that was answered, in the order of the answers; a watch when it began."""
        services = Services(
            registry=self._registry,
            faults=self._faults,
            watches=self._watches,
            logs=self._logs,
            routes=self._routes,
            user=USER,
            token=TOKEN,
            requests=self.requests,
        )
        self._listener = Listener(lambda connection: _serve(connection, services))
        self.url = f"http://{HOST}:{self._listener.port}"

    def __enter__(self) -> Self:
        for name in ("default", "kube-system"):
            self.create("namespaces", {"metadata": {"name": name}})
        node = {"status": {"conditions": [{"type": "Ready", "status": "True"}],
                           "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "250"},
                           "nodeInfo": {"kubeletVersion": VERSION["gitVersion"]}}}  # fmt: skip
        self.create("nodes", {"metadata": {"name": NODE}} | node)
        self._controllers.start()
        self._listener.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._faults.end_all()
        self._store.close()
        self._routes.cut()
        self._listener.close()
        self._controllers.stop()

    def kubeconfig(self, path: Path, *, context: str = CONTEXT, token: str = TOKEN) -> Path:
        """Write a kubeconfig for this server to ``path``, which is returned."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": {"server": self.url}}],
            "users": [{"name": USER, "user": {"token": token}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": USER}}],
            "current-context": context,
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    # --- what is there -------------------------------------------------------------------------

    def objects(self, resource: str, namespace: str = "") -> list[Object]:
        """Copies of what is there, by namespace and name; of all namespaces if none is given."""
        return [clone(value) for value in self._store.all(named(resource), namespace)]

    def object(self, resource: str, namespace: str, name: str) -> Object:
        """A copy of one object; ``namespace`` is empty for one that has none.

        Raises: KeyError: it is not there.
        """
        found = self._store.get(named(resource), namespace, name)
        if found is None:
            raise KeyError(f"there is no {resource} {namespace}/{name}")
        return clone(found)

    def wait_for(self, what: Callable[[], T], timeout_s: float = 10.0) -> T:
        """Wait until ``what()`` is true, and return it; it is asked again after each change.

        A ``what`` that raises LookupError is not true yet.

        Raises: TimeoutError: it did not become true.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self._store.ticks
            # Not under the lock: it may well ask the server.
            with contextlib.suppress(LookupError):
                if result := what():
                    return result
            with self._store as store:
                left = max(deadline - time.monotonic(), 0.0)
                if not store.changed.wait_for(lambda: store.ticks != seen, left):  # noqa: B023
                    raise TimeoutError(f"did not come true in {timeout_s} s")

    # --- acting beside the client --------------------------------------------------------------

    def create(self, resource: str, value: Mapping[str, Any], manager: str = "kubectl") -> Object:
        """Create an object as somebody else would.

        Raises: Refusal: as the server refuses it.
        """
        kind = named(resource)
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        namespace = value["metadata"].get("namespace", "")
        place = Place(kind, namespace)
        return self._registry.create(place, head | dict(value), Write(manager=manager))

    def edit(
        self,
        resource: str,
        namespace: str,
        name: str,
        changes: Mapping[str, Any],
        manager: str = "kubectl-edit",
    ) -> Object:
        """Merge ``changes`` into an object as somebody else would, who owns those fields then.

        Raises: Refusal: as the server refuses it.
        """
        place = Place(named(resource), namespace, name)
        value, _ = self._registry.patch(
            place, dict(changes), patches.MERGE_PATCH, Write(manager=manager)
        )
        return value

    def delete(self, resource: str, namespace: str, name: str, **options: Any) -> None:
        """Delete an object as somebody else would; ``options`` as in ``DeleteOptions``.

        Raises: Refusal: as the server refuses it.
        """
        self._registry.delete(Place(named(resource), namespace, name), options, Write())

    # --- pods ----------------------------------------------------------------------------------

    def pods_become(
        self,
        state: PodState,
        labels: Mapping[str, str] | None = None,
        *,
        namespace: str | None = None,
        after_s: float = 0.0,
        exit_code: int = 1,
    ) -> None:
        """How far pods with these labels (all, without) get from now on; the last call counts.

        It holds for those that are there too: they recover, crash, or stop being ready. What is
        before the containers run (``unschedulable``, ``stuck-creating``, ``image-pull-backoff``)
        does not touch those that run. ``after_s`` is how long containers take to start, and
        ``exit_code`` that of ``failed`` pods.
        """
        if state not in STATES:
            raise ValueError(f"{state!r} is none of {', '.join(STATES)}")
        self._controllers.kubelet.become(
            Rule(state, namespace, dict(labels or {}), after_s, exit_code)
        )

    def evict(self, namespace: str, pod: str) -> None:
        """The node runs short of memory: the pod fails with reason Evicted.

        Raises: KeyError: there is no such pod.
        """
        if self._registry.edit(Place(PODS, namespace, pod), evicted) is None:
            raise KeyError(f"there is no pod {namespace}/{pod}")
        self._routes.cut(namespace, pod)

    def oom_kill(self, namespace: str, pod: str) -> None:
        """The kernel kills the containers of a pod, which are restarted.

        Raises: KeyError: the pod is not running.
        """
        self._controllers.kubelet.kill_container(namespace, pod, "OOMKilled", 137)
        self._routes.cut(namespace, pod)

    def crash(self, namespace: str, pod: str, exit_code: int = 1) -> None:
        """The containers of a pod end by themselves, and are restarted.

        Raises: KeyError: the pod is not running.
        """
        self._controllers.kubelet.kill_container(namespace, pod, "Error", exit_code)
        self._routes.cut(namespace, pod)

    def log(
        self, namespace: str, pod: str, lines: Sequence[str], container: str | None = None
    ) -> None:
        """Add lines to what a container (the first, if none is named) of a pod has written.

        Raises: KeyError: there is no such pod.
        """
        found = self.object("pods", namespace, pod)
        container = container or found["spec"]["containers"][0]["name"]
        self._logs.write(found["metadata"]["uid"], container, lines)

    def route(self, namespace: str, pod: str, port: int, host: str, to: int) -> None:
        """Where a forward to ``port`` of this pod leads; without a route it is refused."""
        self._routes.add(namespace, pod, port, host, to)

    def break_forwards(self, namespace: str | None = None, pod: str | None = None) -> None:
        """End the open forwards to a pod, a namespace's pods, or all."""
        self._routes.cut(namespace, pod)

    def claims_bind(self, binding: bool) -> None:
        """Whether persistent volume claims get a volume; without one their pods wait."""
        with self._store as store:
            self._controllers.claims.binding = binding
            store.poke()

    @contextlib.contextmanager
    def controllers_paused(self) -> Iterator[None]:
        """Nothing happens by itself: no pods are made, started or ended."""
        self._controllers.pause(True)
        try:
            yield
        finally:
            self._controllers.pause(False)

    # --- rights --------------------------------------------------------------------------------

    def forbid(
        self, verb: str, resource: str, *, namespace: str | None = None, name: str | None = None
    ) -> Fault:
        """The user may not do this (403); access reviews say so. ``pods/log`` is a resource too."""
        return self._faults.forbid(Fault(verb, resource, namespace, name))

    def grant(self, rules: Iterable[Object], *, namespace: str | None = None) -> None:
        """From the first call on, the user may do only what was granted.

        ``rules`` are those of a Role or ClusterRole.
        """
        self._faults.grant(rules, namespace)

    # --- faults --------------------------------------------------------------------------------

    def fail(
        self,
        code: int = 500,
        *,
        verb: str = "*",
        resource: str = "*",
        namespace: str | None = None,
        name: str | None = None,
        times: int | None = 1,
        retry_after_s: int = 1,
        message: str | None = None,
    ) -> Fault:
        """Refuse requests with a 429, 500, 503 or 504, ``times`` or until ``end()``."""
        refusals = {
            429: status.too_many_requests(retry_after_s),
            500: Refusal(500, "", message or "etcdserver: request timed out"),
            503: status.unavailable(),
            504: status.timed_out(),
        }
        refusal = refusals[code]
        return self._faults.fail(
            Fault(verb, resource, namespace, name, refusal=refusal, times=times)
        )

    def conflict(
        self,
        resource: str,
        name: str,
        *,
        verb: str = "*",
        namespace: str | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Writes of an object lose a race (409); for a conflict of owners, ``edit`` the object."""
        refusal = status.modified(named(resource), name)
        fault = Fault(verb, resource, namespace, name, refusal=refusal, times=times)
        if verb == "*":
            fault.verbs = frozenset({"update", "patch"})
        return self._faults.fail(fault)

    def deny(
        self,
        verb: str,
        resource: str,
        message: str,
        *,
        namespace: str | None = None,
        webhook: str = "policy.example.com",
        code: int = 403,
    ) -> Fault:
        """An admission webhook denies writes, by clients and controllers alike."""
        text = f'admission webhook "{webhook}" denied the request: {message}'
        reason = {403: "Forbidden", 400: "BadRequest"}.get(code, "")
        refusal = Refusal(code, reason, text)
        return self._faults.deny(Fault(verb, resource, namespace, None, refusal=refusal))

    def slow(
        self, seconds: float, *, verb: str = "*", resource: str = "*", times: int | None = None
    ) -> Fault:
        """Answer late."""
        return self._faults.fail(Fault(verb, resource, None, None, times=times, delay_s=seconds))

    def hold(self, *, verb: str = "*", resource: str = "*") -> Fault:
        """Do not answer before ``end()``, or the end of the ``with``."""
        return self._faults.fail(Fault(verb, resource, None, None, held=True))

    def quota(
        self, hard: Mapping[str, str], *, namespace: str | None = None, name: str = "quota"
    ) -> None:
        """Limit a namespace, or with None every one that is made, by a ResourceQuota.

        One of that name that is there gets the new limits.
        """
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
                 "spec": {"hard": dict(hard)}}  # fmt: skip
        with self._store as store:
            self._registry.quotas.append((namespace, quota))
            for each in store.all(NAMESPACES):
                where = each["metadata"]["name"]
                if namespace is None and where in {"default", "kube-system"}:
                    continue
                if namespace in {None, where} and "deletionTimestamp" not in each["metadata"]:
                    self._put_quota(where, quota)

    def _put_quota(self, namespace: str, quota: Object) -> None:
        place = Place(QUOTAS, namespace, quota["metadata"]["name"])

        def change(value: Object) -> None:
            value["spec"] = clone(quota["spec"])

        if self._registry.edit(place, change) is None:
            self._registry.create(place._replace(name=""), quota, Write(manager="admin"))

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """All connections are reset and new ones refused, until the end of the ``with``.

        The port stays the same. What is in the cluster goes on by itself.
        """
        self._listener.leave()
        try:
            yield
        finally:
            self._listener.listen()

    # --- watches -------------------------------------------------------------------------------

    def break_watches(self) -> None:
        """Cut the connections of all watches; watching again from the last version works."""
        self._watches.cut()

    def expire_watches(self) -> None:
        """End all watches by an event that says 410; watching again from there does not work."""
        self._store.compact()
        self._watches.expire()

    def compact(self) -> None:
        """Forget old versions: watches and lists cannot go on from them (410)."""
        self._store.compact()

    def bookmark(self) -> None:
        """Send a bookmark on all watches that allow them."""
        self._watches.mark()


def _serve(connection: Any, services: Services) -> None:
    Handler(connection, services)
