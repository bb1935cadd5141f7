"""The trainer's Job: started, left alone, failed, and its results kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import PermanentError, TemporaryError, UsageError
from testbed.runtime.kubernetes import ClusterOptions, ClusterRuntime
from testbed.runtime.kubernetes import trainer as started
from testbed.runtime.kubernetes.rendering import RESULTS, RESULTS_PORT, render_results
from testbed.testing.runtime import NAME, small_plan
from tests.api_server import ApiServer
from tests.runtime.kubernetes.conftest import NAMESPACE
from tests.runtime.kubernetes.standin import Controller
from trainer.results_server import server as results_server

TRAINER = {"app.kubernetes.io/component": "trainer"}


def trainers(server: ApiServer) -> list[dict[str, Any]]:
    found = server.objects("pods", NAMESPACE)
    return [each for each in found if TRAINER.items() <= each["metadata"]["labels"].items()]


def names(server: ApiServer) -> list[str]:
    return [each["metadata"]["name"] for each in trainers(server)]


@contextmanager
def talking(
    server: ApiServer, *lines: str, then: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Every trainer's pod says this as soon as it is there; then ``then`` is called."""
    over = threading.Event()

    def talk() -> None:
        said: set[str] = set()
        while not over.wait(0.05):
            for pod in trainers(server):
                if (name := pod["metadata"]["name"]) not in said:
                    server.log(NAMESPACE, name, lines)
                    said.add(name)
                    then()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def up(
    runtime: ClusterRuntime, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClusterRuntime]:
    """A testbed on which trainers work."""
    monkeypatch.setattr(started, "SETTLED_S", 0.0)
    runtime.up(small_plan(), NAME)
    with talking(server, "quickstart, 5 nodes: 100 episodes of ratc"):
        yield runtime


def test_up_again_leaves_a_trainer_alone(up: ClusterRuntime, server: ApiServer) -> None:
    up.start_trainer(NAME, ["--online-episodes", "10"])
    (before,) = trainers(server)

    up.up(small_plan(), NAME)

    (after,) = trainers(server)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    for kind in ("networkpolicies", "serviceaccounts", "jobs"):
        assert server.object(kind, NAMESPACE, "trainer")


def test_one_that_has_ended_is_left_too(up: ClusterRuntime, server: ApiServer) -> None:
    up.start_trainer(NAME, [])
    server.pods_become("succeeded", TRAINER)
    server.wait_for(lambda: server.object("jobs", NAMESPACE, "trainer")["status"]["completionTime"])

    up.up(replace(small_plan(), episodes=9), NAME)

    (pod,) = trainers(server)
    assert list(up.logs(NAME, "trainer")) == ["quickstart, 5 nodes: 100 episodes of ratc"]
    assert pod["status"]["phase"] == "Succeeded"


def test_another_scenario_waits_for_a_trainer_at_work(
    up: ClusterRuntime, server: ApiServer
) -> None:
    up.start_trainer(NAME, [])
    before = server.object("configmaps", NAMESPACE, "scenario")

    with pytest.raises(UsageError, match=r"the trainer of .* is at work.*testbed trainer stop"):
        up.up(replace(small_plan(), episodes=9), NAME)
    assert server.object("configmaps", NAMESPACE, "scenario") == before

    assert up.stop_trainer(NAME)
    up.up(replace(small_plan(), episodes=9), NAME)


def test_it_is_not_started_twice(up: ClusterRuntime) -> None:
    up.start_trainer(NAME, [])
    with pytest.raises(UsageError, match=f"stop it first: testbed trainer stop --name {NAME}"):
        up.start_trainer(NAME, [])


def test_it_learns_where_it_runs_in_a_folder_of_its_own(
    up: ClusterRuntime, server: ApiServer
) -> None:
    up.start_trainer(NAME, ["--episodes", "640"], command="learn")

    (pod,) = trainers(server)
    (container,) = pod["spec"]["containers"]
    assert container["args"] == [
        *("learn", "--out", "/var/lib/edge-testbed/learn", "--json", "--episodes", "640")
    ]
    assert "state" in {each["name"] for each in container["volumeMounts"]}


def test_one_that_cannot_work_says_why_and_is_not_tried_again(
    runtime: ClusterRuntime, server: ApiServer
) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("stuck-creating", TRAINER)
    with (
        talking(
            server,
            "error: /var/lib/edge-testbed/o2o holds results of a different experiment",
            then=lambda: server.pods_become("failed", TRAINER, exit_code=2),
        ),
        pytest.raises(PermanentError, match=r"(?s)exit code 2.*different exp.*-- --anew") as raised,
    ):
        runtime.start_trainer(NAME, [])
    assert raised.value.fix.startswith(f"its log: testbed logs trainer --name {NAME}")
    server.wait_for(lambda: server.object("jobs", NAMESPACE, "trainer")["status"]["conditions"])
    assert len(trainers(server)) == 1

    # What has failed for good does not keep the next from starting.
    server.pods_become("ready", TRAINER)
    with talking(server, "100 episodes of ratc"):
        assert runtime.start_trainer(NAME, ["--anew"]) == "trainer"


def test_what_may_get_better_is_tried_again_and_the_log_is_that_of_the_one_at_work(
    runtime: ClusterRuntime, server: ApiServer
) -> None:
    runtime.up(small_plan(), NAME)

    def fail_once() -> list[str]:
        """The first pod fails; what is made after it works."""
        first = server.wait_for(lambda: names(server))[0]
        server.edit("pods", NAMESPACE, first, {"metadata": {"labels": {"fails": "once"}}})
        server.pods_become("failed", {"fails": "once"}, exit_code=4)
        server.log(NAMESPACE, first, ["some words"])
        server.wait_for(lambda: len(names(server)) == 2)
        (second,) = set(names(server)) - {first}
        server.log(NAMESPACE, second, ["at work"])
        return [first, second]

    with ThreadPoolExecutor(1) as pool:
        pods = pool.submit(fail_once)
        runtime.start_trainer(NAME, [])
        first, second = pods.result()

    phases = {each["metadata"]["name"]: each["status"]["phase"] for each in trainers(server)}
    assert phases == {first: "Failed", second: "Running"}
    assert list(runtime.logs(NAME, "trainer")) == ["at work"]
    assert list(runtime.logs(NAME, first)) == ["some words"]


def test_one_that_is_tried_too_often_is_not_waited_for(
    runtime: ClusterRuntime, server: ApiServer
) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("failed", TRAINER, exit_code=4)
    with (
        talking(server, "the log cannot be reached"),
        pytest.raises(PermanentError, match=r"(?s)has failed as often as .* \(exit code 4\)"),
    ):
        runtime.start_trainer(NAME, [])
    assert len(trainers(server)) == 7


def test_one_that_is_removed_while_it_starts_is_not_waited_for(
    runtime: ClusterRuntime, server: ApiServer
) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("stuck-creating", TRAINER)

    def told(line: str) -> None:
        if trainers(server):
            server.delete("jobs", NAMESPACE, "trainer", propagationPolicy="Background")

    with pytest.raises(TemporaryError, match="was removed while it started"):
        runtime.start_trainer(NAME, [], told)


def test_an_image_that_is_missing_is_said_and_leaves_no_job(
    runtime: ClusterRuntime, server: ApiServer
) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("image-pull-backoff", TRAINER)
    with pytest.raises(PermanentError, match=r"its image edge-testbed/trainer:.* cannot be had"):
        runtime.start_trainer(NAME, [])
    server.wait_for(lambda: not server.objects("jobs", NAMESPACE))


def test_the_log_of_a_pod_that_has_not_started_says_why_there_is_none(
    runtime: ClusterRuntime, server: ApiServer
) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("image-pull-backoff")
    server.delete("pods", NAMESPACE, "edge-node-1")
    server.wait_for(
        lambda: "ImagePullBackOff" in str(server.object("pods", NAMESPACE, "edge-node-1")["status"])
    )
    with pytest.raises(TemporaryError, match=r"node-1 has not started.*its image"):
        list(runtime.logs(NAME, "node-1"))


# --- results ------------------------------------------------------------------------------------


@pytest.fixture
def volume(tmp_path: Path, server: ApiServer) -> Iterator[Path]:
    """What is in the trainer's volume, handed out by the pod that has it."""
    folder = tmp_path / "volume"
    folder.mkdir()
    serving = results_server([folder], 0)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    port = serving.server_address[1]
    server.route(NAMESPACE, f"{RESULTS}-0", RESULTS_PORT, "127.0.0.1", port)
    yield folder
    serving.shutdown()
    serving.server_close()
    thread.join()


def fill(volume: Path) -> None:
    (volume / "report").mkdir()
    (volume / "report" / "index.html").write_text("a report")
    (volume / "network.json").write_text("{}")
    (volume / "curve.csv").write_text("update")
    (volume / "online").mkdir()
    (volume / "online" / "checkpoint").write_text("large")


def test_results_are_fetched_from_the_volume(
    up: ClusterRuntime, server: ApiServer, volume: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no trainer was started"):
        up.fetch_results(NAME, tmp_path / "results")
    up.start_trainer(NAME, [])
    with pytest.raises(UsageError, match="has no results yet"):
        up.fetch_results(NAME, tmp_path / "results")

    fill(volume)
    found = up.fetch_results(NAME, tmp_path / "results")

    assert [each.name for each in found] == ["network.json", "curve.csv", "report"]
    assert (tmp_path / "results" / "report" / "index.html").read_text() == "a report"
    assert not (tmp_path / "results" / "online").exists()
    # The pod for it is gone, and the trainer goes on.
    server.wait_for(
        lambda: all(each["metadata"]["name"] != RESULTS for each in server.objects("statefulsets"))
    )
    assert trainers(server)


def test_results_that_lead_out_of_their_folder_are_refused(
    up: ClusterRuntime, volume: Path, tmp_path: Path
) -> None:
    fill(volume)
    (volume / "report" / "elsewhere").symlink_to(tmp_path)
    up.start_trainer(NAME, [])
    with pytest.raises(PermanentError, match=r"lead out of .*results: .*elsewhere"):
        up.fetch_results(NAME, tmp_path / "results")


def test_results_and_log_outlive_the_testbed(
    up: ClusterRuntime, server: ApiServer, volume: Path, controller: Controller
) -> None:
    fill(volume)
    up.start_trainer(NAME, [])
    server.pods_become("succeeded", TRAINER)
    server.wait_for(lambda: server.object("jobs", NAMESPACE, "trainer")["status"]["completionTime"])

    kept = up.down(NAME).kept

    assert kept is not None
    assert (kept / "trainer" / "report" / "index.html").read_text() == "a report"
    assert list(up.logs(NAME, "trainer")) == ["quickstart, 5 nodes: 100 episodes of ratc"]


def test_a_volume_that_cannot_be_read_keeps_no_testbed_up(
    up: ClusterRuntime, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started, "RESULTS_S", 0.5)
    up.start_trainer(NAME, [])
    server.pods_become("succeeded", TRAINER)
    server.wait_for(lambda: server.object("jobs", NAMESPACE, "trainer")["status"]["completionTime"])
    said: list[str] = []

    assert up.down(NAME, report=said.append).stopped
    assert any("the trainer's report is not kept" in line for line in said)


def test_what_reads_the_volume_is_as_restricted_as_all_pods() -> None:
    rendered = render_results(NAME, options=ClusterOptions(cpu_limits=True))
    pod = rendered["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["cpu"] == "500m"
    assert {volume["name"] for volume in pod["volumes"]} == {"state", "tmp"}
    assert container["command"][2] == results_server.__module__
