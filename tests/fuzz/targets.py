"""What is fuzzed in its own process: each target takes bytes and raises nothing but our errors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testbed.errors import TestbedError


@dataclass(frozen=True, slots=True)
class Target:
    """``make`` returns the function to be fuzzed and valid inputs to begin with.

    ``length`` is the most bytes of an input, ``inputs`` how many are tried in a test.
    """

    name: str
    make: Callable[[], tuple[Callable[[bytes], None], Sequence[bytes]]]
    length: int
    inputs: int = 10_000


def _refusing(read: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """``read``, which may refuse its input by an error for users, and by nothing else."""

    def once(data: bytes) -> None:
        try:
            read(data)
        except TestbedError:
            return

    return once


def _scenario() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    from testbed.scenario.load import draw, loads, shipped_names, shipped_text

    def read(data: bytes) -> None:
        scenario = loads(data.decode("utf-8", "surrogateescape"))
        if scenario.nodes.count <= 20:
            draw(scenario)

    small = b"""apiVersion: edge-testbed/v1
kind: Scenario
metadata: {name: a}
nodes: {count: 2, cores: [2, 4], clock: 1GHz, arrivalProbability: 0.5, failureRate: 0}
links: {rate: {uniform: [1MB/s, 2MB/s]}, failureRate: 0}
tasks: {size: 50KB, complexity: 400, deadline: 600ms}
slots: {count: 4, length: 100ms}
"""
    return _refusing(read), [small, *(shipped_text(name).encode() for name in shipped_names())]


def _card() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    from testbed.policies import PolicyCard

    def read(data: bytes) -> None:
        card = PolicyCard.from_json(data)
        assert PolicyCard.from_json(card.to_json()) == card

    cards = []
    for kind, nodes in (("flat", 3), ("per-destination", None)):
        card = PolicyCard.describe(
            "fuzzed",
            b"actor",
            kind=kind,  # type: ignore[arg-type]
            encoder="paper-v1",
            nodes=nodes,
            overload={"measure": "queueLength", "limit": 2},
            parents=("a-0123456789ab",),
            evaluation={"success": 0.9},
        )
        cards.append(card.to_json().encode())
    return _refusing(read), cards


KEY: Final = "policies/fuzzed"
FILES: Final = {"policy.json": b"{}", "actor.onnx": b"x" * 20}


def _manifest() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    from testbed.storage.artifacts.base import MANIFEST, manifest_of
    from testbed.storage.artifacts.folder import FolderArtifactStore

    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    store = FolderArtifactStore(root)
    store.put(KEY, FILES)

    def read(data: bytes) -> None:
        (root / KEY / MANIFEST).write_bytes(data)
        store.get(KEY)

    return _refusing(read), [manifest_of(FILES), manifest_of({"a": b""})]


def _policies() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    """A folder with a policy whose card is anything at all, as `policy list` and nodes read it."""
    from testbed.policies import CARD, artifact, shipped

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    policy = shipped()
    artifact.write_folder(folder, policy.card, policy.actor)

    def read(data: bytes) -> None:
        (folder / CARD).write_bytes(data)
        artifact.load_folder(folder)

    return _refusing(read), [policy.card.to_json().encode()]


def _data_set(name: str) -> Callable[[], tuple[Callable[[bytes], None], Sequence[bytes]]]:
    def make() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
        from testbed.storage.dataset import load, validate, write_data_set
        from testbed.storage.folders import METADATA
        from tests.storage.test_data_set_files import CONTENT, SEQUENCES

        folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / "set"
        write_data_set(folder, CONTENT, SEQUENCES[:3])
        path = folder / (name or METADATA)
        valid = path.read_bytes()

        def read(data: bytes) -> None:
            path.write_bytes(data)
            load(folder, verify=False)
            validate(folder)

        return _refusing(read), [valid]

    return make


VALUES: Final = (b"null", b"-1", b"1e400", b'"x"', b"[]", b"{}", b"true", b"0.5", b"[[1]]", b"1e18")


def _replaced(document: dict[str, Any], data: bytes) -> dict[str, Any]:
    """``document`` with one value, which the first byte chooses, replaced by the JSON that follows.

    Without JSON the value is left out. What is replaced in a mapping is one of its own values.
    """
    changed = dict(document)
    if not data:
        return changed
    keys = sorted(document)
    key = keys[data[0] % len(keys)]
    inner = document[key]
    if isinstance(inner, dict) and inner and data[0] >= 128:
        changed[key] = _replaced(inner, data[1:])
        return changed
    try:
        changed[key] = json.loads(data[1:])
    except (ValueError, RecursionError):
        changed.pop(key)
    return changed


def _examples() -> list[bytes]:
    return [bytes([number]) + value for number in range(0, 256, 5) for value in VALUES]


def _data_set_values() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    """Metadata whose values are replaced one by one, by JSON of all kinds."""
    from testbed.storage.dataset import load, write_data_set
    from testbed.storage.folders import METADATA
    from tests.storage.test_data_set_files import CONTENT, SEQUENCES

    folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / "set"
    write_data_set(folder, CONTENT, SEQUENCES[:1])
    document = json.loads((folder / METADATA).read_text())

    def read(data: bytes) -> None:
        (folder / METADATA).write_text(json.dumps(_replaced(document, data)))
        load(folder)

    return _refusing(read), _examples()


def _card_values() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    """A card whose values are replaced one by one, by JSON of all kinds."""
    from testbed.policies import PolicyCard, shipped

    document = json.loads(shipped().card.to_json())

    def read(data: bytes) -> None:
        PolicyCard.from_json(json.dumps(_replaced(document, data)))

    return _refusing(read), _examples()


def _manifest_values() -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    """A manifest whose values are replaced one by one, as a store reads it."""
    from testbed.storage.artifacts.base import MANIFEST
    from testbed.storage.artifacts.folder import FolderArtifactStore

    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    store = FolderArtifactStore(root)
    store.put(KEY, FILES)
    document = json.loads((root / KEY / MANIFEST).read_text())

    def read(data: bytes) -> None:
        (root / KEY / MANIFEST).write_text(json.dumps(_replaced(document, data)))
        store.get(KEY)

    return _refusing(read), _examples()


TARGETS: Final = {
    each.name: each
    for each in (
        Target("scenario", _scenario, 4096),
        Target("card", _card, 4096),
        Target("policy", _policies, 4096),
        Target("card-values", _card_values, 64),
        Target("manifest", _manifest, 2048),
        Target("manifest-values", _manifest_values, 64),
        Target("data-set-metadata", _data_set(""), 4096),
        Target("data-set-values", _data_set_values, 64, 3_000),
        Target("data-set-transitions", _data_set("transitions.parquet"), 16384),
    )
}
