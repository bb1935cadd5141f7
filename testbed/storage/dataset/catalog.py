"""Data sets side by side in a folder: which there are, and what each is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.errors import UsageError
from testbed.storage.dataset.format import KIND
from testbed.storage.folders import PARTIAL, read_metadata


def list_data_sets(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return all data sets directly in ``root`` with their metadata, oldest first.

    Folders that hold something else, or are still being written, are not among them.
    """
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        if PARTIAL in folder.name or not folder.is_dir():
            continue
        try:
            found.append((folder, read_metadata(folder, KIND)))
        except UsageError:
            continue
    return sorted(found, key=lambda each: (str(each[1].get("created")), each[0].name))


def show(folder: Path) -> dict[str, Any]:
    """Return the metadata of the data set in ``folder``.

    Raises:
        UsageError: there is none.
    """
    return read_metadata(folder, KIND)


def brief(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a data set from others, by name, from its metadata."""
    counts = metadata.get("counts", {})
    return {
        "scenario": metadata.get("scenario"),
        "encoder": metadata.get("encoder"),
        "nodes": metadata.get("nodes"),
        "episodes": counts.get("episodes"),
        "rows": counts.get("rows"),
        "behaviour": ", ".join(
            f"{name} ({rows} rows)" for name, rows in metadata["behaviour_policies"].items()
        ),
        "created": metadata.get("created"),
    }
