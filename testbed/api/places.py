"""Where a testbed runs: which runtime a command is about, said once at ``up`` and found again.

What is up is known to the runtimes alone. The home only notes where a name was brought up, so that
later commands need not be told; on another machine ``--runtime`` and ``--context`` say it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from testbed.api import home, notices
from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    from testbed.runtime.base import Runtime


class Kind(StrEnum):
    """Where testbeds run."""

    LOCAL = "local"
    KIND = "kind"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Place:
    """A runtime and how it is reached; what is empty is the default."""

    runtime: Kind = Kind.LOCAL
    context: str = ""
    kubeconfig: str = ""
    namespace: str = ""

    def options(self) -> str:
        """As one would type it; empty for the default."""
        if self.runtime is Kind.LOCAL:
            return ""
        given = {key: value for key, value in asdict(self).items() if value and key != "runtime"}
        return f"--runtime {self.runtime}" + "".join(f" --{k} {v}" for k, v in given.items())


_asked: list[Place] = []


def choose(
    runtime: Kind | None, context: str | None, kubeconfig: Path | None, namespace: str | None
) -> None:
    """Note what the options of this command say; nothing given is no choice.

    Raises: UsageError: options of a cluster for something else.
    """
    _asked.clear()
    given = {"context": context, "kubeconfig": kubeconfig, "namespace": namespace}
    extra = [f"--{name}" for name, value in given.items() if value]
    if runtime is None and extra:
        # A context says as much.
        runtime = Kind.CLUSTER
    if runtime in (Kind.LOCAL, Kind.KIND) and extra:
        raise UsageError(
            f"--runtime {runtime} makes its own",
            [Problem(option, "is given", "only with --runtime cluster") for option in extra],
        )
    if runtime is not None:
        path = "" if kubeconfig is None else str(kubeconfig.expanduser().absolute())
        _asked.append(Place(runtime, context or "", path, namespace or ""))


def place_of(name: str | None) -> Place:
    """Where the testbed ``name`` is: what the command says, else where it was brought up."""
    if _asked:
        return _asked[0]
    return (noted().get(name) if name else None) or Place()


def settled(place: Place) -> Place:
    """``place`` with the context that is the current one now, if it names none.

    Raises: PrerequisiteMissing: there is no kubeconfig, or nothing in it.
    """
    if place.context or place.runtime is not Kind.CLUSTER:
        return place
    from testbed.runtime.kubernetes.kubeconfig import current_context

    path = Path(place.kubeconfig) if place.kubeconfig else None
    return replace(place, context=current_context(path))


def noted() -> Mapping[str, Place]:
    """The testbeds that were brought up elsewhere than on this machine, by name."""
    found = {}
    for file in sorted(_folder().glob("*.json")) if _folder().is_dir() else ():
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            known = {each.name for each in fields(Place)}
            values = {key: value for key, value in document.items() if key in known}
            found[file.stem] = Place(**{**values, "runtime": Kind(values["runtime"])})
        except (OSError, ValueError, KeyError, AttributeError):
            # Not ours, or damaged: the options say where it is.
            continue
    return found


def note(name: str, place: Place) -> None:
    """Let later commands find ``name`` where it is."""
    from testbed.runtime.directory import private_folder, writing

    file = _folder() / f"{name}.json"
    with writing(file):
        if place.runtime is Kind.LOCAL:
            file.unlink(missing_ok=True)
            return
        private_folder(file.parent.parent)
        private_folder(file.parent)
        aside = file.with_name(f".{name}.{os.getpid()}")
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(asdict(place)), encoding="utf-8")
        aside.replace(file)


def forget(name: str) -> None:
    """The testbed is gone from where it was; no-op if nothing is noted."""
    from testbed.runtime.directory import writing

    file = _folder() / f"{name}.json"
    with writing(file):
        file.unlink(missing_ok=True)


def runtime(name: str | None = None, **settings: Any) -> Runtime:
    """The runtime for ``name``; ``settings`` go to runtimes of clusters.

    Raises: UsageError: a controller is named and no token.
    """
    if address := home.controller():
        return _remote(address)
    return open_place(place_of(name), **settings)


def open_place(place: Place, **settings: Any) -> Runtime:
    """The runtime of a place."""
    if place.runtime is Kind.LOCAL:
        from testbed.runtime.local import LocalRuntime

        return LocalRuntime(home.home())
    if place.runtime is Kind.KIND:
        from testbed.runtime.kind.runtime import KindRuntime

        return KindRuntime(home.home(), **settings)
    from testbed.runtime.kubernetes import ClusterRuntime

    return ClusterRuntime(
        home.home(),
        kubeconfig=Path(place.kubeconfig) if place.kubeconfig else None,
        context=place.context or None,
        namespace=place.namespace or None,
        tell=notices.note,
        **settings,
    )


def all_places() -> list[Place]:
    """The places to look at for all testbeds: what the command says, else all that are known."""
    if _asked:
        return [_asked[0]]
    return [Place(), *dict.fromkeys(noted().values())]


_FOLDER: Final = ".places"


def _folder() -> Path:
    return home.home() / _FOLDER


def _remote(address: str) -> Runtime:
    from testbed.rpc.credentials import CLIENT_CREDENTIALS_VARIABLE, Certificate, read
    from testbed.rpc.identity import OPERATOR
    from testbed.rpc.token import CLIENT_TOKEN_VARIABLE, PLAINTEXT, find_token
    from testbed.runtime.remote import RemoteRuntime

    store = os.environ.get("TESTBED_STORAGE", "")
    plaintext = home.plaintext()
    if plaintext:
        notices.warn(PLAINTEXT)
    elif path := os.environ.get(CLIENT_CREDENTIALS_VARIABLE):
        found = read(Path(path).expanduser())
        if not isinstance(found, Certificate) or found.identity != OPERATOR:
            raise UsageError(
                "these are not the credentials of an operator",
                [Problem(CLIENT_CREDENTIALS_VARIABLE, f"names {path}", "name operator.pem")],
            )
        return RemoteRuntime(address, found.to_pem(), store=store, home=home.home())
    token = find_token(variable=CLIENT_TOKEN_VARIABLE)
    if not token:
        raise UsageError(
            f"the controller at {address} asks who you are: let {CLIENT_CREDENTIALS_VARIABLE} name "
            f"the operator's file (`testbed credentials` makes it), or set {CLIENT_TOKEN_VARIABLE} "
            f"or {CLIENT_TOKEN_VARIABLE}_FILE"
        )
    return RemoteRuntime(address, token, store=store, home=home.home(), plaintext=plaintext)
