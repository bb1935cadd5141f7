"""The compose file: as many nodes as the network has, nothing open to others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from testbed.scenario.load import load
from tests.images.engine import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
NODES = {name: each for name, each in SERVICES.items() if name.startswith("node-")}


def option(node: dict[str, Any], name: str) -> str:
    command = node["command"]
    return str(command[command.index(name) + 1])


def test_there_is_a_node_for_each_of_the_scenario() -> None:
    count = load("paper-testbed").nodes.count

    assert sorted(int(option(node, "--node")) for node in NODES.values()) == list(range(count))


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_known_to_others_by_its_service(name: str) -> None:
    node = NODES[name]

    assert option(node, "--advertise") == name == f"node-{option(node, '--node')}"
    assert option(node, "--controller") == "controller:7440"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"mariadb"}))
def test_what_is_ours_is_contained(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_no_secret_has_a_default() -> None:
    text = json.dumps(SERVICES)

    assert "${TESTBED_MYSQL_PASSWORD:?" in text
    assert "TOKEN:-" not in text
    assert "PASSWORD:-" not in text


@pytest.mark.parametrize("name", ["controller", *NODES])
def test_a_process_sees_its_own_certificate_and_no_other(name: str) -> None:
    service = SERVICES[name]
    (own,) = (
        each
        for each in service["volumes"]
        if not isinstance(each, str) and "credentials" in each["source"].lower()
    )

    assert own["source"] == f"${{CREDENTIALS:-./credentials}}/{name}.pem"
    assert own["read_only"]
    # A file that is missing is said to be, instead of being made as a folder.
    assert own["bind"] == {"create_host_path": False}
    assert service["environment"]["TESTBED_PROCESS_CREDENTIALS"] == own["target"]
    assert "TOKEN" not in json.dumps(service)


def test_requests_come_in_at_a_port_of_this_machine_for_each_node() -> None:
    beside = yaml.safe_load((ROOT / "compose.http.yaml").read_text())["services"]

    assert beside.keys() == NODES.keys()
    ports = set()
    for name, node in beside.items():
        assert node["command"] == [*NODES[name]["command"], "--http", "0.0.0.0:7444"]
        (port,) = node["ports"]
        index = option(node, "--node")
        assert port == f"127.0.0.1:${{HTTP_PORT_{index}:-{8000 + int(index)}}}:7444"
        ports.add(port)
    assert len(ports) == len(NODES)
