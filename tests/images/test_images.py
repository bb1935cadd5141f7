"""The images: what is in them, how they run, and an episode of a network made of them alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cli.exit_codes import TERMINATED
from testbed.policies import SHIPPED_DEFAULT
from testbed.storage.tasklog import open_task_log
from tests.images.deployment import ARTIFACTS, CONTROLLER, EDGENODE, HDFS, NODES, Deployment
from tests.images.engine import ROOT, base_image, build, docker, has_image
from tests.services import chromium
from tests.services.hdfs import jars
from tests.ui.pages import PATIENCE_S, opened, picture, served

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

SAVE = """
import sys
from testbed.policies import save, shipped
policy = shipped(sys.argv[2])
print(save(sys.argv[1], policy.card, policy.actor))
"""


@pytest.fixture(scope="module")
def images() -> None:
    """The images of this checkout; layers that have not changed are taken as they are."""
    build(
        ["edgenode", "controller", "hdfs"],
        BASE_IMAGE=base_image("base", None),
        JRE_IMAGE=base_image("jre", None),
        HADOOP_JARS=str(jars()),
    )


@pytest.fixture(scope="module")
def deployment(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    mariadb = base_image("mariadb", "mariadb:10.11.13")
    assert mariadb is not None
    deployed = Deployment(tmp_path_factory.mktemp("containers"), mariadb)
    try:
        deployed.start()
        yield deployed
    finally:
        deployed.remove()


def test_an_episode_under_a_policy_from_hdfs_is_in_mariadb(deployment: Deployment) -> None:
    key = deployment.network.once(
        CONTROLLER,
        *("-c", SAVE, ARTIFACTS, SHIPPED_DEFAULT),
        options=("--read-only", "--entrypoint", "python"),
    ).splitlines()[-1]

    with deployment.client() as client:
        deployed = client.deploy_policy(key)
        run = client.start_run(scheduler="drl", episodes=1)
        last = [*client.watch_run(run)][-1]
        status = client.status()

    assert deployed.complete, deployed.failures
    assert last.completed == 1
    assert last.ended > 0
    assert last.lost == 0
    assert {node.address for node in status.nodes} == {"node-0:7441", "node-1:7441"}
    url = deployment.store.replace("@", f":{deployment.password}@", 1)
    with open_task_log(url, create=False) as log:
        tasks = list(log.tasks(run))
        decisions = list(log.decisions(run))
    assert len(tasks) == last.generated
    assert {decision.node for decision in decisions} == {0, 1}
    (scheduler,) = {decision.scheduler for decision in decisions}
    assert scheduler.startswith("drl")
    assert deployed.policy in scheduler


COMMAND = (sys.executable, "-c", "from testbed.cli.main import main; main()")


def environment(deployment: Deployment, home: Path) -> dict[str, str]:
    """The variables by which commands on this host find the containers."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TESTBED_HOME": str(home),
        "TESTBED_CONTROLLER": deployment.controller,
        "TESTBED_CREDENTIALS": str(deployment.operator_file),
        "TESTBED_STORAGE": deployment.store,
        "TESTBED_ARTIFACTS": deployment.artifacts,
        "TESTBED_MYSQL_PASSWORD": deployment.password,
    }


def test_the_command_line_drives_a_controller_by_its_address(
    deployment: Deployment, tmp_path: Path
) -> None:
    variables = environment(deployment, tmp_path)

    def testbed(*arguments: str) -> str:
        run = subprocess.run(
            [*COMMAND, *arguments], env=variables, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    status = json.loads(testbed("status", "--json"))
    run = json.loads(testbed("run", "--scheduler", "ratc", "--json"))
    listed = testbed("runs", "list", "--json")

    assert status["testbed"] == "containers"
    assert status["healthy"]
    assert run["progress"]["ended"] == run["progress"]["generated"] > 0
    assert run["run"] in listed


@pytest.mark.timeout(1200)
def test_containers_learn_and_go_on_after_an_interruption(
    deployment: Deployment, tmp_path: Path
) -> None:
    variables = environment(deployment, tmp_path)
    learn = (
        *(*COMMAND, "learn", "--update", "10", "--gate", "4", "--episodes", "18", "--json"),
        # On a busy machine runs may not be faithful.
        "--include-invalid",
    )

    # Stopped in order when a run begins, and killed in the middle of it.
    for sign, number, code in (
        ("ratc begins with", signal.SIGTERM, TERMINATED),
        ("update 1, ratc", signal.SIGKILL, -signal.SIGKILL),
    ):
        with subprocess.Popen(learn, env=variables, stderr=subprocess.PIPE, text=True) as cut_off:
            assert cut_off.stderr is not None
            told = []
            for line in cut_off.stderr:
                told.append(line)
                if sign in line:
                    cut_off.send_signal(number)
        assert cut_off.returncode == code, told
    before = json.loads((tmp_path / "learn" / "default" / "learn.json").read_text())["runs"]
    again = subprocess.run(learn, env=variables, capture_output=True, text=True, timeout=900)

    assert again.returncode == 0, again.stderr
    assert "going on after" in again.stderr
    document = json.loads(again.stdout)
    assert before
    assert before.items() <= document["runs"].items()
    start, learned = document["curve"]
    assert (start["policy"], learned["policy"][:17]) == ("ratc", "policies/learned-")
    url = deployment.store.replace("@", f":{deployment.password}@", 1)
    with open_task_log(url, create=False) as log:
        (gate,) = (run for what, run in document["runs"].items() if what.startswith("gate 1 "))
        decisions = list(log.decisions(gate))
    # Every node fetched it from HDFS and decided by it.
    assert {decision.node for decision in decisions} == {0, 1}
    (scheduler,) = {decision.scheduler for decision in decisions}
    assert learned["policy"].removeprefix("policies/") in scheduler
    with deployment.client() as client:
        assert document["best"] in ("ratc", client.status().policy)


@pytest.mark.browser
def test_the_page_shows_and_steers_containers(deployment: Deployment, tmp_path: Path) -> None:
    address = ("--controller", deployment.controller)
    variables = {
        "TESTBED_CREDENTIALS": str(deployment.operator_file),
        "TESTBED_STORAGE": deployment.store,
        "TESTBED_MYSQL_PASSWORD": deployment.password,
    }

    with (
        served(tmp_path, *address, **variables) as server,
        chromium.browser() as browser,
        opened(browser, server.address) as page,
    ):
        page.get_by_text(f"{NODES} of {NODES}").wait_for()
        page.get_by_role("button", name="Start run").click()
        page.get_by_label("label, to find").fill("from the page")
        page.get_by_role("button", name="Start", exact=True).click()
        # On a busy machine it may not be faithful, and is invalid then.
        over = re.compile(r"^.*run \S+ is (completed|invalid)")
        page.locator("ol.events").get_by_text(over).wait_for(timeout=2000 * PATIENCE_S)
        picture(page, "containers")

    url = deployment.store.replace("@", f":{deployment.password}@", 1)
    with open_task_log(url, create=False) as log:
        assert "from the page" in {run.info.label for run in log.runs()}


@pytest.mark.parametrize("name", ["node-0", "controller"])
def test_processes_are_contained(deployment: Deployment, name: str) -> None:
    network = deployment.network

    assert network.execute(name, "id", "-u").stdout.strip() == "10001"
    assert "Read-only file system" in network.execute(name, "touch", "/opt/here").stderr
    assert network.execute(name, "python", "-m", "pip").returncode != 0
    processes = network.execute(name, "cat", "/proc/1/cmdline").stdout
    assert "PRIVATE KEY" not in processes
    assert deployment.password not in processes


@pytest.mark.parametrize(
    ("name", "port"), [("node-0", 7442), ("controller", 7442)], ids=["node", "controller"]
)
def test_health_checks_tell_who_serves(deployment: Deployment, name: str, port: int) -> None:
    ask = ("python", "-m", "testbed.rpc.healthcheck")

    serving = deployment.network.execute(name, *ask, f"127.0.0.1:{port}")
    nobody = deployment.network.execute(name, *ask, "127.0.0.1:1")

    assert (serving.returncode, serving.stderr) == (0, f"127.0.0.1:{port}: SERVING\n")
    assert (nobody.returncode, nobody.stderr) == (1, "127.0.0.1:1: UNAVAILABLE\n")


def test_sigterm_ends_a_node_in_order_and_it_comes_back(deployment: Deployment) -> None:
    container = deployment.network.container("node-1")

    docker("stop", "--time", "20", container)
    stopped = deployment.network.state("node-1")
    docker("start", container)
    deployment.wait_until_healthy()

    assert (stopped["Running"], stopped["ExitCode"]) == (False, 0)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("image", [EDGENODE, CONTROLLER, HDFS])
def test_an_image_says_what_it_is_and_how_to_check_it(image: str) -> None:
    (found,) = json.loads(docker("image", "inspect", image))
    config = found["Config"]

    labels = {
        name.removeprefix("org.opencontainers.image."): v for name, v in config["Labels"].items()
    }
    assert {"title", "description", "licenses", "version", "revision"} <= set(labels)
    assert labels["version"] == "test"
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("image", [EDGENODE, CONTROLLER])
def test_an_image_holds_only_what_its_process_needs(image: str) -> None:
    listing = docker("run", "--rm", "--entrypoint", "ls", image, "/opt/edge-testbed", "/opt/venv")
    assert "trainer" not in listing

    base = base_image("base", None)
    packages = docker(
        *("run", "--rm", "--entrypoint", "sh", image, "-c"),
        "ls /opt/venv/lib/python3*/site-packages",
    ).split()

    absent = {
        "ray",
        "torch",
        "pyarrow",
        "pandas",
        "scipy",
        "numba",
        "matplotlib",
        "gymnasium",
        "pip",
    }
    assert absent & set(packages) == set()
    if base is not None and has_image(base):
        size, below = (
            int(docker("image", "inspect", "--format", "{{.Size}}", each)) for each in (image, base)
        )
        assert size - below < 170e6
