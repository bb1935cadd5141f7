"""Finds schedulers by name: the built-in ones, those of other packages, and ``module:Class``.

Each serves one hook, which is a kind of decision (``testbed.model.hooks``); a name of another hook
is refused. Another package adds a scheduler by an entry point in the group of its hook, which is
``edge_testbed.schedulers`` for those that place tasks. Modules are imported only when a scheduler
of theirs is made or described, so that a node starts quickly.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from typing import Any, Final, TypeVar, cast

from testbed import plugins
from testbed.errors import Problem, TestbedError, UsageError
from testbed.model.hook import PLACE, Hook, HookContext
from testbed.model.hooks import HOOKS
from testbed.model.own_code import LONGEST_CALLED, described, interrupted, shown
from testbed.schedulers.catalogue import SIMULATOR_ONLY, targets

GROUP: Final = HOOKS[PLACE].group
"""The entry point group in which other packages name schedulers that place tasks."""

Made = TypeVar("Made")


def names(hook: str = PLACE) -> tuple[str, ...]:
    """All names that fit a hook: the built-in ones, then those of other packages by name."""
    own = targets(hook)
    return (*own, *sorted(set(_entry_points(HOOKS[hook].group)) - set(own)))


def create(
    name: str, context: HookContext[Made], options: Mapping[str, object] | None = None
) -> Made:
    """Return the scheduler ``name`` for the node of ``context``; ``options`` replace those in it.

    The class of the context says which hook it is for.

    Raises:
        UsageError: unknown name or option, or something under that name that is no scheduler or
            raises when it is made.
    """
    if options is not None:
        context = dataclasses.replace(cast("Any", context), options=dict(options))
    return made_by(find(name, context.hook), name, context)


def made_by(factory: Callable[[Any], Any], name: str, context: HookContext[Made]) -> Made:
    """Return the scheduler that ``factory`` makes for the node of ``context``.

    ``name`` is what messages call it.

    Raises:
        UsageError: an unknown option, or something that is no scheduler or raises when it is made.
    """
    hook = HOOKS[context.hook]
    _check_options(hook, name, factory, context.options)
    try:
        made = factory(context)
        known_as = getattr(made, "name", None)
    except TestbedError:
        raise
    except BaseException as error:
        # Code of other people: whatever it raises, the node and its other schedulers are well.
        if interrupted(error):
            raise
        raise UsageError(
            f"{hook.noun} '{name}' cannot be made: {described(error)}; it is called "
            f"with a {hook.context.__name__}"
        ) from error
    if not isinstance(known_as, str) or not isinstance(made, hook.protocol):
        raise UsageError(
            f"{hook.noun} '{name}' made {shown(made)}, which is no {hook.noun}; it needs an "
            f"attribute `name`, a text, and a method `{hook.method}`{_defined_at(factory)}"
        )
    if len(known_as) > LONGEST_CALLED or not known_as.isprintable():
        raise UsageError(
            f"{hook.noun} '{name}' calls itself {shown(known_as)}; the name is one line of at most "
            f"{LONGEST_CALLED} printable characters{_defined_at(factory)}"
        )
    return cast("Made", made)


def describe(name: str, hook: str = PLACE) -> str:
    """One line about the scheduler ``name``: the first line of its docstring.

    Raises:
        UsageError: unknown name.
    """
    told = inspect.getdoc(find(name, hook))
    lines = told.splitlines() if isinstance(told, str) else []
    return lines[0] if lines else "(not described)"


def problem_of(name: str, hook: str = PLACE) -> str:
    """Return why the scheduler ``name`` cannot be loaded, on one line; empty if it can."""
    try:
        find(name, hook)
    except TestbedError as error:
        return " ".join(str(error).split())
    return ""


def check(name: str, options: Mapping[str, object] | None = None, hook: str = PLACE) -> None:
    """Find out before a run whether ``name`` can be made with ``options``; makes nothing.

    Raises:
        UsageError: unknown name or option, or a name of another hook.
    """
    _check_options(HOOKS[hook], name, find(name, hook), options or {})


def find(name: str, hook: str = PLACE) -> Callable[[Any], Any]:
    """Return the factory of the scheduler ``name``: usually its class.

    It is called with the context of the hook.

    Raises:
        UsageError: unknown name; the message has the known ones and the closest. Or the name of
            what serves another hook; the message has those that fit.
    """
    served = HOOKS[hook]
    target = targets(hook).get(name) or _entry_points(served.group).get(name)
    if target is None:
        if ":" not in name:
            raise _unknown(name, served)
        target = name
    return _load(name, target, served)


def _load(name: str, target: str, hook: Hook[Any]) -> Callable[[Any], Any]:
    found: Any = plugins.load(hook.noun, name, target, "module:Class, importable where it runs")
    if wrong := _no_factory(found, hook):
        raise UsageError(
            f"{hook.noun} '{name}': {target} {wrong}{_defined_at(found)}",
            [
                Problem(
                    "",
                    f"is no {hook.noun}",
                    f"a class with a method {hook.method}, or a function of one",
                )
            ],
        )
    factory: Callable[[Any], Any] = found
    return factory


def _no_factory(found: Any, hook: Hook[Any]) -> str:
    """Return why ``found`` makes nothing for ``hook``, without calling it; empty if it may."""
    if inspect.isclass(found):
        if callable(getattr(found, hook.method, None)):
            return ""
        others = (other for other in HOOKS.values() if callable(getattr(found, other.method, None)))
        if other := next(others, None):
            return (
                f"serves the hook '{other.name}' with its method `{other.method}`; here the hook "
                f"is '{hook.name}', with a method `{hook.method}`"
            )
        return f"has no method `{hook.method}`"
    if not inspect.isfunction(found):
        return "is not a class or function of Python"
    made_from = hook.context.__name__
    try:
        signature = inspect.signature(found)
        signature.bind(None)
    except (TypeError, ValueError):
        return f"cannot be called with a {made_from} alone"
    # Looked at before it is called: `subprocess:run` can be called with anything.
    first = next(iter(signature.parameters.values()))
    if first.kind is first.VAR_POSITIONAL or first.name.strip("_") != "context":
        return f"is no function of a {made_from}: its parameter has to be called context"
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
    hook: Hook[Any], name: str, factory: Callable[[Any], Any], options: Mapping[str, object]
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
        raise UsageError(f"{hook.noun} '{name}' has invalid options", problems)


def _unknown(name: str, hook: Hook[Any]) -> UsageError:
    fitting = names(hook.name)
    if name in SIMULATOR_ONLY and hook.name == PLACE:
        return UsageError(
            f"{hook.noun} '{name}' runs in the simulator only: it uses information that nodes do "
            f"not have; nodes can run {', '.join(fitting)}"
        )
    for other in HOOKS.values():
        if other is not hook and name in names(other.name):
            return UsageError(
                f"'{name}' is a {other.noun}, which serves the hook '{other.name}'; this scenario "
                f"needs a {hook.noun} for the hook '{hook.name}': {', '.join(fitting)}, or "
                "module:Class for one of your own"
            )
    closest = difflib.get_close_matches(name.lower().replace("_", "-"), fitting, n=1, cutoff=0.5)
    hint = f"did you mean '{closest[0]}'? " if closest else ""
    simulated = (
        f"; in the simulator also {' and '.join(SIMULATOR_ONLY)}" if hook.name == PLACE else ""
    )
    return UsageError(
        f"unknown {hook.noun} '{name}'; {hint}Known: {', '.join(fitting)}, or module:Class for one "
        f"of your own{simulated}"
    )


@cache
def _entry_points(group: str) -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=group)}
