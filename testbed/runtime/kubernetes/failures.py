"""Errors for the refusals of an API server, with what to do about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from testbed.errors import PermanentError, Problem, TemporaryError, TestbedError, UsageError

_TEMPORARY: Final = frozenset({408, 429, 500, 502, 503, 504})

RIGHTS: Final = "docs/kubernetes.md says which rights are needed, manifests/rbac grants them"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in words of RBAC."""

    verb: str
    resource: str
    group: str = ""
    namespace: str | None = None
    name: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.what}{where}"

    @property
    def what(self) -> str:
        """The object, as in ``statefulsets.apps/edge-node``."""
        group = f".{self.group}" if self.group else ""
        return f"{self.resource}{group}" + (f"/{self.name}" if self.name else "")


@dataclass(frozen=True, slots=True)
class Asker:
    """The user, by the context, and how a kubectl command for the same cluster begins."""

    name: str
    kubectl: str = "kubectl"

    def __str__(self) -> str:
        return self.name


class Busy(TemporaryError):
    """The server asks to wait for ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Replaced(PermanentError):
    """The object with this uid is gone, and there is another one of its name."""


class NoRight(PermanentError):
    """The user may not do this."""


def explained(
    status: int, text: str, asked: Asked, who: Asker, retry_after: str | None
) -> TestbedError:
    """Return the error that an answer with this status and body means."""
    body = _status(text)
    message = str(body.get("message") or text.strip() or f"HTTP {status}")
    causes = (body.get("details") or {}).get("causes") or []
    if status == 401:
        return PermanentError(
            f"the API server does not accept the credentials of {who}",
            fix=f"log in to the cluster again, then see that `{who.kubectl} auth whoami` answers",
        )
    if status == 403:
        return _forbidden(message, causes, asked, who)
    if status == 404:
        return PermanentError(f"cannot {asked}: {message}")
    if status == 409:
        return _conflict(message, causes, asked)
    if status == 410:
        # A watch or a page that is too old: whoever lists again is up to date.
        return TemporaryError(f"cannot {asked}: {message}")
    if status == 422:
        problems = [
            Problem(str(each.get("field", "")), str(each.get("message", "")), "") for each in causes
        ]
        lines = "".join(f"\n  - {problem}" for problem in problems)
        return PermanentError(
            f"the API server rejects {asked.what} as invalid{lines or ': ' + message}"
        )
    if status in _TEMPORARY:
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return Busy(f"the API server cannot {asked} now: {message}", seconds)
    return PermanentError(f"the API server refuses to {asked}: {message}")


def _forbidden(message: str, causes: list[Any], asked: Asked, who: Asker) -> TestbedError:
    if any(each.get("reason") == "NamespaceTerminating" for each in causes) or (
        "being terminated" in message
    ):
        return Busy(f"namespace {asked.namespace} is being removed: {message}", None)
    if "exceeded quota" in message:
        return PermanentError(
            f"the quota of namespace {asked.namespace} does not allow {asked.what}: {message}",
            fix=f"see `{who.kubectl} --namespace {asked.namespace} describe quota`, and have it "
            "raised",
        )
    if "violates PodSecurity" in message:
        return PermanentError(f"the cluster's pod security refuses {asked.what}: {message}")
    if "cannot" in message and "resource" in message:
        where = f" in namespace {asked.namespace}" if asked.namespace else ""
        return NoRight(
            f"{who} has no right to {asked.verb} {asked.what}{where}: {message}", fix=RIGHTS
        )
    return PermanentError(f"the cluster does not admit {asked.what}: {message}")


def _conflict(message: str, causes: list[Any], asked: Asked) -> TestbedError:
    owned = [each for each in causes if each.get("reason") == "FieldManagerConflict"]
    if owned:
        return UsageError(
            f"someone else has changed {asked.what} in namespace {asked.namespace}",
            [
                Problem(
                    str(each.get("field", "")),
                    str(each.get("message", "")),
                    "give --force-conflicts to overwrite it with what the scenario says",
                )
                for each in owned
            ],
        )
    if "UID in the precondition" in message:
        return Replaced(f"cannot {asked}: it has been replaced by another one of that name")
    return TemporaryError(f"cannot {asked}: {message}")


def _status(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) and body.get("kind") == "Status" else {}
