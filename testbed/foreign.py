"""Finds out whether another project's package hides one of this project's top-level packages.

``controller``, ``edgenode``, ``trainer`` and ``manifests`` are names that others use too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

from testbed.errors import PrerequisiteMissing

DISTRIBUTION: Final = "edge-testbed"
OWN: Final = ("controller", "edgenode", "trainer", "manifests")
"""Top-level packages beside ``testbed``."""

_FIX: Final = (
    "install edge-testbed into an environment of its own, or take the other folder off PYTHONPATH"
)


def hidden(name: str) -> str | None:
    """Return where another package ``name`` lies that is imported instead of ours, if there is."""
    spec = _spec(name)
    return None if spec is None else _elsewhere(name, spec)


def also_from(name: str) -> tuple[str, ...]:
    """Return the other installed distributions that bring a package ``name``.

    Reads the metadata of all that is installed, which takes a while.
    """
    from importlib import metadata

    brought = metadata.packages_distributions().get(name, ())
    return tuple(sorted({each for each in brought if each.lower() != DISTRIBUTION}))


def problem_of(name: str, *, thorough: bool = False) -> PrerequisiteMissing | None:
    """Return what is wrong with our package ``name``; ``thorough`` reads all metadata too."""
    if (place := hidden(name)) is not None:
        others = also_from(name)
        whose = f" (of {', '.join(others)})" if others else ""
        return PrerequisiteMissing(
            f"{place}{whose} hides the package '{name}' of edge-testbed", _FIX
        )
    if thorough and (others := also_from(name)):
        return PrerequisiteMissing(
            f"{', '.join(others)} installs a package '{name}' too, over that of edge-testbed",
            "install edge-testbed into an environment of its own",
        )
    return None


def refuse(name: str) -> None:
    """Raise if another package is imported instead of ours; a name not of ours is let through.

    Raises: PrerequisiteMissing: names the other package's place.
    """
    if name in OWN and (problem := problem_of(name)) is not None:
        raise problem


class Guard(MetaPathFinder):
    """Stands first among the finders, and refuses to import another project's package as ours."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None, so that the other finders are asked. Raises: PrerequisiteMissing."""
        if path is None:
            refuse(fullname)
        return None


def guard() -> None:
    """From now on, fail where another project's package would be imported as ours."""
    if not any(isinstance(each, Guard) for each in sys.meta_path):
        sys.meta_path.insert(0, Guard())


def _spec(name: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if isinstance(finder, Guard):
            continue
        if (spec := finder.find_spec(name, None)) is not None:
            return spec
    return None


def _elsewhere(name: str, spec: ModuleSpec) -> str | None:
    ours = Path(__file__).resolve().parent.with_name(name)
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    for place in places:
        path = Path(place).resolve()
        if path == ours or ours in path.parents:
            return None
    return places[0] if places else None
