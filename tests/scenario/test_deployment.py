"""The section ``deployment`` is as strict as the others, and changes nothing about the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.scenario.load import draw, dumps, load, loads, shipped_names, without_deployment

HASHES = {
    "quickstart": "d0ebc88b733d4c25451831f4a8de4cc14f9dbf00e4529e1fb804a0a2f253cf98",
    "paper-simulation": "0962f2b54ae88593f644deb9f5257171c945051e80fe2e8c04b0c73065a57a65",
    "paper-testbed": "d5b977518bb66be240037ca116733b9ec6b04f12b8a41d9e41ac48c104efb498",
    "dfaas": "2425a216fd26a27ca0a4c7292fb21b938143570995913db6252e0bfbe53a47d4",
    "dfaas-split": "ca26551a22aaee5408836eaa412b54ddc76ac0c64d399b4f086950aadbc5d1ba",
    "dfaas-traces": "87962373f1e2861e50721b747e15f615aada21857088719f24b96714135e90a5",
}
"""Of what ships. Stored runs, policies and data sets carry these: they have to stay."""

SECTION = (
    "deployment.images.registry=registry.example.com/lab",
    'deployment.nodeSelector={"zone": "edge"}',
    "deployment.spread=true",
    "deployment.hdfs=false",
    "deployment.kind.workers=2",
    "deployment.nodesPerProcess=4",
    "deployment.transport=grpc",
)


def test_every_shipped_scenario_has_its_hash_pinned() -> None:
    assert set(HASHES) == set(shipped_names())


@pytest.mark.parametrize("name", sorted(HASHES))
def test_hash_and_draws_do_not_see_the_section(name: str) -> None:
    without, having = load(name), load(name, SECTION)

    assert draw(without).scenario_hash == HASHES[name]
    assert draw(having).to_json() == draw(without).to_json()
    assert dumps(without_deployment(having)) == dumps(without)
    assert "deployment" not in dumps(without)


def test_it_is_read_back_as_written() -> None:
    having = load("quickstart", SECTION)
    again = loads(dumps(having)).deployment
    assert again is not None
    assert again == having.deployment
    assert (again.spread, again.hdfs, again.kind.workers) == (True, False, 2)
    assert (again.nodes_per_process, again.transport) == (4, "grpc")
    for text in ("auto", "1"):
        chosen = load("quickstart", [f"deployment.nodesPerProcess={text}"])
        assert loads(dumps(chosen)).deployment == chosen.deployment
        assert f"nodesPerProcess: {text}" in dumps(chosen)


def test_a_file_takes_the_place_of_the_section(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(dumps(load("quickstart", SECTION)))
    (tmp_path / "lab.yaml").write_text("deployment:\n  storageClass: fast\n  cpuLimits: true\n")

    found = load(
        tmp_path / "own.yaml", ["deployment.images.tag=7a"], tmp_path / "lab.yaml"
    ).deployment

    assert found is not None
    assert (found.storage_class, found.cpu_limits, found.images.tag) == ("fast", True, "7a")
    assert (found.spread, found.hdfs, found.images.registry) == (False, True, "")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("deployment.spred=true", "deployment.spred: unknown key; did you mean spread?"),
        ("deployment.kind.workers=99", "deployment.kind.workers: 99 is out of range"),
        ("deployment.nodeSelector.zone=3", "deployment.nodeSelector.zone: 3; allowed: a text"),
        (
            "deployment.nodesPerProcess=0",
            "deployment.nodesPerProcess: 0 is out of range; allowed: `auto` or a whole number",
        ),
        ("deployment.nodesPerProcess=all", "deployment.nodesPerProcess: 'all'"),
        ("deployment.transport=udp", "deployment.transport"),
        ("deployment.hdfs=1", "deployment.hdfs: 1; allowed: true or false"),
        (
            "deployment=spread",
            "deployment: 'spread' is not a mapping; allowed: a mapping of nodesPerProcess",
        ),
        ("deployment.kind.ports=8080:80", "deployment.kind.ports"),
    ],
)
def test_what_cannot_be_meant_is_refused(setting: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load("quickstart", [setting])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        ("", "no keys; allowed: the key deployment alone"),
        ("spread: true\n", "keys spread; allowed: the key deployment alone"),
        ("deployment:\n  spread: true\nnodes: {}\n", "keys deployment, nodes; allowed"),
        ("deployment:\n  spread: yes\n", "lab.yaml:2"),
        ("deployment:\n  speed: true\n", "deployment.speed: unknown key"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "lab.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as refused:
        load("quickstart", (), file)
    assert said in str(refused.value)
