"""Getting images into the nodes of a kind cluster: those that are not there yet, and no others.

An image is the same if its id is. An engine that keeps images in containerd calls an image by
another id than a node does, so every node also notes, in its own file system, under which id of the
engine it got what.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.errors import PermanentError, PrerequisiteMissing
from testbed.runtime.base import Report
from testbed.runtime.kind import engine as engines
from testbed.runtime.kind.command import run, stream
from testbed.runtime.kind.engine import KindNode, docker

LOAD_S: Final = 900.0
"""Bound on loading images, gigabytes over a slow disk included."""

LIST: Final = ("crictl", "images", "--output", "json")
"""Command that lists the images of a node, in it."""

NOTE: Final = "/kind/edge-testbed-images.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Images that were loaded into at least one node, and images that all nodes had."""

    loaded: tuple[str, ...]
    present: tuple[str, ...]


def load(cluster: str, nodes: Sequence[KindNode], images: Sequence[str], report: Report) -> Loaded:
    """Make every image be on every node.

    Raises:
        PrerequisiteMissing: the engine has no such image.
        PermanentError: it could not be loaded; says why.
    """
    wanted = identities(images)
    held = {node: _held(node) for node in nodes}
    lacking = {
        image: [node for node in nodes if not held[node].has(image, identity)]
        for image, identity in wanted.items()
    }
    for image, targets in lacking.items():
        if targets:
            report(f"loading {image} into {_count(len(targets))}")
            _load(cluster, image, targets)
            for node in targets:
                _note(node, image, wanted[image])
    return Loaded(
        tuple(image for image, targets in lacking.items() if targets),
        tuple(image for image, targets in lacking.items() if not targets),
    )


def identities(images: Sequence[str]) -> dict[str, str]:
    """Return the engine's ids of these images, by name.

    Raises: PrerequisiteMissing: the engine has not got all of them; names the others.
    """
    found = {image: engines.image_id(image) for image in dict.fromkeys(images)}
    if missing := sorted(image for image, identity in found.items() if identity is None):
        ours = [image for image in missing if image.startswith("edge-testbed/")]
        names = " ".join(image.split("/")[1].split(":")[0] for image in ours)
        others = [f"docker pull {image}" for image in missing if image not in ours]
        fixes = ([f'make images IMAGES="{names}"'] if ours else []) + others
        raise PrerequisiteMissing(
            f"the Docker engine has no {', '.join(missing)}",
            f"{'; '.join(fixes)}; without a network see docs/air-gapped.md",
        )
    return {image: identity for image, identity in found.items() if identity is not None}


@dataclass(frozen=True, slots=True)
class _Held:
    """The images of a node: its id for each tag, and the recorded ones."""

    ids: dict[str, str]
    noted: dict[str, list[str]]

    def has(self, image: str, identity: str) -> bool:
        here = self.ids.get(full_name(image))
        return here is not None and (here == identity or self.noted.get(image) == [identity, here])


def _held(node: KindNode) -> _Held:
    listed = docker("exec", node.name, *LIST)
    ids = {
        tag: str(image["id"])
        for image in json.loads(listed)["images"]
        for tag in image.get("repoTags") or ()
    }
    note = run("docker", "exec", node.name, "cat", NOTE, timeout=engines.ASK_S)
    try:
        noted = json.loads(note.stdout) if note.code == 0 else {}
    except ValueError:
        noted = {}
    return _Held(ids, noted if isinstance(noted, dict) else {})


def _load(cluster: str, image: str, targets: Sequence[KindNode]) -> None:
    names = ",".join(node.name for node in targets)
    said: list[str] = []
    common = ("--name", cluster, "--nodes", names)
    code = stream("kind", "load", "docker-image", image, *common, timeout=LOAD_S, heard=said.append)
    if code and any("content digest" in line for line in said):
        # The engine saves the index of an image of several platforms with the content of one:
        # kubernetes-sigs/kind#3795.
        with tempfile.TemporaryDirectory(prefix="edge-testbed-") as folder:
            archive = str(Path(folder) / "image.tar")
            platform = f"linux/{engines.engine().architecture}"
            saved = run(
                *("docker", "image", "save", "--platform", platform, "--output", archive, image),
                timeout=LOAD_S,
            )
            if saved.code:
                raise PermanentError(
                    f"of {image} the Docker engine cannot save the one platform it has "
                    f"({saved.said})",
                    fix="use Docker 28 or newer, or turn off its image store in containerd",
                )
            said.clear()
            code = stream(
                "kind", "load", "image-archive", archive, *common, timeout=LOAD_S, heard=said.append
            )
    if code:
        text = "\n".join(said)
        if "no space left" in text:
            raise PermanentError(
                f"{image} does not fit on the disk of the Docker engine",
                fix="free some space there: docker system df, docker image prune",
            )
        last = next((line for line in reversed(said) if line.strip()), f"exit code {code}")
        raise PermanentError(f"{image} cannot be loaded into kind cluster '{cluster}': {last}")


def _note(node: KindNode, image: str, identity: str) -> None:
    held = _held(node)
    here = held.ids.get(full_name(image))
    if here is None:
        raise PermanentError(
            f"{image} was loaded into {node.name}, which does not list it",
            fix=f"see docker exec {node.name} crictl images",
        )
    text = json.dumps({**held.noted, image: [identity, here]})
    docker("exec", "--interactive", node.name, "cp", "/dev/stdin", NOTE, stdin=text)


def full_name(image: str) -> str:
    """Return the name with registry and tag by which a node lists an image."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    if at:
        return f"{name}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _count(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"
