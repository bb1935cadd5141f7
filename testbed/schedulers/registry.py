"""Finds schedulers by name: the built-in ones, those of other packages, and ``module:Class``.

Another package adds a scheduler by an entry point in the group ``edge_testbed.schedulers``. Modules
are imported only when a scheduler of theirs is made or described, so that a node starts quickly.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from typing import Any, Final

from testbed import plugins
from testbed.errors import Problem, TestbedError, UsageError
from testbed.model.decision import Scheduler, SchedulerContext
from testbed.model.own_code import LONGEST_CALLED, described, interrupted, shown
from testbed.schedulers.catalogue import SIMULATOR_ONLY, TARGETS

GROUP: Final = "edge_testbed.schedulers"
"""The entry point group in which other packages name their schedulers."""


def names() -> tuple[str, ...]:
    """All names a node can be given: the built-in ones, then those of other packages by name."""
    return (*TARGETS, *sorted(set(_entry_points()) - set(TARGETS)))


def create(
    name: str, context: SchedulerContext, options: Mapping[str, object] | None = None
) -> Scheduler:
    """Return the scheduler ``name`` for the node of ``context``; ``options`` replace those in it.

    Raises:
        UsageError: unknown name or option, or something under that name that is no scheduler or
            raises when it is made.
    """
    if options is not None:
        context = dataclasses.replace(context, options=dict(options))
    return made_by(find(name), name, context)


def made_by(
    factory: Callable[[SchedulerContext], Any], name: str, context: SchedulerContext
) -> Scheduler:
    """Return the scheduler that ``factory`` makes for the node of ``context``.

    ``name`` is what messages call it.

    Raises:
        UsageError: an unknown option, or something that is no scheduler or raises when it is made.
    """
    _check_options(name, factory, context.options)
    try:
        scheduler = factory(context)
        known_as = getattr(scheduler, "name", None)
    except TestbedError:
        raise
    except BaseException as error:
        # Code of other people: whatever it raises, the node and its other schedulers are well.
        if interrupted(error):
            raise
        raise UsageError(
            f"scheduler '{name}' cannot be made: {described(error)}; it is called "
            "with a SchedulerContext"
        ) from error
    if not isinstance(known_as, str) or not isinstance(scheduler, Scheduler):
        raise UsageError(
            f"scheduler '{name}' made {shown(scheduler)}, which is no scheduler; it needs an "
            f"attribute `name`, a text, and a method `decide`{_defined_at(factory)}"
        )
    if len(known_as) > LONGEST_CALLED or not known_as.isprintable():
        raise UsageError(
            f"scheduler '{name}' calls itself {shown(known_as)}; the name is one line of at most "
            f"{LONGEST_CALLED} printable characters{_defined_at(factory)}"
        )
    return scheduler


def describe(name: str) -> str:
    """One line about the scheduler ``name``: the first line of its docstring.

    Raises:
        UsageError: unknown name.
    """
    told = inspect.getdoc(find(name))
    lines = told.splitlines() if isinstance(told, str) else []
    return lines[0] if lines else "(not described)"


def problem_of(name: str) -> str:
    """Return why the scheduler ``name`` cannot be loaded, on one line; empty if it can."""
    try:
        find(name)
    except TestbedError as error:
        return " ".join(str(error).split())
    return ""


def check(name: str, options: Mapping[str, object] | None = None) -> None:
    """Find out before a run whether ``name`` can be made with ``options``; makes nothing.

    Raises:
        UsageError: unknown name or option.
    """
    _check_options(name, find(name), options or {})


def find(name: str) -> Callable[[SchedulerContext], Any]:
    """Return the factory of the scheduler ``name``: usually its class.

    Raises:
        UsageError: unknown name; the message has the known ones and the closest.
    """
    target = TARGETS.get(name) or _entry_points().get(name)
    if target is None:
        if ":" not in name:
            raise _unknown(name)
        target = name
    return _load(name, target)


def _load(name: str, target: str) -> Callable[[SchedulerContext], Any]:
    found: Any = plugins.load("scheduler", name, target, "module:Class, importable where it runs")
    if wrong := _no_factory(found):
        raise UsageError(
            f"scheduler '{name}': {target} {wrong}{_defined_at(found)}",
            [Problem("", "is no scheduler", "a class with a method decide, or a function of one")],
        )
    factory: Callable[[SchedulerContext], Any] = found
    return factory


def _no_factory(found: Any) -> str:
    """Return why ``found`` makes no scheduler, without calling it; empty if it may."""
    if inspect.isclass(found):
        return "" if callable(getattr(found, "decide", None)) else "has no method `decide`"
    if not inspect.isfunction(found):
        return "is not a class or function of Python"
    try:
        signature = inspect.signature(found)
        signature.bind(None)
    except (TypeError, ValueError):
        return "cannot be called with a SchedulerContext alone"
    # Looked at before it is called: `subprocess:run` can be called with anything.
    first = next(iter(signature.parameters.values()))
    if first.kind is first.VAR_POSITIONAL or first.name.strip("_") != "context":
        return "is no function of a SchedulerContext: its parameter has to be called context"
    return ""


def _defined_at(factory: object) -> str:
    """Return `` (FILE:LINE)`` of a class or function; empty where there is no source."""
    try:
        found = inspect.unwrap(factory) if callable(factory) else factory
        file, (_, line) = inspect.getsourcefile(found), inspect.getsourcelines(found)  # type: ignore[arg-type]
    except (OSError, TypeError, ValueError, SyntaxError, RecursionError, SystemError):
        # The last one: in a thread, Python 3.11 loses count when it parses the source.
        return ""
    return f" ({file}:{line})"


def declared_options(factory: object) -> Mapping[str, str] | None:
    """Return the options that a scheduler declares, by name; None if it accepts any."""
    declared = getattr(factory, "OPTIONS", None)
    return declared if isinstance(declared, Mapping) else None


def _check_options(
    name: str, factory: Callable[[SchedulerContext], Any], options: Mapping[str, object]
) -> None:
    """Refuse options the scheduler does not declare; one without OPTIONS accepts any."""
    declared = declared_options(factory)
    if declared is None:
        return
    known = ", ".join(f"{option} ({meaning})" for option, meaning in declared.items())
    problems = [
        Problem(option, "unknown option", f"known: {known}" if known else "it has no options")
        for option in options
        if option not in declared
    ]
    if problems:
        raise UsageError(f"scheduler '{name}' has invalid options", problems)


def _unknown(name: str) -> UsageError:
    if name in SIMULATOR_ONLY:
        return UsageError(
            f"scheduler '{name}' runs in the simulator only: it uses information that nodes do "
            f"not have; nodes can run {', '.join(names())}"
        )
    closest = difflib.get_close_matches(name.lower().replace("_", "-"), names(), n=1, cutoff=0.5)
    hint = f"did you mean '{closest[0]}'? " if closest else ""
    return UsageError(
        f"unknown scheduler '{name}'; {hint}Known: {', '.join(names())}, or module:Class for one "
        f"of your own; in the simulator also {' and '.join(SIMULATOR_ONLY)}"
    )


@cache
def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=GROUP)}
