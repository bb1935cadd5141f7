"""Namespaces that were made for a testbed by somebody else, and testbeds made by kubectl alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.errors import PermanentError, UsageError
from testbed.rpc.operator import OperatorClient
from testbed.runtime.kubernetes import ClusterRuntime
from testbed.runtime.kubernetes.api import Access, Cluster
from testbed.runtime.kubernetes.bringing_up import Patience
from testbed.runtime.kubernetes.certificates import completed
from testbed.runtime.kubernetes.rendering import render_secrets
from testbed.runtime.kubernetes.rights import grouped
from testbed.testing.runtime import NAME, small_plan
from tests.api_server import CONTEXT, ApiServer
from tests.manifests.golden import expected
from tests.runtime.kubernetes.conftest import NAMESPACE
from tests.runtime.kubernetes.standin import Controller

GIVEN = "edge-lab"
RIGHTS = Path(__file__).parents[3] / "manifests" / "rbac" / "operator.yaml"


@pytest.fixture
def another(kubeconfig: Path, tmp_path: Path) -> Callable[..., ClusterRuntime]:
    def make(**settings: Any) -> ClusterRuntime:
        cluster = Cluster(kubeconfig, CONTEXT, patience_s=5.0)
        settings.setdefault("patience", Patience(hopeless_s=0.2))
        return ClusterRuntime(tmp_path / "home", cluster, **settings)

    return make


@pytest.fixture
def given(server: ApiServer, controller: Controller) -> None:
    """The namespace of docs/kubernetes.md, "An existing namespace"."""
    labels = {"app.kubernetes.io/name": "edge-testbed", "app.kubernetes.io/instance": NAME}
    server.create("namespaces", {"metadata": {"name": GIVEN, "labels": labels}})
    server.route(GIVEN, "controller-0", 7440, "127.0.0.1", controller.port)


@pytest.mark.usefixtures("given")
def test_the_role_that_is_bound_in_the_namespace_alone_is_enough(
    server: ApiServer, another: Callable[..., ClusterRuntime]
) -> None:
    roles = {each["metadata"]["name"]: each for each in yaml.safe_load_all(RIGHTS.read_text())}
    server.grant(roles["edge-testbed-operator"]["rules"], namespace=GIVEN)
    runtime = another(namespace=GIVEN)

    assert runtime.check() == ()
    runtime.up(small_plan(), NAME)
    assert runtime.names() == (NAME,)
    assert runtime.find(NAME).nodes == 2
    assert len(runtime.down(NAME).stopped) == 6
    assert runtime.leftovers(NAME) == ()

    (lack,) = another().check()
    assert "--namespace NAME" in lack.fix
    with pytest.raises(PermanentError, match=r"no right to get namespaces/.*name it: --namespace"):
        another().find("other")


@pytest.mark.usefixtures("given")
def test_a_testbed_is_found_in_a_namespace_that_was_given(
    server: ApiServer, another: Callable[..., ClusterRuntime]
) -> None:
    assert another().names() == (), "the namespace is empty"
    another(namespace=GIVEN).up(small_plan(), NAME)

    stranger = another()
    assert stranger.names() == (NAME,)
    assert stranger.find(NAME).nodes == 2
    assert stranger.kill(NAME, 0).name == "node-0"
    server.log(GIVEN, "controller-0", ["hello"])
    assert list(stranger.logs(NAME, "controller"))[-1] == "hello"
    assert stranger.was_up(NAME)
    assert len(stranger.down(NAME).stopped) == 6
    assert stranger.leftovers(NAME) == ()
    assert stranger.names() == ()


def test_missing_rights_are_told_by_what_they_are_on() -> None:
    verbs = ("get", "list")
    refused = [Access(verb, kind) for kind in ("Service", "Job") for verb in verbs]
    assert grouped(refused) == "get, list services, jobs.batch"
    more = grouped([*refused, Access("delete", "Pod"), Access("get", "Secret", name="credentials")])
    assert more.split("\n  - ")[1:] == [
        "get, list services, jobs.batch",
        "delete pods",
        "get secrets/credentials\n ",
    ]


# --- testbeds that kubectl has made -------------------------------------------------------------


@pytest.fixture
def applied(server: ApiServer) -> Iterator[None]:
    """What `kubectl apply -k manifests/overlays/kind` makes, with secrets as documented."""
    contents, _ = completed({}, "default", 5, renew=lambda: False)
    contents["credentials"]["mysql-password"] = "secret"
    # As files have it from which `kubectl create secret` makes one.
    written = {
        name: {key: f"{value}\n" for key, value in content.items()}
        for name, content in contents.items()
    }
    plurals = {"NetworkPolicy": "networkpolicies"}
    with Controller("default", 5).serving(by_kubectl(server)) as controller:
        server.route("testbed-default", "controller-0", 7440, "127.0.0.1", controller.port)
        for each in (*expected("kind"), *render_secrets(written)):
            if each["kind"] == "Secret":
                each["metadata"] = {
                    "name": each["metadata"]["name"],
                    "namespace": "testbed-default",
                }
            kind = each["kind"]
            server.create(plurals.get(kind, f"{kind.lower()}s"), each)
        yield


def by_kubectl(server: ApiServer) -> Callable[[], str]:
    """What the controller's pod finds in the Secret that was made without labels."""

    def read() -> str:
        import base64

        secret = server.object("secrets", "testbed-default", "credentials")
        return base64.b64decode(secret["data"]["controller.pem"]).decode()

    return read


@pytest.mark.usefixtures("applied")
def test_a_testbed_that_kubectl_has_made_is_used_as_any_other(
    server: ApiServer, another: Callable[..., ClusterRuntime]
) -> None:
    runtime = another()
    server.wait_for(lambda: len(server.objects("pods", "testbed-default")) == 9)

    assert runtime.names() == ("default",)
    found = runtime.find("default")
    with OperatorClient(found.address, found.token) as operator:
        assert operator.status().testbed == "default"
    assert ":secret@" in found.store
    assert found.artifacts
    assert runtime.own_log("default") == found.store
    assert "nodes:" in runtime.scenario("default")
    server.wait_for(
        lambda: (
            server.object("pods", "testbed-default", "edge-node-1")["status"]["phase"] == "Running"
        )
    )
    assert runtime.kill("default", 1).name == "node-1"
    # Its namespace is not ours to remove.
    assert runtime.down("default").stopped
    assert server.object("namespaces", "", "testbed-default")
    assert server.objects("statefulsets") == []


def test_the_namespace_of_a_testbed_is_preferred(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    another().up(small_plan(), NAME)
    labels = {"app.kubernetes.io/name": "edge-testbed", "app.kubernetes.io/instance": NAME}
    server.create("namespaces", {"metadata": {"name": GIVEN, "labels": labels}})
    assert another().find(NAME).nodes == 2
    assert server.objects("statefulsets", NAMESPACE)
    another().down(NAME)
    # What is left is the namespace of somebody else, with nothing in it.
    with pytest.raises((UsageError, PermanentError), match=r"incomplete|no testbed"):
        another().find(NAME)
