"""Requests to a Kubernetes API server, with its answers as values or readable errors.

Objects are plain documents, as in the manifests. Calls that meet a server that is away, or that is
asked too often, are repeated for a while; every call is safe to repeat. Watches restart by
themselves.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlencode

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay

from testbed.errors import PrerequisiteMissing, TemporaryError
from testbed.runtime.kubernetes.credentials import Credentials, from_plugin
from testbed.runtime.kubernetes.failures import Asked, Asker, Replaced, explained
from testbed.runtime.kubernetes.kubeconfig import (
    Chosen,
    choose,
    document_of,
    kubectl_command,
    read,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from websocket import WebSocket

Document: TypeAlias = dict[str, Any]
"""An object of the API, as YAML has it."""

FIELD_MANAGER: Final = "edge-testbed"
"""Name under which the API server records the fields that this toolkit sets."""

PATIENCE_S: Final = 45.0
"""Time that a call waits for an API server that is not reachable."""
CALL_TIMEOUT_S: Final = 30.0
CONNECT_S: Final = 5.0
FIRST_PATIENCE_S: Final = 6.0
"""The same before the first answer, as the server may be the wrong one."""
FIRST_CONNECT_S: Final = 3.0
FIRST_READ_S: Final = 8.0
FIRST_CONTACT_S: Final = 9.0
"""Limit of all of that together, with the look-up of its name and a slow answer."""
_TELL_EVERY_S: Final = 2.0
SLOW_S: Final = 4.0
"""Time after which a request that has no answer is mentioned, and again and again."""
_LOOK: Final = 4_096
_NOT_SERVED: Final = "404 page not found"
"""Answer of an API server that is starting, which tells nothing about an object."""
_GATEWAY: Final = frozenset({429, 502, 503, 504})
"""A proxy says so in a page of its own where the API server behind it is away."""
_LONGEST_PAUSE_S: Final = 5.0
_PAGE: Final = 500

_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object: ``group`` is empty for the core group; ``plural`` is as in paths."""

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version, as in ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the path of its objects."""
        base = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        below = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{base}{below}/{self.plural}{tail}"


RESOURCES: Final[Mapping[str, Resource]] = {
    each.kind: each
    for each in (
        Resource("Namespace", "", "v1", "namespaces", namespaced=False),
        Resource("PersistentVolume", "", "v1", "persistentvolumes", namespaced=False),
        Resource("ServiceAccount", "", "v1", "serviceaccounts"),
        Resource("ConfigMap", "", "v1", "configmaps"),
        Resource("Secret", "", "v1", "secrets"),
        Resource("Service", "", "v1", "services"),
        Resource("Pod", "", "v1", "pods"),
        Resource("Event", "", "v1", "events"),
        Resource("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims"),
        Resource("StatefulSet", "apps", "v1", "statefulsets"),
        Resource("Job", "batch", "v1", "jobs"),
        Resource("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
    )
}
"""Kinds that a testbed is made of, or that tell how it is."""


@dataclass(frozen=True, slots=True)
class Access:
    """Something that may be done to a kind of object, in words of RBAC."""

    verb: str
    kind: str
    subresource: str = ""
    name: str = ""

    @property
    def what(self) -> str:
        """The kind of object, as in ``statefulsets.apps``; Secrets with their name."""
        resource = RESOURCES[self.kind]
        group = f".{resource.group}" if resource.group else ""
        below = f"/{self.subresource}" if self.subresource else ""
        name = f"/{self.name}" if self.kind == "Secret" and self.name else ""
        return f"{resource.plural}{group}{below}{name}"

    def __str__(self) -> str:
        return f"{self.verb} {self.what}"


class _Unreachable(TemporaryError):
    """There is no answer from the server, not even a refusal."""


class Cluster:
    """The cluster that ``context`` of ``kubeconfig`` names; the current context if None.

    Without a kubeconfig: what ``KUBECONFIG`` and the user's folder say, as for kubectl.
    Raises (every call): PermanentError: refused; says who may not do what. TemporaryError: the
    server was away for ``patience_s`` seconds; ``tell`` gets a line now and then until then.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.kubeconfig = kubeconfig
        self.context = context
        self.patience_s = patience_s
        self._tell = tell
        self._made: ApiClient | None = None
        self._making = threading.Lock()
        self._answered = False

    @property
    def client(self) -> ApiClient:
        """The official client. Raises: PrerequisiteMissing: no kubeconfig, or no such context."""
        with self._making:
            if self._made is None:
                self._made = _client(self._chosen)
            return self._made

    @cached_property
    def _chosen(self) -> Chosen:
        return choose(read(self.kubeconfig), self.context)

    @property
    def server(self) -> str:
        """The URL of the API server. Raises: PrerequisiteMissing."""
        return self._chosen.server

    @property
    def kubectl(self) -> str:
        """The beginning of a kubectl command for this cluster, as one would type it."""
        return kubectl_command(self.kubeconfig, self.context)

    @property
    def described(self) -> str:
        """Context and API server of this cluster, for people. Raises: PrerequisiteMissing."""
        return f"context '{self._chosen.name}', API server {self.server}"

    def version(self) -> str:
        """Return the server's version, as ``v1.31.2``."""
        answer = self._ask("GET", "/version", Asked("get", "version"))
        if "gitVersion" not in answer:
            raise _no_api(self._chosen, "JSON that names no version of Kubernetes")
        return str(answer["gitVersion"])

    # --- objects ----------------------------------------------------------------------------

    def get(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """Return the object; None if there is none."""
        resource = RESOURCES[kind]
        asked = Asked("get", resource.plural, resource.group, namespace, name)
        found: Document | None = self._ask(
            "GET", resource.path(namespace, name), asked, absent=True
        )
        return found

    def find_all(
        self, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Document]:
        """Return all objects that match; of all namespaces if None."""
        return self._list(RESOURCES[kind], namespace, selector)[0]

    def apply(self, document: Document, *, force: bool = False) -> Document:
        """Make the object what ``document`` says (server-side apply), and return what it is then.

        Idempotent. Fields that ``document`` does not name stay what others made them.

        Raises: UsageError: someone else has set a field to another value, unless ``force``.
        """
        resource = RESOURCES[document["kind"]]
        metadata = document["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        answer: Document = self._ask(
            "PATCH",
            resource.path(namespace, name),
            Asked("patch", resource.plural, resource.group, namespace, name),
            query=query,
            body=json.dumps(document),
            content="application/apply-patch+yaml",
        )
        return answer

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_s: int | None = None,
        uid: str | None = None,
    ) -> bool:
        """Delete the object and what it owns (only with this ``uid``); return if there was one.

        One of the same name with another ``uid`` is not touched, and does not count.
        """
        resource = RESOURCES[kind]
        options: Document = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        asked = Asked("delete", resource.plural, resource.group, namespace, name)
        path = resource.path(namespace, name)
        try:
            answer = self._ask("DELETE", path, asked, body=json.dumps(options), absent=True)
        except Replaced:
            return False
        return answer is not None

    def may(self, access: Access, namespace: str | None) -> bool:
        """Return whether the user may do this, as the API server says."""
        resource = RESOURCES[access.kind]
        attributes = {
            "verb": access.verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": access.subresource,
            "name": access.name,
        }
        if resource.namespaced and namespace:
            attributes["namespace"] = namespace
        elif access.kind == "Namespace" and access.name:
            # One namespace is in itself: a role that is bound there is enough.
            attributes["namespace"] = access.name
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._ask(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            Asked("create", "selfsubjectaccessreviews", "authorization.k8s.io"),
            body=json.dumps(review),
        )
        assert answer is not None
        return bool(answer.get("status", {}).get("allowed"))

    # --- watching ---------------------------------------------------------------------------

    def watch(
        self, kind: str, namespace: str | None, selector: str = "", *, tick_s: float = 2.0
    ) -> Iterator[dict[str, Document]]:
        """Yield all matching objects by name, now and after every change; without end.

        Also every ``tick_s`` seconds when nothing changes, so that the caller can check the time.
        Goes on where it was when the server ends the watch or is away for a while.
        """
        resource = RESOURCES[kind]
        while True:
            items, version = self._list(resource, namespace, selector)
            known = {item["metadata"]["name"]: item for item in items}
            yield dict(known)
            yield from self._changes(resource, namespace, selector, version, known, tick_s)

    def _changes(
        self,
        resource: Resource,
        namespace: str | None,
        selector: str,
        version: str,
        known: dict[str, Document],
        tick_s: float,
    ) -> Iterator[dict[str, Document]]:
        """Yield changes until the version is too old or the server refuses; then list again."""
        asked = Asked("watch", resource.plural, resource.group, namespace)
        while True:
            query = {
                "watch": "1",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                # Whole seconds; how the server ends it is the tick.
                "timeoutSeconds": str(max(1, round(tick_s))),
                **({"labelSelector": selector} if selector else {}),
            }
            try:
                response = self._request("GET", resource.path(namespace), asked, query=query)
                for line in _lines(response):
                    event = json.loads(line)
                    item = event["object"]
                    if event["type"] == "ERROR":
                        if item.get("code") != _GONE:
                            logging.getLogger(__name__).info("watch ended: %s", item.get("message"))
                        return
                    version = item["metadata"]["resourceVersion"]
                    name = item["metadata"].get("name", "")
                    if event["type"] == "DELETED":
                        known.pop(name, None)
                    elif event["type"] != "BOOKMARK":
                        known[name] = item
                    if event["type"] != "BOOKMARK":
                        yield dict(known)
            except TemporaryError:
                # Away, or the version expired: the list that follows waits for it to come back.
                yield dict(known)
                return
            except (OSError, ValueError):
                # Cut off in the middle of a line.
                pass
            yield dict(known)

    # --- pods -------------------------------------------------------------------------------

    def log(
        self,
        pod: str,
        namespace: str,
        *,
        lines: int | None = None,
        follow: bool = False,
        previous: bool = False,
        container: str | None = None,
    ) -> Iterator[str]:
        """Yield the lines of a pod's log; with ``follow`` until its container ends."""
        resource = RESOURCES["Pod"]
        query = {
            **({"tailLines": str(lines)} if lines is not None else {}),
            **({"follow": "true"} if follow else {}),
            **({"previous": "true"} if previous else {}),
            **({"container": container} if container else {}),
        }
        asked = Asked("get", "pods/log", "", namespace, pod)
        response = self._request(
            "GET", resource.path(namespace, pod, "log"), asked, query=query, endless=follow
        )
        for line in _lines(response):
            yield line.decode(errors="replace")

    def evict(self, pod: str, namespace: str) -> None:
        """Evict a pod, as ``kubectl drain`` does; its StatefulSet starts another.

        Raises: TemporaryError: a disruption budget forbids it now.
        """
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        self._ask(
            "POST",
            RESOURCES["Pod"].path(namespace, pod, "eviction"),
            Asked("create", "pods/eviction", "", namespace, pod),
            body=json.dumps(eviction),
        )

    def tunnel(self, pod: str, namespace: str, port: int) -> WebSocket:
        """Return a connection to ``port`` of a pod, in the frames of ``v4.channel.k8s.io``.

        Raises: TemporaryError: there is none now; the pod may be about to start.
        """
        from kubernetes.stream import ws_client
        from websocket import WebSocketException

        client = self.client
        headers: dict[str, str] = {}
        path = RESOURCES["Pod"].path(namespace, pod, "portforward")
        client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        asked = Asked("create", "pods/portforward", "", namespace, pod)
        lowered = {name.lower(): value for name, value in headers.items()}
        url = ws_client.get_websocket_url(
            f"{client.configuration.host}{path}", [("ports", str(port))]
        )
        try:
            made: WebSocket = ws_client.create_websocket(
                client.configuration,
                url,
                headers={**lowered, "sec-websocket-protocol": "v4.channel.k8s.io"},
            )
        except (WebSocketException, OSError) as error:
            raise TemporaryError(f"cannot {asked}: {error}") from None
        return made

    # --- calls ------------------------------------------------------------------------------

    def _list(
        self, resource: Resource, namespace: str | None, selector: str
    ) -> tuple[list[Document], str]:
        found: list[Document] = []
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        asked = Asked("list", resource.plural, resource.group, namespace)
        while True:
            answer = self._ask("GET", resource.path(namespace), asked, query=query)
            if answer is None or "items" not in answer or "metadata" not in answer:
                raise _no_api(self._chosen, "JSON that is no list of the API")
            for item in answer["items"] or ():
                item.setdefault("kind", resource.kind)
                item.setdefault("apiVersion", resource.api_version)
                found.append(item)
            if not (rest := answer["metadata"].get("continue")):
                return found, str(answer["metadata"]["resourceVersion"])
            query["continue"] = rest

    def _ask(
        self,
        method: str,
        path: str,
        asked: Asked,
        *,
        query: Mapping[str, str] | None = None,
        body: str | None = None,
        content: str = "application/json",
        absent: bool = False,
    ) -> Any:
        """Return the document that is the answer; None if there is none and ``absent`` allows it.

        Raises: PrerequisiteMissing: a server that has not answered yet cannot be reached.
        """
        import urllib3

        # Outside of the time that the server gets: a plugin may ask the user to log in.
        _ = self.client

        def attempt() -> Any:
            response = self._request(
                method, path, asked, query=query, body=body, content=content, absent=absent
            )
            if response is None:
                return None
            try:
                raw = response.read()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._unreachable(error) from None
            document = _document(response, raw, self._chosen)
            self._answered = True
            return document

        patience = self.patience_s if self._answered else min(self.patience_s, FIRST_PATIENCE_S)
        waiting = Retrying(
            retry=retry_if_exception_type(TemporaryError),
            stop=stop_after_delay(patience),
            wait=_pause,
            before_sleep=self._tell_of_waiting(patience),
            reraise=True,
        )
        if self._answered:
            with self._telling_of(asked):
                return waiting(attempt)
        try:
            return self._within(
                min(FIRST_CONTACT_S, self.patience_s + FIRST_CONNECT_S), lambda: waiting(attempt)
            )
        except _Unreachable as error:
            raise PrerequisiteMissing(
                str(error),
                f"see that it runs, that `{self.kubectl} cluster-info` answers, and that "
                f"{self._who()} of {self._chosen.cluster.file} names the right server",
            ) from None

    def _within(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Return what ``call`` does; says every ``_TELL_EVERY_S`` that it is waited for.

        Looking up a name cannot be given a time limit, nor can a server that sends a byte now and
        then: so the call has a thread, which is left to itself when the time is over.

        Raises: _Unreachable: it took longer. Whatever the call raises.
        """
        outcome: list[tuple[bool, Any]] = []
        done = threading.Event()

        def run() -> None:
            try:
                outcome.append((True, call()))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                outcome.append((False, error))
            done.set()

        threading.Thread(target=run, daemon=True, name="first contact").start()
        begun = time.monotonic()
        while not done.wait(min(_TELL_EVERY_S, max(0.0, begun + seconds - time.monotonic()))):
            passed = time.monotonic() - begun
            if passed >= seconds:
                raise _Unreachable(
                    f"the API server at {self.server} does not answer (nothing for {passed:.0f} s)"
                )
            self._tell(f"waiting for the API server at {self.server}, for {passed:.0f} s so far")
        fine, result = outcome[0]
        if not fine:
            raise result
        return result

    @contextmanager
    def _telling_of(self, asked: Asked) -> Iterator[None]:
        """Say now and then what is waited for while a request of the block has no answer."""
        over = threading.Event()
        begun = time.monotonic()

        def tell() -> None:
            while not over.is_set():
                passed = time.monotonic() - begun
                self._tell(
                    f"the API server at {self.server} has not answered for {passed:.0f} s ({asked})"
                )
                over.wait(SLOW_S)

        watcher = threading.Timer(SLOW_S, tell)
        watcher.daemon = True
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.cancel()

    def _tell_of_waiting(self, patience: float) -> Callable[[RetryCallState], None]:
        told = [0.0]

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            now = time.monotonic()
            if now - told[0] >= _TELL_EVERY_S:
                told[0] = now
                left = max(0.0, patience - (state.seconds_since_start or 0.0))
                self._tell(f"{error}; trying for another {left:.0f} s")

        return tell

    def _request(
        self,
        method: str,
        path: str,
        asked: Asked,
        *,
        query: Mapping[str, str] | None = None,
        body: str | None = None,
        content: str = "application/json",
        absent: bool = False,
        endless: bool = False,
    ) -> Any:
        """Return the open response; None for 404 if ``absent``."""
        import urllib3
        from kubernetes.client.exceptions import ApiException

        client = self.client
        headers = {"Accept": "application/json, */*", "Content-Type": content}
        client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = client.rest_client.pool_manager.request(
                method,
                url,
                body=body,
                headers=headers,
                preload_content=False,
                retries=False,
                timeout=urllib3.Timeout(
                    connect=CONNECT_S if self._answered else FIRST_CONNECT_S,
                    read=None if endless else CALL_TIMEOUT_S if self._answered else FIRST_READ_S,
                ),
            )
            if response.status < 300:
                return response
            text = response.read().decode(errors="replace")
        except (urllib3.exceptions.SSLError, ssl.SSLError) as error:
            if _is_cut_off(error):
                raise _Unreachable(
                    f"the API server at {self.server} does not answer (it accepts the connection, "
                    "and is silent or hangs up)"
                ) from None
            raise PrerequisiteMissing(
                f"no secure connection to the API server at {self.server} ({self._who()}): "
                f"{_reason(error)}",
                "see that its certificate authority and your certificate in the kubeconfig are "
                "those of this cluster",
            ) from None
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise self._unreachable(error) from None
        if 300 <= response.status < 400:
            place = response.headers.get("Location", "elsewhere")
            raise _no_api(self._chosen, f"a redirection to {place}")
        if _is_page(response, text):
            seen = f"a web page (HTTP {response.status})"
            if response.status in _GATEWAY:
                raise TemporaryError(f"the API server at {self.server} answers with {seen}")
            raise _no_api(self._chosen, seen)
        if response.status == 404 and text.strip() == _NOT_SERVED:
            raise TemporaryError(
                f"the API server at {self.server} does not serve {asked.what} yet; it is starting"
            )
        if response.status == 404 and absent:
            return None
        raise explained(
            response.status,
            text,
            asked,
            Asker(self._who(), self.kubectl),
            response.headers.get("Retry-After"),
        )

    def _unreachable(self, error: Exception) -> _Unreachable:
        return _Unreachable(f"the API server at {self.server} does not answer ({_reason(error)})")

    def _who(self) -> str:
        return f"context '{self._chosen.name}'"


def _client(chosen: Chosen) -> ApiClient:
    try:
        from kubernetes import client, config
    except ImportError:
        raise PrerequisiteMissing(
            "the Kubernetes client is not installed", "pip install 'edge-testbed[kubernetes]'"
        ) from None
    # It tells the log of every connection it tries again.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    settings = client.Configuration()
    user = {} if chosen.user is None else dict(chosen.user.body)
    plugin = user.pop("exec", None)
    given: Credentials | None = None
    if plugin is not None and not (user.get("token") or user.get("tokenFile")):
        given = from_plugin(chosen)
        user.update(given.user())
    try:
        config.load_kube_config_from_dict(
            document_of(chosen, user),
            context="chosen",
            client_configuration=settings,
            persist_config=False,
        )
        settings.retries = False
        made = client.ApiClient(settings)
    except (config.ConfigException, OSError, *_MALFORMED) as error:
        files = dict.fromkeys(
            str(each.file) for each in (chosen.user, chosen.cluster) if each is not None
        )
        raise PrerequisiteMissing(
            f"context '{chosen.name}' of {', '.join(files)} cannot be used: "
            f"{type(error).__name__}: {error}",
            f"see `{chosen.kubectl} config view`, and that `{chosen.kubectl} cluster-info` answers",
        ) from None
    if given is not None:
        # Annotated as None there, and called if it is something else.
        vars(settings)["refresh_api_key_hook"] = _refreshing(chosen, given)
    return made


_MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError)
"""Errors of the official client for fields of a kubeconfig that have the wrong form."""


def _refreshing(chosen: Chosen, given: Credentials) -> Callable[[Any], None]:
    """Return what asks the plugin again when its token is about to expire."""
    held = [given]

    def refresh(settings: Any) -> None:
        if held[0].expired():
            held[0] = from_plugin(chosen)
            if held[0].token:
                settings.api_key["BearerToken"] = f"Bearer {held[0].token}"

    return refresh


def _document(response: Any, raw: bytes, chosen: Chosen) -> Any:
    """Return the mapping that a response holds.

    Raises: PrerequisiteMissing: it is no API server's.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        text = raw[:_LOOK].decode(errors="replace")
        page = _is_page(response, text)
        seen = "a web page" if page else f"{len(raw)} bytes that are not JSON"
        raise _no_api(chosen, f"{seen}{_title(raw)}") from None
    if not isinstance(document, dict):
        raise _no_api(chosen, "JSON that is no object of the API")
    return document


def _no_api(chosen: Chosen, seen: str) -> PrerequisiteMissing:
    return PrerequisiteMissing(
        f"{chosen.server} answers with {seen}; it is no Kubernetes API server, or something before "
        "it (a login page, a proxy) answers in its place",
        "log in there first, see `server` in the kubeconfig and HTTPS_PROXY, and that "
        f"`{chosen.kubectl} version` answers",
    )


def _is_page(response: Any, text: str) -> bool:
    kind = response.headers.get("Content-Type", "")
    return "html" in kind.lower() or text.lstrip()[:1] == "<"


def _title(raw: bytes) -> str:
    found = re.search(r"<title[^>]*>([^<]{1,100})", raw[:_LOOK].decode(errors="replace"), re.I)
    return f" titled '{' '.join(found[1].split())}'" if found else ""


def _is_cut_off(error: Exception) -> bool:
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError | TimeoutError)


def _pause(state: RetryCallState) -> float:
    """Return seconds that grow with every attempt; at least what the server asks for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after_s", None)
    pause: float = min(0.2 * 2.0 ** (state.attempt_number - 1), _LONGEST_PAUSE_S)
    return pause if asked is None else max(float(asked), pause)


def _lines(response: Any) -> Iterator[bytes]:
    """Yield the lines of a response as they come; its connection is released in any case."""
    import urllib3

    rest = b""
    over = False
    try:
        for piece in response.stream(65_536, decode_content=True):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        over = True
        if rest:
            yield rest
    except urllib3.exceptions.HTTPError:
        # Cut off; who needs to know sees that it is over too soon.
        return
    finally:
        if not over:
            response.close()
        response.release_conn()


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or error)
    return text.rpartition(": ")[2] or type(error).__name__


def until(seconds: float) -> float:
    """Return the instant of the monotonic clock in so many seconds."""
    return time.monotonic() + seconds
