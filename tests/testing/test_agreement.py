"""Calls of the toolkit to an API server, made to the fake one and to a real one.

The real one is that of ``TESTBED_TEST_KUBECONFIG``; a namespace is made there and removed again.
So the fake is held to what Kubernetes does.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.errors import PermanentError, UsageError
from testbed.runtime.kubernetes.api import Access, Cluster, Document
from tests.api_server import CONTEXT, ApiServer

VARIABLE = "TESTBED_TEST_KUBECONFIG"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Place:
    """A cluster, and a namespace on it that is the test's own."""

    cluster: Cluster
    namespace: str


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    namespace = f"edge-agreement-{secrets.token_hex(4)}"
    if request.param == "fake":
        with ApiServer() as server:
            file = server.kubeconfig(tmp_path / "kubeconfig")
            yield from _on(Cluster(file, CONTEXT), namespace)
        return
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} names no cluster")
    yield from _on(Cluster(Path(named).expanduser()), namespace)


def _on(cluster: Cluster, namespace: str) -> Iterator[Place]:
    head = {"apiVersion": "v1", "kind": "Namespace"}
    cluster.apply({**head, "metadata": {"name": namespace, "labels": {"part": "agreement"}}})
    try:
        yield Place(cluster, namespace)
    finally:
        cluster.delete("Namespace", namespace)


def settings(place: Place, name: str = "settings", **data: str) -> Document:
    metadata = {"name": name, "namespace": place.namespace, "labels": {"part": name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pods(place: Place, replicas: int) -> Document:
    labels = {"part": "sleeper"}
    container = {"name": "main", "image": "registry.invalid/none:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "sleeper", "namespace": place.namespace, "labels": labels},
        "spec": {
            "serviceName": "sleeper",
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def version(document: Document) -> str:
    return str(document["metadata"]["resourceVersion"])


def test_it_names_its_version(place: Place) -> None:
    assert place.cluster.version().startswith("v1.")


def test_an_apply_makes_changes_and_leaves_what_is_the_same(place: Place) -> None:
    made = place.cluster.apply(settings(place, one="1", two="2"))
    again = place.cluster.apply(settings(place, one="1", two="2"))
    changed = place.cluster.apply(settings(place, one="I"))

    assert made["data"] == {"one": "1", "two": "2"}
    assert version(again) == version(made)
    # A field that is applied no more is removed.
    assert changed["data"] == {"one": "I"}
    found = place.cluster.get("ConfigMap", "settings", place.namespace)
    assert found is not None
    assert version(found) == version(changed)


def test_what_is_not_there(place: Place) -> None:
    assert place.cluster.get("ConfigMap", "nothing", place.namespace) is None
    assert not place.cluster.delete("ConfigMap", "nothing", place.namespace)
    assert place.cluster.find_all("StatefulSet", place.namespace) == []


def test_a_selector_selects(place: Place) -> None:
    for name in ("one", "two", "three"):
        place.cluster.apply(settings(place, name))
    found = place.cluster.find_all("ConfigMap", place.namespace, "part in (one,two)")
    assert sorted(each["metadata"]["name"] for each in found) == ["one", "two"]
    assert {each["kind"] for each in found} == {"ConfigMap"}


def test_an_object_of_another_uid_is_not_deleted(place: Place) -> None:
    made = place.cluster.apply(settings(place))
    other = "00000000-0000-4000-8000-000000000000"
    assert not place.cluster.delete("ConfigMap", "settings", place.namespace, uid=other)
    assert place.cluster.get("ConfigMap", "settings", place.namespace) is not None
    assert place.cluster.delete(
        "ConfigMap", "settings", place.namespace, uid=made["metadata"]["uid"]
    )
    assert place.cluster.get("ConfigMap", "settings", place.namespace) is None


def test_what_cannot_be_is_refused(place: Place) -> None:
    wrong = settings(place)
    wrong["metadata"]["labels"] = {"part": "not a label!"}
    with pytest.raises(PermanentError, match="invalid"):
        place.cluster.apply(wrong)
    place.cluster.apply(pods(place, 1))
    other = pods(place, 1)
    other["spec"]["serviceName"] = "elsewhere"
    with pytest.raises(PermanentError, match="updates to statefulset spec for fields other than"):
        place.cluster.apply(other)


def test_a_field_that_another_has_changed_is_a_conflict(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.cluster.apply(settings(place, one="1"))
    with monkeypatch.context() as patched:
        patched.setattr("testbed.runtime.kubernetes.api.FIELD_MANAGER", "somebody")
        place.cluster.apply(settings(place, one="2"), force=True)

    with pytest.raises(UsageError, match=r"\.data\.one"):
        place.cluster.apply(settings(place, one="1"))
    assert place.cluster.apply(settings(place, one="1"), force=True)["data"] == {"one": "1"}


def test_rights_are_told(place: Place) -> None:
    # Who makes namespaces for tests may do this, too.
    assert place.cluster.may(Access("create", "ConfigMap"), place.namespace)


def test_a_watch_sees_what_comes_and_goes(place: Place) -> None:
    deadline = time.monotonic() + PATIENCE_S
    steps: list[Callable[[], object]] = [
        lambda: place.cluster.apply(settings(place, one="1")),
        lambda: place.cluster.apply(settings(place, one="2")),
        lambda: place.cluster.delete("ConfigMap", "settings", place.namespace),
    ]
    seen: list[str] = []
    for found in place.cluster.watch("ConfigMap", place.namespace, "part=settings", tick_s=1.0):
        assert time.monotonic() < deadline
        state = found["settings"]["data"]["one"] if "settings" in found else "absent"
        if not seen or seen[-1] != state:
            seen.append(state)
            if not steps:
                break
            steps.pop(0)()
    assert seen == ["absent", "1", "2", "absent"]


def test_a_stateful_set_makes_its_pods(place: Place) -> None:
    place.cluster.apply(pods(place, 2))
    deadline = time.monotonic() + PATIENCE_S
    for found in place.cluster.watch("Pod", place.namespace, "part=sleeper", tick_s=1.0):
        assert time.monotonic() < deadline
        if len(found) == 2:
            break
    assert sorted(found) == ["sleeper-0", "sleeper-1"]
    owner = place.cluster.get("StatefulSet", "sleeper", place.namespace)
    assert owner is not None
    assert owner["spec"]["replicas"] == 2
    assert found["sleeper-0"]["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
