"""The commands against pods: as against processes, and found again without being told where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.api import places
from testbed.cli import network
from testbed.runtime.kubernetes import ClusterRuntime, api
from testbed.runtime.kubernetes.bringing_up import Patience
from tests.api_server import CONTEXT, ApiServer
from tests.cli.conftest import Command
from tests.runtime.kubernetes.standin import Controller, controllers_secret

NAMESPACE = "testbed-pods"


@pytest.fixture
def controller() -> Controller:
    """What answers as the controller of the testbed."""
    return Controller("pods", 2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, controller: Controller) -> Iterator[ApiServer]:
    for variable in ("TESTBED_RUNTIME", "TESTBED_CONTEXT", "TESTBED_NAMESPACE", "KUBECONFIG"):
        monkeypatch.delenv(variable, raising=False)
    with (
        ApiServer() as running,
        controller.serving(controllers_secret(running, "pods")),
    ):
        running.route(NAMESPACE, "controller-0", 7440, "127.0.0.1", controller.port)
        yield running


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    return server.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def up(testbed: Command, kubeconfig: Path) -> None:
    said = testbed(
        *("up", "quickstart", "--set", "nodes.count=2", "--name", "pods"),
        *("--runtime", "cluster", "--kubeconfig", kubeconfig),
    )
    assert said.code == 0, said.err
    assert "2 nodes healthy" in said.out


@pytest.mark.usefixtures("up")
def test_later_commands_need_not_be_told_where(testbed: Command, server: ApiServer) -> None:
    status = testbed("status", "--name", "pods", "--json").document
    listed = testbed("ps", "--json").document
    server.log(NAMESPACE, "edge-node-1", ["hello"])
    log = testbed("logs", "1", "--name", "pods", "--json").document
    killed = testbed("kill", "1", "--name", "pods")

    assert status["testbed"] == "pods"
    assert [each["name"] for each in listed] == ["pods"]
    assert log["lines"][-1] == "hello"
    assert (killed.code, killed.out) == (0, "killed node-1\n")


@pytest.mark.usefixtures("up")
def test_status_says_where_it_is_and_who_sits_out_the_run(
    testbed: Command, controller: Controller, kubeconfig: Path
) -> None:
    where = f"context '{CONTEXT}', API server http"
    said = testbed("status", "--name", "pods")
    assert where in said.out
    assert f"namespace {NAMESPACE}" in said.out
    assert "2 of 2 healthy\n" in said.out
    assert testbed("status", "--name", "pods", "--json").document["cluster"].startswith(where)

    controller.runs(dead_nodes=(1,), absences=("node 1 was out from slot 3",))
    said = testbed("status", "--name", "pods")
    assert "2 of 2 healthy; out of the run until its end: node 1" in said.out
    assert "node 1 was out from slot 3" in said.out


@pytest.mark.usefixtures("up")
def test_status_says_how_the_fronts_of_pods_are_reached_from_here(
    testbed: Command, controller: Controller, kubeconfig: Path
) -> None:
    assert "port-forward" not in testbed("status", "--name", "pods").out
    controller.fronts = {1: "10.244.0.7:7444"}

    said = " ".join(testbed("status", "--name", "pods").out.split())

    assert "front 1 http://10.244.0.7:7444/" in said
    assert (
        f"kubectl --kubeconfig {kubeconfig} --context {CONTEXT} --namespace {NAMESPACE} "
        "port-forward pod/edge-node-1 8000:7444 (then http://127.0.0.1:8000/)"
    ) in said


@pytest.mark.usefixtures("up")
def test_a_cluster_that_is_away_does_not_keep_others_from_being_listed(
    testbed: Command, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "LIST_PATIENCE_S", 0.2)
    with server.away():
        said = testbed("ps", "--json")

    assert said.document == []
    assert "does not answer" in said.err


@pytest.mark.usefixtures("up")
def test_another_machine_is_told_where(
    testbed: Command, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "elsewhere"))

    unknown = testbed("status", "--name", "pods")
    found = testbed(
        *("status", "--name", "pods", "--json", "--kubeconfig", kubeconfig, "--context", CONTEXT)
    )
    by_variable = testbed("ps", "--json", "--runtime=cluster", f"--kubeconfig={kubeconfig}")

    assert unknown.code == 2
    assert found.document["testbed"] == "pods"
    assert [each["name"] for each in by_variable.document] == ["pods"]


@pytest.mark.usefixtures("up")
def test_the_context_of_that_day_is_kept(kubeconfig: Path) -> None:
    assert places.noted()["pods"] == places.Place(
        places.CLUSTER, context=CONTEXT, kubeconfig=str(kubeconfig)
    )


@pytest.mark.usefixtures("up")
def test_runs_that_would_be_lost_keep_a_testbed_up(testbed: Command, server: ApiServer) -> None:
    # Nothing answers behind the pod of the task log.
    refused = testbed("teardown", "--name", "pods")
    assert refused.code == 5
    assert "--discard" in refused.err
    assert server.objects("pods", NAMESPACE)

    gone = testbed("teardown", "--name", "pods", "--discard", "--verify", "--json")
    assert gone.code == 0, gone.err
    assert {each["name"] for each in gone.document[0]["stopped"]} >= {"controller", "node-0"}
    assert "nothing of 'pods' is left" in gone.err
    assert server.objects("namespaces") == [] or NAMESPACE not in str(server.objects("namespaces"))
    assert places.noted() == {}
    assert testbed("teardown", "--name", "pods", "--json").code == 0


def test_one_that_never_came_up_needs_no_leave_to_go(
    testbed: Command, kubeconfig: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = ClusterRuntime.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "patience", Patience(hopeless_s=0.2))
    server.pods_become("image-pull-backoff", {"app.kubernetes.io/component": "mysql"})
    said = testbed(
        *("up", "quickstart", "--name", "pods", "--keep-on-failure", "--set", "nodes.count=2"),
        *("--runtime", "cluster", "--kubeconfig", kubeconfig),
    )
    assert said.code == 5

    gone = testbed("teardown", "--name", "pods", "--verify")

    assert gone.code == 0, gone.err
    assert "never came up" in gone.err


@pytest.mark.usefixtures("up")
def test_scale_draws_the_network_anew_and_keeps_the_rest(
    testbed: Command, server: ApiServer
) -> None:
    said = testbed("scale", "4", "--name", "pods")

    assert said.code == 0, said.err
    scenario = server.object("configmaps", NAMESPACE, "scenario")["data"]["scenario.yaml"]
    assert "count: 4" in scenario
    assert server.object("statefulsets", NAMESPACE, "edge-node")["spec"]["replicas"] == 4


@pytest.mark.usefixtures("up")
def test_a_deployment_that_says_the_same_changes_nothing(
    testbed: Command, server: ApiServer, kubeconfig: Path, tmp_path: Path
) -> None:
    cluster = ("--runtime", "cluster", "--kubeconfig", kubeconfig, "--name", "pods")
    again = ("up", "quickstart", "--set", "nodes.count=2", *cluster)
    file = tmp_path / "lab.yaml"
    file.write_text("deployment:\n  nodeSelector: {zone: edge}\n  cpuLimits: true\n")

    def versions() -> dict[str, int]:
        return {
            each["metadata"]["name"]: each["metadata"]["generation"]
            for each in server.objects("statefulsets", NAMESPACE)
        }

    def edge_node() -> dict[str, object]:
        found = server.object("statefulsets", NAMESPACE, "edge-node")["spec"]["template"]["spec"]
        assert isinstance(found, dict)
        return found

    first = versions()
    assert testbed(*again).code == 0
    assert versions() == first

    by_file = testbed(*again, "--deployment", file)
    assert by_file.code == 0, by_file.err
    assert edge_node()["nodeSelector"] == {"zone": "edge"}
    changed = versions()
    assert changed["edge-node"] > first["edge-node"]

    by_flags = testbed(*again, "--node-selector", "zone=edge", "--cpu-limits")
    assert by_flags.code == 0, by_flags.err
    assert versions() == changed
    # Without a section, what it has is kept.
    assert testbed(*again).code == 0
    assert versions() == changed
    scenario = server.object("configmaps", NAMESPACE, "scenario")["data"]["scenario.yaml"]
    assert "deployment" not in scenario


def test_scale_is_not_for_processes(testbed: Command) -> None:
    said = testbed("scale", "4")
    assert said.code == 2
    assert "--set nodes.count=4" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--spread"], "--spread: is given; only with --runtime kind or cluster"),
        (["--set", "deployment.spread=true"], "--set deployment.spread: is given; only with"),
        (["--deployment", "lab.yaml"], "--deployment: is given; only with --runtime kind or"),
        (["--workers", "2", "--runtime", "local"], "--workers: is given; only with --runtime kind"),
        (["--runtime", "cluster", "--workers", "2"], "--workers: is given; only with --runtime ki"),
        (["--runtime", "kind", "--context", "x"], "only with --runtime cluster"),
        (["--runtime", "swarm"], "unknown runtime 'swarm'; known: local, kind, cluster"),
    ],
)
def test_options_that_do_not_go_together(
    testbed: Command, kubeconfig: Path, arguments: list[str], said: str
) -> None:
    refused = testbed("up", "quickstart", *arguments)
    assert refused.code == 2
    assert said in " ".join(refused.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "100"], "No such option: --steps"),
        (["--online-episodes", "many"], "--online-episodes"),
        (["paper-testbed"], "extra argument"),
        (["--simulate"], "--simulate: is given; the trainer uses the nodes"),
        (["--out", "here"], "--out: is given; results go into the trainer's volume"),
        (["--learn", "--", "--online-episodes", "9"], "No such option: --online-episodes"),
        (["--learn", "--", "paper-testbed"], "SCENARIO: is given; the scenario is that of"),
        (["--learn", "--", "--simulate"], "to simulate: testbed learn --simulate"),
    ],
)
def test_wrong_options_of_the_trainer_are_refused_before_it_is_started(
    testbed: Command, kubeconfig: Path, server: ApiServer, options: list[str], said: str
) -> None:
    own = ["--learn"] if options[0] == "--learn" else []
    given = options[2:] if own else options
    refused = testbed(
        *("trainer", "start", "--context", CONTEXT, "--kubeconfig", kubeconfig, *own, "--", *given)
    )
    assert refused.code == 2
    assert said in " ".join(refused.err.replace("│", " ").split())
    assert server.requests == []


@pytest.mark.usefixtures("up")
def test_a_trainer_that_was_never_started_has_no_results(testbed: Command) -> None:
    said = testbed("trainer", "fetch", "--name", "pods")
    assert (said.code, said.out) == (2, "")
    assert "no trainer was started on 'pods'" in said.err


def test_without_a_cluster_it_says_what_to_do(testbed: Command, tmp_path: Path) -> None:
    said = testbed("up", "quickstart", "--runtime", "cluster", "--kubeconfig", tmp_path / "none")
    assert said.code == 3
    assert "--kubeconfig" in said.err
    assert places.noted() == {}


def test_a_file_as_task_log_is_refused_before_anything_is_made(
    testbed: Command, kubeconfig: Path, server: ApiServer
) -> None:
    said = testbed(
        *("up", "quickstart", "--kubeconfig", kubeconfig, "--context", CONTEXT),
        *("--storage", "mine.sqlite"),
    )
    assert said.code == 2
    assert "pods cannot use a file" in said.err
    assert [each for each in server.requests if each.method in ("PATCH", "PUT")] == []
    assert json.dumps(server.objects("statefulsets")) == "[]"


def test_doctor_looks_at_the_cluster_that_is_named(
    testbed: Command, kubeconfig: Path, server: ApiServer
) -> None:
    def found() -> dict[str, str]:
        said = testbed("doctor", "--json", "--kubeconfig", kubeconfig, "--context", CONTEXT)
        return {each["check"]: each["seen"] for each in said.document["findings"]}

    assert found()["cluster"].startswith("Kubernetes v1.")
    server.forbid("delete", "pods")
    assert "delete pods" in found()["cluster"]


def test_a_failed_up_is_forgotten(testbed: Command, kubeconfig: Path, server: ApiServer) -> None:
    server.forbid("patch", "services")
    said = testbed("up", "quickstart", "--kubeconfig", kubeconfig, "--context", CONTEXT)
    assert said.code == 3
    assert "patch services" in said.err
    assert places.noted() == {}


@pytest.mark.usefixtures("up")
def test_the_log_of_the_home_is_said_to_be_that_where_the_testbeds_cannot_be_had(
    testbed: Command, server: ApiServer
) -> None:
    server.delete("statefulsets", NAMESPACE, "controller")
    assert testbed("sim", "quickstart", "-s", "local", "-e", "1").code == 0
    said = testbed("runs", "list", "--name", "pods")
    assert said.code == 0
    assert "testbed 'pods' is incomplete" in said.err
    assert "so this is the task log of the home" in said.err
    assert "testbed compare --name pods" in said.err
    named = testbed("runs", "list")
    assert "the task log of the home" not in named.err
    assert "--name" not in named.err


@pytest.mark.usefixtures("up")
def test_a_request_without_an_answer_is_mentioned(
    testbed: Command, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "SLOW_S", 0.1)
    with server.slow(1.0, verb="get", resource="statefulsets"):
        said = testbed("status", "--name", "pods")
    assert said.code == 0
    assert "has not answered for 0 s (get statefulsets.apps/controller" in said.err
