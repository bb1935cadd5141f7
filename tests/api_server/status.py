"""Refusals, worded and structured as the API server words and structures them.

The sources are apimachinery's ``pkg/api/errors`` and the admission plug-ins named at each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.api_server.resources import Object, Resource


class Refusal(Exception):
    """An answer other than what was asked for; becomes a ``Status`` with its HTTP code."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Object | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        text: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.text = text
        """Whether the answer is plain text, as that of filters before the handlers."""

    def body(self) -> Object:
        status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
        status |= {"status": "Failure", "message": self.message}
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return status | {"code": self.code}


def _details(resource: Resource, name: str, **more: Any) -> Object:
    details: Object = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return details | {"kind": resource.plural} | more


def not_found(resource: Resource, name: str) -> Refusal:
    return Refusal(
        404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name)
    )


def no_such_path() -> Refusal:
    return Refusal(404, "NotFound", "the server could not find the requested resource", {})


def no_such_group() -> Refusal:
    return Refusal(404, "NotFound", "404 page not found\n", text=True)


def already_exists(resource: Resource, name: str) -> Refusal:
    return Refusal(
        409,
        "AlreadyExists",
        f'{resource.qualified} "{name}" already exists',
        _details(resource, name),
    )


def modified(resource: Resource, name: str, why: str | None = None) -> Refusal:
    """A write that names another version of the object than the stored one."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try "
        "again"
    )
    return Refusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        _details(resource, name),
    )


def precondition(resource: Resource, name: str, field: str, wanted: str, found: str) -> Refusal:
    return Refusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified_kind} "{name}": the {field} in the '
        f"precondition ({wanted}) does not match the {field} in record ({found}). The object "
        "might have been deleted and then recreated",
        _details(resource, name) | {"kind": resource.kind},
    )


def forbidden(resource: Resource, name: str, why: str, causes: Sequence[Object] = ()) -> Refusal:
    """Admission said no, or (``denied``) the authorizer."""
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    more = {"causes": list(causes)} if causes else {}
    return Refusal(
        403, "Forbidden", f"{subject} is forbidden: {why}", _details(resource, name, **more)
    )


def denied(
    user: str, verb: str, resource: Resource, subresource: str, namespace: str, name: str
) -> Refusal:
    what = f"{resource.plural}/{subresource}" if subresource else resource.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return forbidden(
        resource,
        name,
        f'User "{user}" cannot {verb} resource "{what}" in API group "{resource.group}" {where}',
    )


def terminating(resource: Resource, name: str, namespace: str) -> Refusal:
    """The NamespaceLifecycle plug-in."""
    return forbidden(
        resource,
        name,
        f"unable to create new content in namespace {namespace} because it is being terminated",
        [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
        ],
    )


def invalid(resource: Resource, name: str, causes: Sequence[tuple[str, str, str]]) -> Refusal:
    """``causes`` are (reason, field, message without the field)."""
    texts = [f"{field}: {message}" for _, field, message in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return Refusal(
        422,
        "Invalid",
        f'{resource.qualified_kind} "{name}" is invalid: {text}',
        _details(resource, name)
        | {"kind": resource.kind}
        | {
            "causes": [
                {"reason": reason, "message": message, "field": field}
                for reason, field, message in causes
            ]
        },
    )


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> Refusal:
    return Refusal(410, "Expired", message)


def method_not_allowed() -> Refusal:
    return Refusal(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {},
    )


def unsupported(accepted: Sequence[str]) -> Refusal:
    """Of a body; a patch of unknown type is refused more tersely."""
    return Refusal(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def unsupported_patch() -> Refusal:
    return Refusal(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def too_many_requests(retry_after_s: int) -> Refusal:
    """Priority and fairness answers before any handler, in plain text."""
    return Refusal(
        429,
        "TooManyRequests",
        "Too many requests, please try again later.\n",
        headers={"Retry-After": str(retry_after_s)},
        text=True,
    )


def internal(message: str) -> Refusal:
    return Refusal(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        {"causes": [{"message": message}]},
    )


def unavailable() -> Refusal:
    return Refusal(
        503,
        "ServiceUnavailable",
        "the server is currently unable to handle the request",
        {},
    )


def timed_out() -> Refusal:
    return Refusal(
        504,
        "Timeout",
        "Timeout: request did not complete within requested timeout - context deadline exceeded",
        {},
    )


def success(resource: Resource, value: Object) -> Object:
    """The answer to a DELETE that took effect at once."""
    metadata = value["metadata"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(resource, metadata["name"], uid=metadata["uid"]),
    }
