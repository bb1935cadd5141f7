"""Reads kubeconfig files as kubectl does, and gets the credentials they name.

Several files of ``KUBECONFIG`` are merged by kubectl's rules
(https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/): the first
file that names a cluster, user or context decides what it is, and the first that has a current
context decides that. Relative paths start at the file they stand in.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from testbed.errors import PrerequisiteMissing

_KINDS: Final[Mapping[str, str]] = {"clusters": "cluster", "contexts": "context", "users": "user"}
_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
    "contexts": (),
}
_REMOVED: Final[Mapping[str, str]] = {
    "gcp": "gke-gcloud-auth-plugin",
    "azure": "kubelogin",
}
"""Auth providers that kubectl has dropped in 1.26, and what took their place."""


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One cluster, user or context of one file; paths in ``body`` are absolute."""

    file: Path
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The content of all files together; ``files`` are those that exist, ``given`` the one named.

    ``given`` is None where kubectl's own rules decide.
    """

    files: tuple[Path, ...]
    given: Path | None = None
    current: str = ""
    entries: Mapping[str, Mapping[str, ConfigEntry]] = field(
        default_factory=lambda: {kind: {} for kind in _KINDS}
    )

    @property
    def contexts(self) -> tuple[str, ...]:
        """Names of the contexts, sorted."""
        return tuple(sorted(self.entries["contexts"]))

    @property
    def named(self) -> str:
        """The files as messages name them."""
        return ", ".join(map(str, self.files)) or "KUBECONFIG or ~/.kube/config"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One context with what it refers to; ``user`` is None where it names none.

    ``kubectl`` is the beginning of a kubectl command for it.
    """

    name: str
    cluster: ConfigEntry
    user: ConfigEntry | None
    user_name: str
    kubectl: str

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self.cluster.body["server"]).rstrip("/")


def kubectl_command(kubeconfig: Path | None, context: str | None = None) -> str:
    """Return the beginning of a kubectl command that reads the same, as one would type it."""
    words = ["kubectl"]
    if kubeconfig is not None:
        words += ["--kubeconfig", shlex.quote(str(kubeconfig))]
    if context:
        words += ["--context", shlex.quote(context)]
    return " ".join(words)


def read(given: Path | None) -> Kubeconfig:
    """Return what ``given`` says, or if None the files that kubectl would read.

    Raises: PrerequisiteMissing: names the file that cannot be used, and why.
    """
    files = []
    current = ""
    entries: dict[str, dict[str, ConfigEntry]] = {kind: {} for kind in _KINDS}
    for file in _files(given):
        document = _document(file)
        if document is None:
            if given is not None:
                raise PrerequisiteMissing(
                    f"the kubeconfig {file} does not exist", "name another: --kubeconfig FILE"
                )
            continue
        files.append(file)
        named = document.get("current-context") or ""
        if not isinstance(named, str):
            raise _wrong(file, "current-context is no text")
        current = current or named
        for kind in _KINDS:
            for name, entry in _entries(file, document, kind):
                entries[kind].setdefault(name, entry)
    return Kubeconfig(tuple(files), given, current, entries)


def choose(config: Kubeconfig, context: str | None) -> Chosen:
    """Return the context of this name, or the current one if None.

    Raises: PrerequisiteMissing: there is none, or what it refers to is missing or cannot be used.
    """
    if not config.files:
        raise PrerequisiteMissing(f"there is no kubeconfig at {_looked_at()}", _see(config.given))
    name = context or config.current
    if not name:
        raise PrerequisiteMissing(
            f"{config.named} has no current context",
            f"name one with --context: {', '.join(config.contexts)}",
        )
    found = config.entries["contexts"].get(name)
    if found is None:
        raise PrerequisiteMissing(
            f"{config.named} has no context '{name}'",
            f"name one of: {', '.join(config.contexts)}" if config.contexts else _see(config.given),
        )
    cluster_name = str(found.body.get("cluster") or "")
    cluster = config.entries["clusters"].get(cluster_name)
    if cluster is None:
        raise _wrong(
            found.file, f"context '{name}' names cluster '{cluster_name}', which is not there"
        )
    user_name = str(found.body.get("user") or "")
    user = config.entries["users"].get(user_name) if user_name else None
    if user_name and user is None:
        raise _wrong(found.file, f"context '{name}' names user '{user_name}', who is not there")
    server = cluster.body.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise _wrong(
            cluster.file, f"cluster '{cluster_name}' has no server that is a URL: {server!r}"
        )
    command = kubectl_command(config.given, context)
    if user is not None:
        _refuse_removed(user, user_name, command)
    return Chosen(name, cluster, user, user_name, command)


def current_context(given: Path | None) -> str:
    """Return the context that is meant where none is named.

    Raises: PrerequisiteMissing: there is none, or it cannot be used.
    """
    return choose(read(given), None).name


def document_of(chosen: Chosen, user: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig with nothing but ``chosen``, its user being ``user``."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "chosen",
        "clusters": [
            {"name": "chosen", "cluster": {**chosen.cluster.body, "server": chosen.server}}
        ],
        "users": [{"name": "chosen", "user": dict(user)}],
        "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
    }


def _files(given: Path | None) -> list[Path]:
    if given is not None:
        return [given.expanduser().absolute()]
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    names = listed or [str(Path.home() / ".kube" / "config")]
    return list(dict.fromkeys(Path(name).expanduser().absolute() for name in names))


def _looked_at() -> str:
    return ", ".join(map(str, _files(None)))


def _document(file: Path) -> dict[str, Any] | None:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong(file, (error.strerror or str(error)).lower()) from None
    try:
        document = yaml.safe_load(raw)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise _wrong(file, f"it is not YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _wrong(file, "it is not YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise _wrong(file, "it is no mapping with clusters, users and contexts")
    return document


def _entries(file: Path, document: Mapping[str, Any], kind: str) -> list[tuple[str, ConfigEntry]]:
    listed = document.get(kind) or []
    if not isinstance(listed, list):
        raise _wrong(file, f"{kind} is no list")
    found = []
    for each in listed:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise _wrong(file, f"{kind} has an entry without a name")
        body = each.get(_KINDS[kind]) or {}
        if not isinstance(body, dict):
            raise _wrong(file, f"the {_KINDS[kind]} '{name}' is no mapping")
        found.append((name, ConfigEntry(file, _absolute(file.parent, kind, body))))
    return found


def _absolute(folder: Path, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(body)
    for key in _PATHS[kind]:
        if isinstance(value := made.get(key), str) and value:
            made[key] = str(folder / value)
    plugin = made.get("exec")
    if kind == "users" and isinstance(plugin, dict):
        command = plugin.get("command")
        if isinstance(command, str) and os.sep in command:
            made["exec"] = {**plugin, "command": str(folder / command)}
    return made


def _refuse_removed(user: ConfigEntry, name: str, command: str) -> None:
    provider = user.body.get("auth-provider")
    if provider is None:
        return
    named = provider.get("name") if isinstance(provider, dict) else provider
    if (
        named == "oidc"
        and isinstance(provider, dict)
        and (provider.get("config") or {}).get("id-token")
    ):
        return
    instead = _REMOVED.get(str(named), "an exec plugin")
    raise PrerequisiteMissing(
        f"user '{name}' of {user.file} uses the auth provider '{named}', "
        "which Kubernetes clients no longer support",
        f"set the user up again with {instead}; see that `{command} auth whoami` answers",
    )


def _wrong(file: Path, reason: str) -> PrerequisiteMissing:
    return PrerequisiteMissing(f"the kubeconfig {file} cannot be used: {reason}", _see(file))


def _see(file: Path | None) -> str:
    return f"name another file with --kubeconfig FILE, or see `{kubectl_command(file)} config view`"
