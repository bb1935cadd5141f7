"""Places of testbeds: the runtime of each, given once at ``up`` and remembered in the home.

What is up is known to the runtimes alone. The home only notes where a name was brought up, so that
later commands need not be told; on another machine ``--runtime`` and ``--context`` say it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from testbed import environment
from testbed.api import home, notices
from testbed.errors import Problem, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.runtime.base import Runtime


LOCAL: Final = "local"
CLUSTER: Final = "cluster"
KIND: Final = "kind"
"""Runtimes that other options or folders of the home stand for; ``testbed.runtime.registry`` knows
all."""


@dataclass(frozen=True, slots=True)
class Place:
    """A runtime and how it is reached; what is empty is the default."""

    runtime: str = LOCAL
    context: str = ""
    kubeconfig: str = ""
    namespace: str = ""

    def options(self) -> str:
        """Return it as one would type it; empty for the default."""
        if self.runtime == LOCAL:
            return ""
        given = {key: value for key, value in asdict(self).items() if value and key != "runtime"}
        return f"--runtime {self.runtime}" + "".join(f" --{k} {v}" for k, v in given.items())


_asked: list[Place] = []


def choose(
    runtime: str | None, context: str | None, kubeconfig: Path | None, namespace: str | None
) -> None:
    """Note what the options of this command say; nothing given is no choice.

    Raises: UsageError: unknown runtime, or options that it does not use.
    """
    _asked.clear()
    path = "" if kubeconfig is None else str(kubeconfig.expanduser().absolute())
    given = {"context": context or "", "kubeconfig": path, "namespace": namespace or ""}
    if runtime is None and any(given.values()):
        # A context says as much.
        runtime = CLUSTER
    if runtime is not None:
        from testbed.runtime.registry import RUNTIMES

        RUNTIMES.check(runtime)
        if any(given.values()):
            refuse_unused(runtime, [(name, f"--{name}") for name, value in given.items() if value])
        _asked.append(Place(runtime, **given))


def refuse_unused(runtime: str, given: Iterable[tuple[str, str]]) -> None:
    """Return if the runtime uses all settings that are ``given``, each with the option for it.

    Raises: UsageError: with the options that it does not use.
    """
    from testbed.runtime import registry

    used = registry.takes(runtime)
    problems = [
        Problem(
            option,
            "is given",
            f"only with --runtime {' or '.join(_users(setting)) or 'of another kind'}",
        )
        for setting, option in given
        if setting not in used
    ]
    if problems:
        raise UsageError(f"--runtime {runtime} does not use these options", problems)


def _users(setting: str) -> list[str]:
    """Return the runtimes that use a setting, as far as they can be loaded."""
    from testbed.runtime import registry

    found = []
    for name in registry.names():
        with suppress(TestbedError):
            if setting in registry.takes(name):
                found.append(name)
    return found


def place_of(name: str | None) -> Place:
    """Return the place of the testbed ``name``: as asked for, else where it was brought up."""
    if _asked:
        return _asked[0]
    return (noted().get(name) if name else None) or Place()


def settled(place: Place, found: Runtime) -> Place:
    """Return ``place`` with what its runtime has taken as default, such as the current context.

    Raises: PrerequisiteMissing: there is no such default.
    """
    return replace(place, **found.place)


def noted() -> Mapping[str, Place]:
    """Return the testbeds that were brought up elsewhere than on this machine, by name."""
    found = {}
    for file in sorted(_folder().glob("*.json")) if _folder().is_dir() else ():
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            known = {each.name for each in fields(Place)}
            values = {key: value for key, value in document.items() if key in known}
            if not all(isinstance(value, str) for value in (values["runtime"], *values.values())):
                continue
            found[file.stem] = Place(**values)
        except (OSError, ValueError, KeyError, AttributeError):
            # Not ours, or damaged: the options say where it is.
            continue
    return found


def note(name: str, place: Place) -> None:
    """Remember the place of the testbed ``name`` for later commands."""
    from testbed.runtime.directory import private_folder, writing

    file = _folder() / f"{name}.json"
    with writing(file):
        if place.runtime == LOCAL:
            file.unlink(missing_ok=True)
            return
        private_folder(file.parent.parent)
        private_folder(file.parent)
        aside = file.with_name(f".{name}.{os.getpid()}")
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(asdict(place)), encoding="utf-8")
        aside.replace(file)


def forget(name: str) -> None:
    """Forget the place of the testbed ``name``; no-op if none is noted."""
    from testbed.runtime.directory import writing

    file = _folder() / f"{name}.json"
    with writing(file):
        file.unlink(missing_ok=True)


def runtime(name: str | None = None, **settings: Any) -> Runtime:
    """Return the runtime for ``name``; ``settings`` as for ``open_place``.

    Raises: UsageError: a controller is named and no token.
    """
    if address := home.controller():
        return _remote(address)
    return open_place(place_of(name), **settings)


def open_place(place: Place, **settings: Any) -> Runtime:
    """Return the runtime of a place; ``settings`` are further fields of its ``Settings``.

    Raises: UsageError: there is no such runtime any more, or it cannot be loaded.
    """
    from testbed.runtime import registry

    where = {key: value for key, value in asdict(place).items() if key != "runtime"}
    made = registry.Settings(home=home.home(), tell=notices.note, **where, **settings)
    return registry.open_runtime(place.runtime, made)


def all_places() -> list[Place]:
    """Return the places to look at for testbeds: the one asked for, else all that are known.

    Among them kind, if this home has made a cluster, even if no testbed is noted for it.
    """
    if _asked:
        return [_asked[0]]
    kind = [Place(KIND)] if (home.home() / KIND).is_dir() else []
    return [Place(), *dict.fromkeys((*noted().values(), *kind))]


_FOLDER: Final = ".places"


def _folder() -> Path:
    return home.home() / _FOLDER


def _remote(address: str) -> Runtime:
    from testbed.rpc.credentials import PartyCertificate, read
    from testbed.rpc.identity import OPERATOR
    from testbed.rpc.token import PLAINTEXT, find_token
    from testbed.runtime.remote import RemoteRuntime

    plaintext = home.plaintext()
    artifacts = os.environ.get(environment.ARTIFACTS, "")
    given: dict[str, Any] = {
        "store": os.environ.get(environment.STORAGE, ""),
        "artifacts": home.artifacts_url(artifacts) if artifacts else "",
        "home": home.home(),
    }
    if plaintext:
        notices.warn(PLAINTEXT)
    elif path := os.environ.get(environment.CREDENTIALS):
        found = read(Path(path).expanduser())
        if not isinstance(found, PartyCertificate) or found.identity != OPERATOR:
            raise UsageError(
                "these are not an operator's credentials",
                [Problem(environment.CREDENTIALS, f"names {path}", "name operator.pem")],
            )
        return RemoteRuntime(address, found.to_pem(), **given)
    token = find_token(variable=environment.TOKEN)
    if not token:
        raise UsageError(
            f"the controller at {address} needs credentials: let {environment.CREDENTIALS} name "
            f"the operator's file (`testbed credentials` makes it), or set {environment.TOKEN} "
            f"or {environment.TOKEN}_FILE"
        )
    return RemoteRuntime(address, token, plaintext=plaintext, **given)
