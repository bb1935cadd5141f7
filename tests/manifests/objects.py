"""The objects of the manifests: as they stand in the files, and as kustomize renders them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.services import kustomize

Object = dict[str, Any]

ROOT: Final = Path(__file__).resolve().parents[2]
MANIFESTS: Final = ROOT / "manifests"
PARTS: Final = ("base", "components/mysql", "components/hdfs", "components/trainer")
OVERLAYS: Final = ("kind", "cluster")

WITH_TRAINER: Final = "kind-with-trainer"
"""No overlay that ships, but one as users write it: the overlay ``kind`` and the trainer."""


def kustomization(part: str) -> Object:
    """The kustomization of a folder of the manifests."""
    document: Object = yaml.safe_load((MANIFESTS / part / "kustomization.yaml").read_text())
    return document


def documents(path: Path) -> list[Object]:
    """The documents of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def of_part(part: str) -> list[Object]:
    """The objects that a folder of the manifests names as its resources."""
    return [
        document
        for file in kustomization(part)["resources"]
        for document in documents(MANIFESTS / part / file)
    ]


def shipped() -> list[Object]:
    """The objects of all folders."""
    return [document for part in PARTS for document in of_part(part)]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    (found,) = (each for each in objects if identity(each) == (kind, name))
    return found


def identity(found: Object) -> tuple[str, str]:
    """Kind and name of an object."""
    return found["kind"], found["metadata"]["name"]


def label(found: Object) -> str:
    """How a test is called that is about this object."""
    return "-".join(identity(found))


def workloads(objects: Iterable[Object]) -> Iterator[Object]:
    """What makes pods."""
    return (each for each in objects if each["kind"] in {"StatefulSet", "Job"})


def template(workload: Object) -> Object:
    """The pods of a workload."""
    found: Object = workload["spec"]["template"]
    return found


def containers(workload: Object) -> list[Object]:
    """All containers of a workload's pods."""
    spec = template(workload)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a selector means what has these labels."""
    return selector.items() <= labels.items()


def rendered(overlay: str) -> list[Object]:
    """The objects that ``kubectl apply -k`` applies for an overlay, in its order."""
    if overlay != WITH_TRAINER:
        text = kustomize.render(MANIFESTS / "overlays" / overlay)
    else:
        text = _with_trainer()
    return list(yaml.safe_load_all(text))


def _with_trainer() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # kustomize takes relative paths only, and follows none through a link.
        manifests = Path(os.path.relpath(MANIFESTS, Path(folder).resolve()))
        document = kustomization("overlays/kind")
        for key in ("resources", "components"):
            document[key] = [
                str(manifests / Path(path).relative_to("../..")) for path in document[key]
            ]
        document["components"].append(str(manifests / "components/trainer"))
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return kustomize.render(Path(folder))
