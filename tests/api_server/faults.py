"""Switches for what goes wrong: who may do what, which requests fail, and which are slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

from tests.api_server.resources import RESOURCES, VERBS, Object, Resource
from tests.api_server.status import Refusal, denied


class Target(NamedTuple):
    """What a request wants: a verb on a resource, as an authorizer sees it."""

    verb: str
    resource: Resource
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class Fault:
    """A switch that is on. ``end()`` turns it off; so does leaving it as a context manager.

    ``hits`` counts the requests that it met. One with ``times`` ends by itself after so many.
    """

    def __init__(
        self,
        verb: str,
        resource: str,
        namespace: str | None,
        name: str | None,
        *,
        refusal: Refusal | None = None,
        times: int | None = None,
        delay_s: float = 0.0,
        held: bool = False,
    ) -> None:
        self.verbs = frozenset({verb})
        self.resource = resource
        self.namespace = namespace
        self.name = name
        self.refusal = refusal
        self.delay_s = delay_s
        self.hits = 0
        self.held = held
        self._left = times
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._ended.set()

    @property
    def on(self) -> bool:
        return not self._ended.is_set() and self._left != 0

    def meets(self, target: Target) -> bool:
        """Whether a request is one of those this is about."""
        resource, _, subresource = self.resource.partition("/")
        return (
            self.on
            and not self.verbs.isdisjoint({"*", target.verb})
            and target.resource.matches(resource)
            and (resource == "*" or subresource in {"*", target.subresource})
            and self.namespace in {None, target.namespace}
            and self.name in {None, target.name}
        )

    def take(self) -> None:
        self.hits += 1
        if self._left is not None:
            self._left -= 1

    def wait(self) -> None:
        """As long as the answer is delayed."""
        if self.held:
            self._ended.wait()
        elif self.delay_s:
            self._ended.wait(self.delay_s)


class Faults:
    """All switches of one server; thread-safe."""

    def __init__(self, user: str, note: Callable[[], None] = lambda: None) -> None:
        """``note`` is called when one was hit."""
        self._user = user
        self._note = note
        self._lock = threading.Lock()
        self._forbidden: list[Fault] = []
        self._failures: list[Fault] = []
        self._denials: list[Fault] = []
        self._rules: list[tuple[str | None, Object]] | None = None

    def end_all(self) -> None:
        """Release whatever waits."""
        with self._lock:
            for each in self._forbidden + self._failures + self._denials:
                each.end()

    def forbid(self, fault: Fault) -> Fault:
        with self._lock:
            self._forbidden.append(fault)
        return fault

    def fail(self, fault: Fault) -> Fault:
        with self._lock:
            self._failures.append(fault)
        return fault

    def deny(self, fault: Fault) -> Fault:
        with self._lock:
            self._denials.append(fault)
        return fault

    def grant(self, rules: Iterable[Object], namespace: str | None) -> None:
        with self._lock:
            self._rules = (self._rules or []) + [(namespace, rule) for rule in rules]

    def allows(self, target: Target) -> bool:
        """Whether the user may do this."""
        with self._lock:
            if any(fault.meets(target) for fault in self._forbidden):
                return False
            return self._rules is None or any(
                namespace in {None, target.namespace} and _covers(rule, target)
                for namespace, rule in self._rules
            )

    def authorize(self, target: Target) -> None:
        """Raises: Refusal: 403, the user may not do this."""
        if not self.allows(target):
            with self._lock:
                for fault in self._forbidden:
                    if fault.meets(target):
                        fault.take()
            verb, resource, subresource, namespace, name = target
            raise denied(self._user, verb, resource, subresource, namespace, name)

    def meet(self, target: Target) -> None:
        """Wait or fail, as switched, before the request is looked at.

        Raises: Refusal: it fails.
        """
        with self._lock:
            met = [fault for fault in self._failures if fault.meets(target)]
            for fault in met:
                fault.take()
                if fault.refusal is not None:
                    break
        if met:
            self._note()
        for fault in met:
            fault.wait()
            if fault.refusal is not None:
                raise fault.refusal

    def admit(self, target: Target) -> None:
        """Raises: Refusal: a webhook denies this."""
        with self._lock:
            for fault in self._denials:
                if fault.meets(target):
                    fault.take()
                    assert fault.refusal is not None
                    raise fault.refusal

    def rules(self, namespace: str) -> list[Object]:
        """What a SelfSubjectRulesReview lists: the verbs that are left of each resource."""
        return [
            {"verbs": verbs, "apiGroups": [resource.group], "resources": [name]}
            for resource in RESOURCES
            if resource.namespaced
            for name in _names(resource)
            if (
                verbs := [
                    verb
                    for verb in VERBS
                    if self.allows(
                        Target(verb, resource, name.partition("/")[2], namespace=namespace)
                    )
                ]
            )
        ]


def _names(resource: Resource) -> Sequence[str]:
    return [resource.plural, *(f"{resource.plural}/{each}" for each in resource.subresources)]


def _covers(rule: dict[str, Any], target: Target) -> bool:
    """Whether a rule of a Role allows it."""
    resource, subresource = target.resource.plural, target.subresource
    names = {"*", f"{resource}/{subresource}" if subresource else resource}
    if subresource:
        names.add(f"*/{subresource}")
    wanted = rule.get("resourceNames")
    return bool(
        {"*", target.verb} & set(rule.get("verbs", []))
        and {"*", target.resource.group} & set(rule.get("apiGroups", []))
        and names & set(rule.get("resources", []))
        and (not wanted or target.name in wanted)
    )
