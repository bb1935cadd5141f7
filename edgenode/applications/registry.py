"""Finds applications by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from edgenode.applications.seam import Application
from testbed import plugins
from testbed.errors import TestbedError, UsageError
from testbed.model.own_code import described, interrupted

GROUP: Final = "edge_testbed.applications"
"""The entry point group in which other packages name their applications."""

_BUILT_IN: Final[Mapping[str, str]] = {
    "emulated": "edgenode.applications.emulated:Emulated",
    "busy": "edgenode.applications.busy:Busy",
    "matrix": "edgenode.applications.matrix:Matrix",
}


def names() -> tuple[str, ...]:
    """Return all names: the built-in ones, then those of other packages by name."""
    return (*_BUILT_IN, *sorted(set(_entry_points()) - set(_BUILT_IN)))


def check(name: str) -> None:
    """Find out before a run whether there is an application ``name``; makes nothing.

    Raises:
        UsageError: unknown name, or nothing that can be called.
    """
    _find(name)


def create(name: str, options: Mapping[str, Any] | None = None) -> Application:
    """Return the application ``name`` for one node; ``options`` are handed to what makes it.

    Raises:
        UsageError: unknown name, options it does not take, or nothing that can execute tasks.
    """
    found, target = _find(name)
    options = dict(options or {})
    application: Any
    _check_options(name, found, options)
    try:
        if inspect.isclass(found):
            application = found(**options)
        else:
            # Imported here: a run of the built-in applications needs no threads.
            from edgenode.applications.threaded import Function

            application = Function(found, options)
        fine = isinstance(application, Application)
    except TestbedError:
        raise
    except BaseException as error:
        if interrupted(error):
            raise
        raise UsageError(f"application '{name}' cannot be made: {described(error)}") from error
    if not fine:
        raise UsageError(
            f"application '{name}': {target} is not an application; it needs `modelled`, "
            "`needs_payload`, `execute` and `close`, or has to be a function of (task, payload)"
        )
    made: Application = application
    return made


def _check_options(name: str, found: Any, options: Mapping[str, Any]) -> None:
    """Refuse options that what is called does not take, without calling it."""
    arguments = () if inspect.isclass(found) else (None, None)
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise UsageError(f"application '{name}' does not take these options: {error}") from error


def _find(name: str) -> tuple[Any, str]:
    target = _BUILT_IN.get(name)
    if target is None:
        target = name if ":" in name else _entry_points().get(name)
    if target is None:
        raise UsageError(
            f"unknown application '{name}'; known: {', '.join(names())}, "
            "or module:callable for one of your own"
        )
    return _load(name, target), target


def _load(name: str, target: str) -> Any:
    found: Any = plugins.load(
        "application", name, target, "module:callable, importable on the nodes"
    )
    # Whatever is named is looked at before it is called: calling `subprocess:Popen` is too late.
    if not callable(found) or not (inspect.isclass(found) or inspect.isfunction(found)):
        raise UsageError(f"application '{name}': {target} is not a class or function of Python")
    if not inspect.isclass(found) and not _takes(found, "task", "payload"):
        raise UsageError(
            f"application '{name}': {target} is not an application: the first parameters of such a "
            "function are called task and payload"
        )
    if inspect.isclass(found):
        lacking = [
            each for each in ("execute", "close") if not callable(getattr(found, each, None))
        ]
        if lacking:
            raise UsageError(
                f"application '{name}': {target} is not an application: it has no method "
                f"{' and no '.join(lacking)}; it needs `modelled`, `needs_payload`, `execute` and "
                "`close`, or has to be a function of (task, payload)"
            )
        execute = getattr(found, "execute")  # noqa: B009
        if not _takes(execute, "self", "task", "payload", "duration"):
            raise UsageError(
                f"application '{name}': {target} is not an application: its `execute` has to be "
                "`async def execute(self, task, payload, duration)`"
            )
    return found


def _takes(function: Any, *names: str) -> bool:
    """Return whether the first parameters of a function are called so, ``_task`` being ``task``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[: len(names)]
    except (TypeError, ValueError):
        return False
    found = tuple(each.name.strip("_") for each in parameters if each.kind in _POSITIONAL)
    return found == names


_POSITIONAL: Final = frozenset(
    {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
)


def _entry_points() -> dict[str, str]:
    # Imported here: it reads the metadata of every installed package, which takes a while.
    from importlib import metadata

    return {point.name: point.value for point in metadata.entry_points(group=GROUP)}
