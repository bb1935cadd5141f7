"""Scenario files by name or path: the only way from a file to a ``ScenarioFile``.

Whatever is wrong with a file ends as one ``UsageError`` with all problems.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from testbed.errors import Problem, UsageError
from testbed.scenario import document, strict
from testbed.scenario.check import FAMILIES, check
from testbed.scenario.plan import SUCCESS_RATE, TASKS, PlanHead
from testbed.scenario.schema import ScenarioFile

_SHIPPED: Final = resources.files("testbed.scenario") / "shipped"
_ORDER: Final = (
    *("quickstart", "paper-simulation", "paper-testbed"),
    *("dfaas", "dfaas-split", "dfaas-traces"),
)


_LATER: Final = {"model": TASKS, "objective": SUCCESS_RATE}
"""Keys that came later, with their defaults: left out then, as in texts of earlier releases."""


def load(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    deployment: str | Path | None = None,
) -> ScenarioFile:
    """Return the scenario of a shipped name or a YAML file, with ``key.path=value`` overrides.

    A text without a slash and without ``.yaml`` or ``.yml`` at its end is a shipped name, unless
    only a file has that name. ``deployment`` is a file with a section ``deployment:``, which takes
    the place of the scenario's.

    Raises: UsageError with every problem found, each with its path in the file.
    """
    name = str(name_or_path)
    raw, where = _read(name)
    try:
        data = document.parse(raw, where)
    except document.DocumentError as error:
        raise UsageError(f"cannot read scenario {name}", error.problems) from None
    if deployment is not None and isinstance(data, dict):
        data["deployment"] = _deployment(Path(deployment))
    return _checked(data, overrides, name)


def without_deployment(scenario: ScenarioFile) -> ScenarioFile:
    """Return ``scenario`` without the section that changes nothing about the network."""
    return scenario.model_copy(update={"deployment": None})


def draw(scenario: ScenarioFile, **changes: Any) -> PlanHead:
    """Return the plan of a run of ``scenario``, whatever its model.

    ``changes`` go before what the file says; they are those of ``testbed.scenario.resolve.plan``.
    """
    return FAMILIES.of(scenario).plan(scenario, **changes)


def warnings(scenario: ScenarioFile) -> list[str]:
    """Return what ``scenario`` says that is allowed, but perhaps not meant."""
    return list(FAMILIES.of(scenario).warnings(scenario))


def loads(text: str, overrides: Sequence[str] = ()) -> ScenarioFile:
    """Return the scenario in the YAML ``text``; as ``load``."""
    try:
        data = document.parse(text.encode("utf-8", "surrogatepass"), "scenario")
    except document.DocumentError as error:
        raise UsageError("cannot read the scenario", error.problems) from None
    return _checked(data, overrides, "")


def dumps(scenario: ScenarioFile) -> str:
    """Return the complete scenario as YAML, with defaults and overrides; ``loads`` reads it."""
    data = scenario.document()
    for name, usual in _LATER.items():
        if data[name] == usual:
            del data[name]
    return yaml.dump(data, Dumper=strict.Dumper, sort_keys=False, allow_unicode=True, width=100)


def shipped() -> list[tuple[str, str]]:
    """Name and description of every scenario that ships with the package."""
    return [(name, load(name).metadata.description) for name in shipped_names()]


def shipped_names() -> list[str]:
    """Names of the scenarios that ship with the package, the simplest first."""
    names = {
        entry.name.removesuffix(".yaml")
        for entry in _SHIPPED.iterdir()
        if entry.name.endswith(".yaml")
    }
    return [*(n for n in _ORDER if n in names), *sorted(names.difference(_ORDER))]


def shipped_text(name: str) -> str:
    """Return the file of a shipped scenario with its comments, to copy and change.

    Raises: UsageError if there is none of that name.
    """
    if name not in shipped_names():
        raise UsageError(f"there is no scenario {name}", [_unknown(name)])
    return (_SHIPPED / f"{name}.yaml").read_text("utf-8")


def _read(name: str) -> tuple[bytes, str]:
    path = Path(name)
    is_path = path.suffix in {".yaml", ".yml"} or "/" in name or "\\" in name
    if not is_path:
        if name in shipped_names():
            return (_SHIPPED / f"{name}.yaml").read_bytes(), f"{name}.yaml"
        try:
            is_path = path.is_file()
        except (OSError, ValueError):
            is_path = False
        if not is_path:
            raise UsageError(f"there is no scenario {name!r}", [_unknown(name)])
    return _bytes(path, f"scenario {name}", "write one with: testbed init"), name


def _deployment(path: Path) -> Any:
    """Return the section ``deployment`` of a file that holds nothing else."""
    what = f"deployment {path}"
    try:
        data = document.parse(_bytes(path, what, "docs/kubernetes.md shows one"), str(path))
    except document.DocumentError as error:
        raise UsageError(f"cannot read {what}", error.problems) from None
    if not isinstance(data, dict) or list(data) != ["deployment"]:
        seen = f"keys {', '.join(map(str, data))}" if isinstance(data, dict) and data else "no keys"
        raise UsageError(
            f"cannot read {what}",
            [Problem(str(path), seen, "allowed: the key deployment alone, as in a scenario")],
        )
    return data["deployment"]


def _bytes(path: Path, what: str, absent: str) -> bytes:
    """Return what a file holds, up to a little more than the largest that is allowed."""
    try:
        with path.open("rb") as file:
            return file.read(document.LARGEST_FILE + 1)
    except FileNotFoundError:
        raise UsageError(
            f"cannot read {what}", [Problem(str(path), "there is no such file", absent)]
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot read {what}",
            [Problem(str(path), reason.lower(), "allowed: a YAML file that you may read")],
        ) from None


def _unknown(name: str) -> Problem:
    names = shipped_names()
    close = difflib.get_close_matches(name, names, n=1)
    nearest = f"did you mean {close[0]}? " if close else ""
    return Problem(
        "scenario",
        f"{name!r} is neither a shipped scenario nor a file",
        f"{nearest}shipped: {', '.join(names)}; files end in .yaml",
    )


def _checked(data: Any, overrides: Sequence[str], name: str) -> ScenarioFile:
    problems = document.override(data, overrides) if data is not None else []
    checked = check(data)
    if isinstance(checked, ScenarioFile):
        if not problems:
            return checked
    else:
        problems.extend(checked)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise UsageError(f"scenario {name} has {count}:".replace("  ", " "), problems)
