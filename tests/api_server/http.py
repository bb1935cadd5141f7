"""The API server's HTTP: paths, content types, status codes and streams.

What a request does is in ``registry``, ``watches``, ``logs`` and ``portforward``.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.api_server import admission, discovery, patches, selectors, status
from tests.api_server.faults import Faults, Target
from tests.api_server.logs import Logs
from tests.api_server.portforward import PROTOCOLS, Routes
from tests.api_server.registry import Place, Registry, Write
from tests.api_server.resources import (
    BY_PATH,
    GROUPS,
    NAMESPACES,
    VERSION,
    Object,
    Resource,
    clone,
)
from tests.api_server.status import Refusal
from tests.api_server.watches import Watches, WatchOptions
from tests.api_server.websocket import WebSocket, accept_key

_PATH: Final = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[0-9a-z]+)/(?P<rest>.+)")
_OPEN: Final = {"/version", "/healthz", "/livez", "/readyz"}
_JSON_TYPES: Final = ("application/json", "application/yaml")


class Request(NamedTuple):
    """A request as a test looks at it. ``query`` has the last value of each name."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str
    status: int
    body: Any


class Services(NamedTuple):
    """What the handlers of one server share."""

    registry: Registry
    faults: Faults
    watches: Watches
    logs: Logs
    routes: Routes
    user: str
    token: str
    requests: list[Request]


class Handler(BaseHTTPRequestHandler):
    """One connection; serves its requests one after another."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: socket.socket, services: Services) -> None:
        self.services = services
        self._query: dict[str, str] = {}
        self._body: Any = None
        self._warnings: list[str] = []
        super().__init__(connection, ("", 0), cast(Any, None))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: ``requests`` has it."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    # --- one request ---------------------------------------------------------------------------

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self._warnings = []
        self._query = {
            name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._body = None
        try:
            self._body = self._parsed(raw)
            self._serve(url.path)
        except Refusal as refusal:
            self._refuse(refusal)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _parsed(self, raw: bytes) -> Any:
        if not raw:
            return None
        kind = self._content_type()
        try:
            return yaml.safe_load(raw) if "yaml" in kind else json.loads(raw)
        except (ValueError, yaml.YAMLError) as error:
            raise status.bad_request(f"error decoding the body: {error}") from error

    def _content_type(self) -> str:
        kind: str = self.headers.get("Content-Type") or ""
        return kind.partition(";")[0].strip()

    def _serve(self, path: str) -> None:
        path = path.rstrip("/")
        if path in _OPEN:
            self._send(200, VERSION if path == "/version" else "ok")
            return
        self._authenticate()
        if (found := discovery.document(path)) is not None:
            self._send(200, found)
            return
        place = _place(path)
        if place is None:
            known = path.startswith("/api/v1/") or any(
                path.startswith(f"/apis/{group}/{version}/") for group, version in GROUPS
            )
            raise status.no_such_path() if known else status.no_such_group()
        verb = self._verb(place)
        # To an authorizer, one namespace is in itself.
        where = place.name if place.resource is NAMESPACES else place.namespace
        target = Target(verb, place.resource, place.subresource, where, place.name)
        self.services.faults.meet(target)
        if not place.resource.stored:
            self._send(201, self._review(place))
            return
        self.services.faults.authorize(target)
        if place.subresource == "portforward" and not self.services.faults.allows(
            target._replace(verb="create")
        ):
            # Opening one by GET, as a WebSocket has to, needs the right to create one as well.
            raise status.forbidden(place.resource, place.name, "")
        serve = getattr(self, f"_{verb}")
        if place.subresource in {"log", "portforward", "eviction"}:
            serve = getattr(self, f"_{place.subresource}")
        serve(place)

    def _authenticate(self) -> None:
        given = self.headers.get("Authorization")
        if given != f"Bearer {self.services.token}":
            raise status.unauthorized()

    def _verb(self, place: Place) -> str:
        watching = self._query.get("watch", "") in {"1", "true"}
        verb = {
            "GET": "get" if place.name else "watch" if watching else "list",
            "HEAD": "get",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if place.name else "deletecollection",
        }[self.command]
        needs_name = verb in {"get", "update", "patch", "delete"}
        if needs_name != bool(place.name) and not (verb == "create" and place.subresource):
            raise status.method_not_allowed()
        if verb == "deletecollection" and not place.resource.collected:
            raise status.method_not_allowed()
        if place.resource.namespaced and not place.namespace and verb not in {"list", "watch"}:
            raise status.method_not_allowed()
        return verb

    # --- reading -------------------------------------------------------------------------------

    def _get(self, place: Place) -> None:
        self._send(200, self.services.registry.get(place))

    def _list(self, place: Place) -> None:
        resource, match = place.resource, self._match(place.resource)
        with self.services.registry.store as store:
            version, compacted = str(store.version), store.compacted
            found = store.all(resource, place.namespace, match)
        metadata: Object = {"resourceVersion": version}
        limit = int(self._query.get("limit") or 0)
        if self._query.get("resourceVersionMatch") == "Exact":
            version = self._query.get("resourceVersion", "")
            if int(version) < compacted:
                raise status.expired("The resourceVersion for the provided list is too old.")
        if mark := self._query.get("continue"):
            try:
                began, _, after = bytes.fromhex(mark).decode().partition(" ")
            except ValueError as error:
                raise status.bad_request("continue key is not valid") from error
            if int(began) < compacted:
                raise status.expired(
                    "The provided continue parameter is too old to display a consistent list "
                    "result. You can start a new list without the continue parameter."
                )
            metadata["resourceVersion"] = version = began
            found = [each for each in found if _order(each) > after]
        if limit and len(found) > limit:
            metadata["continue"] = f"{version} {_order(found[limit - 1])}".encode().hex()
            if not self._query.get("labelSelector") and not self._query.get("fieldSelector"):
                metadata["remainingItemCount"] = len(found) - limit
            found = found[:limit]
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        self._send(200, head | {"metadata": metadata, "items": [_item(each) for each in found]})

    def _watch(self, place: Place) -> None:
        query = self._query
        version = query.get("resourceVersion", "")
        if not version.isdigit() and version:
            problem = f'parsing "{version}": invalid syntax'
            raise Refusal(
                500,
                "",
                f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: {problem}',
            )
        options = WatchOptions(
            version=version,
            timeout_s=float(query["timeoutSeconds"]) if query.get("timeoutSeconds") else None,
            bookmarks=query.get("allowWatchBookmarks", "") in {"1", "true"},
            initial_events=query.get("sendInitialEvents", "") in {"1", "true"},
        )
        events = self.services.watches.events(place, self._match(place.resource), options)
        self._stream("application/json", (_json(each).encode() for each in events))

    def _match(self, resource: Resource) -> selectors.Match:
        labels = selectors.by_labels(self._query.get("labelSelector", ""))
        fields = selectors.by_fields(self._query.get("fieldSelector", ""), resource)
        return lambda value: labels(value) and fields(value)

    # --- writing -------------------------------------------------------------------------------

    def _create(self, place: Place) -> None:
        self._need_object()
        made = self.services.registry.create(place, self._body, self._write())
        self._warn(place.resource, made)
        self._send(201, made)

    def _update(self, place: Place) -> None:
        self._need_object()
        changed = self.services.registry.replace(place, self._body, self._write())
        self._warn(place.resource, changed)
        self._send(200, changed)

    def _patch(self, place: Place) -> None:
        kind = self._content_type()
        if kind not in patches.ACCEPTED:
            raise status.unsupported_patch()
        if kind == patches.APPLY_PATCH and not self._query.get("fieldManager"):
            raise Refusal(
                422,
                "Invalid",
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is '
                "required for apply patch",
                {
                    "group": "meta.k8s.io",
                    "kind": "PatchOptions",
                    "causes": [
                        {
                            "reason": "FieldValueRequired",
                            "message": "Required value: is required for apply patch",
                            "field": "fieldManager",
                        }
                    ],
                },
            )
        value, is_new = self.services.registry.patch(place, self._body, kind, self._write())
        self._warn(place.resource, value)
        self._send(201 if is_new else 200, value)

    def _delete(self, place: Place) -> None:
        options = self._delete_options()
        if place.resource.orphans and not {"propagationPolicy", "orphanDependents"} & set(options):
            self._warnings.append(
                "child pods are preserved by default when jobs are deleted; set "
                "propagationPolicy=Background to remove them or set propagationPolicy=Orphan to "
                "suppress this warning"
            )
        self._send(200, self.services.registry.delete(place, options, self._write()))

    def _deletecollection(self, place: Place) -> None:
        resource = place.resource
        found = self.services.registry.delete_all(
            place, self._delete_options(), self._match(place.resource), self._write()
        )
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        metadata = {"resourceVersion": str(self.services.registry.store.version)}
        items = [_item(each) for each in found]
        self._send(200, head | {"metadata": metadata, "items": items})

    def _delete_options(self) -> Object:
        options = dict(self._body or {})
        if policy := self._query.get("propagationPolicy"):
            options["propagationPolicy"] = policy
        if grace := self._query.get("gracePeriodSeconds"):
            options["gracePeriodSeconds"] = int(grace)
        if orphan := self._query.get("orphanDependents"):
            options["orphanDependents"] = orphan == "true"
        return {name: part for name, part in options.items() if part is not None}

    def _need_object(self) -> None:
        if self._content_type() not in {"", *_JSON_TYPES}:
            raise status.unsupported(
                ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
            )
        if not isinstance(self._body, dict):
            raise status.bad_request("the body of the request is no object")

    def _write(self) -> Write:
        agent = (self.headers.get("User-Agent") or "unknown").partition("/")[0]
        return Write(
            manager=self._query.get("fieldManager") or agent,
            dry_run=self._query.get("dryRun") == "All",
            force=self._query.get("force", "") in {"1", "true"},
        )

    def _warn(self, resource: Resource, value: Object) -> None:
        if text := admission.warning(self.services.registry.store, resource, value):
            self._warnings.append(text)

    # --- reviews -------------------------------------------------------------------------------

    def _review(self, place: Place) -> Object:
        self._need_object()
        faults = self.services.faults
        value = clone(self._body)
        spec = value.get("spec") or {}
        value.setdefault("metadata", {})
        if place.resource.kind == "SelfSubjectRulesReview":
            rules = faults.rules(spec.get("namespace") or "")
            value["status"] = {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}
            return value
        wanted = spec.get("resourceAttributes") or {}
        resource = BY_PATH.get(
            (wanted.get("group") or "", "v1", wanted.get("resource") or ""),
            Resource(wanted.get("group") or "", "v1", wanted.get("resource") or "", ""),
        )
        target = Target(
            wanted.get("verb") or "",
            resource,
            wanted.get("subresource") or "",
            wanted.get("namespace") or "",
            wanted.get("name") or "",
        )
        value["status"] = {"allowed": faults.allows(target)}
        return value

    # --- pods ----------------------------------------------------------------------------------

    def _eviction(self, place: Place) -> None:
        options = (self._body or {}).get("deleteOptions") or {}
        self.services.registry.delete(place._replace(subresource=""), options, self._write())
        self._send(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                         "code": 201})  # fmt: skip

    def _log(self, place: Place) -> None:
        pod = self.services.registry.get(place._replace(subresource=""))
        query, name, uid = self._query, place.name, pod["metadata"]["uid"]
        names = [container["name"] for container in pod["spec"].get("containers", [])]
        container = query.get("container") or (names[0] if len(names) == 1 else "")
        if not container:
            listed = " ".join(names)
            raise status.bad_request(
                f"a container name must be specified for pod {name}, choose one of: [{listed}]"
            )
        if container not in names:
            raise status.bad_request(f"container {container} is not valid for pod {name}")
        if not pod["spec"].get("nodeName"):
            self._send(204, "")
            return
        previous = query.get("previous", "") in {"1", "true"}
        logs = self.services.logs
        if previous and not logs.has_previous(uid, container):
            raise status.bad_request(
                f'previous terminated container "{container}" in pod "{name}" not found'
            )
        if why := None if previous else _waiting(pod, container):
            raise status.bad_request(
                f'container "{container}" in pod "{name}" is waiting to start: {why}'
            )
        since: datetime.datetime | None = None
        if query.get("sinceTime"):
            since = datetime.datetime.fromisoformat(query["sinceTime"])
        elif query.get("sinceSeconds"):
            back = datetime.timedelta(seconds=int(query["sinceSeconds"]))
            since = datetime.datetime.now(datetime.UTC) - back
        lines = logs.read(
            uid,
            container,
            tail=int(query["tailLines"]) if query.get("tailLines") else None,
            since=since,
            previous=previous,
            follow=query.get("follow", "") in {"1", "true"},
        )
        stamped = query.get("timestamps", "") in {"1", "true"}
        self._stream(
            "text/plain",
            (
                (f"{line.at:%Y-%m-%dT%H:%M:%S.%f}000Z " if stamped else "").encode()
                + line.text.encode()
                + b"\n"
                for line in lines
            ),
        )

    def _portforward(self, place: Place) -> None:
        pod = self.services.registry.get(place._replace(subresource=""))
        headers = self.headers
        offered = [part.strip() for part in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        chosen = next((each for each in offered if each in PROTOCOLS), None)
        key = headers.get("Sec-WebSocket-Key")
        if headers.get("Upgrade", "").lower() != "websocket" or key is None:
            raise status.bad_request("Upgrade request required")
        if not pod["spec"].get("nodeName"):
            raise status.bad_request(f"pod {place.name} does not have a host assigned")
        if pod["status"].get("phase") != "Running":
            where = f'"{place.name}_{place.namespace}"'
            raise Refusal(500, "", f"pod not found ({where})", text=True)
        if offered != [""] and chosen is None:
            raise Refusal(403, "", "", text=True)
        ports = [int(port) for port in self._query.get("ports", "").split(",") if port]
        if not ports:
            raise Refusal(400, "", 'query parameter "port" is required', text=True)
        self._log_request(101)
        self.send_response(101, "Switching Protocols")
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(key))
        if chosen is not None:
            self.send_header("Sec-WebSocket-Protocol", chosen)
        self.end_headers()
        self.close_connection = True
        self.services.routes.serve(
            place.namespace, place.name, ports, WebSocket(cast(Any, self.rfile), self.wfile)
        )

    # --- answers -------------------------------------------------------------------------------

    def _log_request(self, code: int) -> None:
        self.services.requests.append(
            Request(
                self.command,
                urlsplit(self.path).path,
                self._query,
                self._content_type(),
                code,
                self._body,
            )
        )
        self.services.registry.store.note()

    def _begin(self, code: int, kind: str | None) -> None:
        self._log_request(code)
        self.send_response(code)
        self.send_header("Audit-Id", str(uuid.uuid4()))
        self.send_header("Cache-Control", "no-cache, private")
        if kind is not None:
            self.send_header("Content-Type", kind)
        for text in self._warnings:
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            self.send_header("Warning", f'299 - "{escaped}"')

    def _send(
        self, code: int, content: Object | str, headers: Mapping[str, str] | None = None
    ) -> None:
        text = content if isinstance(content, str) else _json(content)
        data = text.encode()
        kind = "text/plain; charset=utf-8" if isinstance(content, str) else "application/json"
        self._begin(code, kind if data else None)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, refusal: Refusal) -> None:
        content = refusal.message if refusal.text else refusal.body()
        self._send(refusal.code, content, refusal.headers)

    def _stream(self, kind: str, parts: Iterator[bytes]) -> None:
        with contextlib.closing(cast(Any, parts)):
            self._begin(200, kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in parts:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")


def _place(path: str) -> Place | None:
    """What a path is about; None if nothing that is served."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    group, version = match["group"] or "", match["version"]
    parts = match["rest"].strip("/").split("/")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in NAMESPACES.subresources:
        namespace, parts = parts[1], parts[2:]
    resource = BY_PATH.get((group, version, parts[0]))
    if resource is None or len(parts) > 3 or (namespace and not resource.namespaced):
        return None
    name, subresource = (*parts[1:], "", "")[:2]
    if subresource and subresource not in resource.subresources:
        return None
    return Place(resource, namespace, name, subresource)


def _json(value: Object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"


def _order(value: Object) -> str:
    return f"{value['metadata'].get('namespace', '')}/{value['metadata']['name']}"


def _item(value: Object) -> Object:
    """As in a list, whose items do not say what they are."""
    return {name: part for name, part in value.items() if name not in {"kind", "apiVersion"}}


def _waiting(pod: Object, container: str) -> str | None:
    """Why a container has written nothing yet; None if it may have."""
    for each in pod["status"].get("containerStatuses", []):
        if each["name"] == container and "waiting" in each["state"] and not each["restartCount"]:
            reason: str = each["state"]["waiting"]["reason"]
            pull = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff":
                    "trying and failing to pull image"}  # fmt: skip
            return pull.get(reason, reason)
    return None
