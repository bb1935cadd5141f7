"""Imports a user's own code: ``module:Class``, installed or in the folder the process runs in.

That folder is not on ``sys.path``: a ``random.py`` or ``trainer.py`` in it would take the place of
the module that others mean. It is searched after everything else, and only for the module that
was named and for what modules from there import.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


def load(target: str) -> Any:
    """Return what ``module:name`` names; ``name`` may have dots.

    Raises:
        ImportError, AttributeError, ValueError: there is no such module or name.
        Exception: whatever importing the module raises.
    """
    module_name, _, names = target.partition(":")
    # An entry point may name extras: `module:name [extra]`.
    module_name, names = module_name.strip(), names.partition("[")[0].strip()
    top = module_name.partition(".")[0]
    folder = Path.cwd()
    finder = _finder_in(folder)
    finder.wanted.add(top)
    try:
        found: Any = importlib.import_module(module_name)
        for name in names.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        if top not in finder.served and _hidden(folder, top):
            raise AttributeError(
                f"{error}; {top} in {folder} is hidden by an installed module of the same name, "
                "give it another name"
            ) from error
        raise
    return found


class _FolderFinder(MetaPathFinder):
    """Finds top-level modules in one folder, for those that are meant to be found there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wanted: set[str] = set()
        self.served: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec if it was named or is imported by a module from here."""
        if path is not None or (fullname not in self.wanted and not self._asked_from_here()):
            return None
        spec = PathFinder.find_spec(fullname, [str(self.folder)], target)
        if spec is not None:
            self.served.add(fullname)
        return spec

    def _asked_from_here(self) -> bool:
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if not name.startswith(("importlib", "_frozen_importlib")):
                return str(name).partition(".")[0] in self.served
            if frame.f_back is None:
                break
            frame = frame.f_back
        return False


def _finder_in(folder: Path) -> _FolderFinder:
    for each in sys.meta_path:
        if isinstance(each, _FolderFinder) and each.folder == folder:
            return each
    finder = _FolderFinder(folder)
    # Last: after the finders of editable installations, which are at the end themselves.
    sys.meta_path.append(finder)
    return finder


def _hidden(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
