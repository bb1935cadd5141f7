"""Implementations of a seam by name: built-in ones, and those of other packages.

Another package names one in its metadata, as an entry point in the group of the seam. Modules are
imported only when something of theirs is asked for, so that a process starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed import importing
from testbed.errors import Problem, TestbedError, UsageError
from testbed.model.own_code import described, interrupted, raised_at


class Plugins:
    """The implementations of one seam.

    Args:
        group: entry point group in which other packages name theirs.
        what: one of them, for messages (``runtime``).
        built_in: ``module:name`` of those of this package, by name. Their names cannot be taken.
    """

    def __init__(self, group: str, what: str, built_in: Mapping[str, str]) -> None:
        self.group = group
        self.what = what
        self.built_in = built_in

    def names(self) -> tuple[str, ...]:
        """Return all names: the built-in ones, then those of other packages in order."""
        return (*self.built_in, *sorted(set(self.others()) - set(self.built_in)))

    def target(self, name: str) -> str | None:
        """Return the ``module:name`` behind a name; None if nobody has named it."""
        return self.built_in.get(name) or self.others().get(name)

    def find(self, name: str) -> Any:
        """Return what stands under ``name``.

        Raises: UsageError: the name is unknown, or what it names cannot be imported.
        """
        return load(self.what, name, self.check(name), "module:name, importable here")

    def check(self, name: str) -> str:
        """Return the ``module:name`` behind a name, and import nothing.

        Raises: UsageError: the name is unknown.
        """
        target = self.target(name)
        if target is None:
            known = ", ".join(self.names())
            raise UsageError(f"unknown {self.what} '{name}'; known: {known}")
        return target

    def problem_of(self, name: str) -> str:
        """Return why ``name`` cannot be loaded, on one line; empty if it can."""
        try:
            self.find(name)
        except TestbedError as error:
            return " ".join(str(error).split())
        return ""

    def others(self) -> dict[str, str]:
        """Return the ``module:name`` of those that installed packages name, by name."""
        # Imported here: it reads the metadata of every installed package, which takes a while.
        from importlib import metadata

        return {point.name: point.value for point in metadata.entry_points(group=self.group)}


def load(what: str, name: str, target: str, allowed: str) -> Any:
    """Import ``target`` (``module:name``), the ``what`` that is called ``name``.

    Raises: UsageError: there is no such module or name, or importing it raises something.
    """
    try:
        return importing.load(target)
    except BaseException as error:
        # Code of other people: whatever it raises, this process and its other plugins are well.
        if interrupted(error):
            raise
        if isinstance(error, ImportError | AttributeError | ValueError) and not raised_at(error):
            raise UsageError(
                f"{what} '{name}' cannot be loaded from {target}: {error}",
                [Problem("", "no such module or name", allowed)],
            ) from error
        raise UsageError(
            f"{what} '{name}' cannot be loaded: importing {target.partition(':')[0]} raises "
            f"{described(error)}"
        ) from error
