"""The manifests that ship with the package: the ones ``kubectl apply -k`` uses, read as documents.

``manifests/`` is a kustomize base with components and overlays. This reads the resources that a
kustomization names; what differs from one testbed to the next is set by ``rendering``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import yaml

BASE: Final = "base"
MYSQL: Final = "components/mysql"
HDFS: Final = "components/hdfs"
TRAINER: Final = "components/trainer"


def load(folders: Sequence[str]) -> list[dict[str, Any]]:
    """Return all objects of these folders of ``manifests``, with the labels they ask for.

    Read again every time, as callers may change them.
    """
    root = resources.files("manifests")
    found = []
    for folder in folders:
        place = root.joinpath(*folder.split("/"))
        kustomization = yaml.safe_load(place.joinpath("kustomization.yaml").read_text("utf-8"))
        labels: dict[str, str] = {}
        for each in kustomization.get("labels", ()):
            labels |= each["pairs"]
        for name in kustomization["resources"]:
            for document in yaml.safe_load_all(place.joinpath(name).read_text("utf-8")):
                if document is not None:
                    metadata = document["metadata"]
                    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
                    found.append(document)
    return found
