"""Trackers of experiments: what is sent to MLflow, Weights & Biases and programs like them.

The toolkit has no tracker of its own. Another package adds one by an entry point in the group
``edge_testbed.trackers`` that names a class without arguments; ``module:Class`` names one without a
package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Protocol, TypeAlias

from testbed import plugins
from testbed.errors import Problem, UsageError
from testbed.model.own_code import described, interrupted

GROUP: Final = "edge_testbed.trackers"
"""The entry point group in which other packages name their trackers."""

TRACKERS: Final = plugins.Plugins(GROUP, "tracker", {})

Setting: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a tracker is told at the beginning.

    ``name`` is that of the scenario, ``folder`` the one of ``--out``. ``settings`` has everything
    that was chosen, by dotted name (``recipe.offline.steps``). ``continued``: the folder has
    results of this experiment already, and only what comes now is told.
    """

    name: str
    folder: Path
    settings: Mapping[str, Setting]
    continued: bool = False


class Tracker(Protocol):
    """Gets the course of one experiment, in the process that learns, between its steps.

    What it raises in ``begin`` ends the experiment before anything is learned. One that raises
    later is left out from then on; the experiment goes on.
    """

    def begin(self, experiment: Experiment) -> None:
        """Begin to track an experiment; nothing has been called before."""

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of one step.

        ``stage`` and ``step``: ``offline`` and gradient steps; ``online`` and ``online-only`` and
        updates; ``evaluation`` and 0, with the mean success rate of every method. The names are
        those of the columns of ``metrics.csv``.
        """

    def artifact(self, path: Path) -> None:
        """Take a folder with results: the learned policies, or the report."""

    def end(self, failure: str) -> None:
        """End; ``failure`` says why an experiment was not finished, and is empty if it was."""


class Tracking:
    """The trackers of one experiment; a context manager that ends them.

    Args:
        trackers: by name.
        warn: gets a line when a tracker is left out.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker] = MappingProxyType({}),
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._trackers = trackers
        self._warn = warn
        self._begun: dict[str, Tracker] = {}

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failure = "" if error is None else _reason(error)
        self._tell(lambda tracker: tracker.end(failure))

    def begin(self, experiment: Experiment) -> None:
        """Begin all of them.

        Raises: UsageError: one cannot begin.
        """
        for name, tracker in self._trackers.items():
            try:
                tracker.begin(experiment)
            except BaseException as error:
                if interrupted(error):
                    raise
                raise UsageError(f"tracker '{name}' cannot begin: {described(error)}") from error
            self._begun[name] = tracker

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Tell the metrics of one step of a stage."""
        told = {name: float(value) for name, value in values.items()}
        self._tell(lambda tracker: tracker.metrics(stage, step, told))

    def artifact(self, path: Path) -> None:
        """Hand over a folder with results, if it is there."""
        if path.is_dir():
            self._tell(lambda tracker: tracker.artifact(path))

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._begun.items()):
            try:
                tell(tracker)
            except BaseException as error:
                if interrupted(error):
                    raise
                del self._begun[name]
                self._warn(f"tracker '{name}' is left out from now on: {described(error)}")


def open_trackers(names: Sequence[str], warn: Callable[[str], None]) -> Tracking:
    """Return the trackers of these names; none has begun.

    Raises: UsageError: an unknown name, or what it names cannot be made or is no tracker.
    """
    return Tracking({name: _open(name) for name in dict.fromkeys(names)}, warn)


def settings_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Return nested settings by dotted name; what is neither number nor text is JSON."""
    found: dict[str, Setting] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= settings_of(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            found[prefix + name] = value
        else:
            found[prefix + name] = json.dumps(value)
    return found


_METHODS: Final = ("begin", "metrics", "artifact", "end")


def _open(name: str) -> Tracker:
    if ":" not in name and not TRACKERS.names():
        raise UsageError(
            f"unknown tracker '{name}'; no package with one is installed",
            [Problem("--tracker", name, "an entry point, or module:Class of your own")],
        )
    target = name if ":" in name else TRACKERS.check(name)
    found: Any = plugins.load("tracker", name, target, "module:Class, importable here")
    lacking = [each for each in _METHODS if not callable(getattr(found, each, None))]
    if not callable(found) or lacking:
        raise UsageError(
            f"tracker '{name}': {target} is not a tracker",
            [Problem("", f"has no {', no '.join(lacking)}", f"a class with {', '.join(_METHODS)}")],
        )
    try:
        tracker: Tracker = found()
    except BaseException as error:
        if interrupted(error):
            raise
        raise UsageError(f"tracker '{name}' cannot be made: {described(error)}") from error
    return tracker


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return " ".join(str(error).split()) or type(error).__name__
