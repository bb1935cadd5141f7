"""Gets credentials from the program that a kubeconfig names (an exec plugin).

As of https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

from testbed.errors import PrerequisiteMissing
from testbed.runtime.kubernetes.kubeconfig import Chosen

PLUGIN_S: Final = 60.0
"""Time limit of a plugin that does not ask the user."""
ASKING_S: Final = 300.0
"""Time limit of a plugin that asks the user on a terminal."""
_GROUP: Final = "client.authentication.k8s.io/"
_TAIL: Final = 2_000
"""Bytes of what a plugin says that a message repeats, at most."""
_BEFORE_IT_EXPIRES: Final = datetime.timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token, or a certificate with its key in PEM; ``expires`` is None if they stay valid."""

    token: str = ""
    certificate: str = ""
    key: str = ""
    expires: datetime.datetime | None = None

    def expired(self) -> bool:
        """Return whether new ones are due."""
        now = datetime.datetime.now(datetime.UTC)
        return self.expires is not None and now >= self.expires - _BEFORE_IT_EXPIRES

    def user(self) -> dict[str, str]:
        """Return them as a user of a kubeconfig."""
        found = {"token": self.token} if self.token else {}
        if self.certificate:
            found["client-certificate-data"] = _base64(self.certificate)
            found["client-key-data"] = _base64(self.key)
        return found


def from_plugin(chosen: Chosen, *, patience_s: float | None = None) -> Credentials:
    """Run the plugin of the user of ``chosen`` and return what it gives.

    Raises: PrerequisiteMissing: it is missing, fails, takes longer than ``patience_s``, or prints
        something else; with its command and what it wrote to standard error.
    """
    assert chosen.user is not None
    plugin = chosen.user.body["exec"]
    where = f"the credentials plugin of user '{chosen.user_name}' in {chosen.user.file}"
    if not isinstance(plugin, dict) or not isinstance(plugin.get("command"), str):
        raise PrerequisiteMissing(f"{where} has no command", f"see `{chosen.kubectl} config view`")
    command = [plugin["command"], *map(str, plugin.get("args") or ())]
    shown = f"{where} (`{' '.join(command)}`)"
    fix = _fix(plugin, command, chosen.kubectl)
    asks = plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    environment = {
        **os.environ,
        **_variables(plugin.get("env")),
        "KUBERNETES_EXEC_INFO": json.dumps(_info(plugin, chosen, asks)),
    }
    limit = patience_s or (ASKING_S if asks else PLUGIN_S)
    try:
        code, out, said = _run(command, environment, limit, asks)
    except FileNotFoundError:
        raise PrerequisiteMissing(f"{shown} is not there", fix) from None
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteMissing(
            f"{shown} gave nothing within {limit:g} s{_told(error.stderr)}", fix
        ) from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise PrerequisiteMissing(f"{shown} cannot be run: {reason}", fix) from None
    if code != 0:
        raise PrerequisiteMissing(f"{shown} failed with exit code {code}{_told(said)}", fix)
    found = _read(out)
    if isinstance(found, str):
        raise PrerequisiteMissing(f"{shown} printed {found}{_told(said)}", fix)
    return found


def _run(
    command: list[str], environment: Mapping[str, str], limit: float, asks: bool
) -> tuple[int, bytes, bytes]:
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=None if asks else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # So that what it has started ends with it; but whoever asks on a terminal has to own it.
        start_new_session=not asks,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told, out = bytearray(), bytearray()
    threads = [
        threading.Thread(target=_collect, args=(process.stdout, out, False), daemon=True),
        threading.Thread(target=_collect, args=(process.stderr, told, asks), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        process.wait(limit)
    except BaseException as error:
        _end(process, asks)
        threads[1].join(5.0)
        if isinstance(error, subprocess.TimeoutExpired):
            error.stderr = bytes(told)
        raise
    finally:
        for thread, stream in zip(threads, (process.stdout, process.stderr), strict=True):
            # Something it has left behind may hold the pipe.
            thread.join(5.0)
            if not thread.is_alive():
                stream.close()
    return process.returncode, bytes(out), bytes(told)


_MOST: Final = 4_000_000


def _collect(stream: IO[bytes], into: bytearray, show: bool) -> None:
    with contextlib.suppress(OSError, ValueError):
        while piece := os.read(stream.fileno(), 65_536):
            if len(into) < _MOST:
                into += piece
            if show:
                sys.stderr.write(piece.decode(errors="replace"))
                sys.stderr.flush()


def _end(process: subprocess.Popen[bytes], asks: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if asks:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5.0)


def _read(out: bytes) -> Credentials | str:
    """Return the credentials, or what was printed instead of them, in words."""
    try:
        document = json.loads(out)
    except (ValueError, RecursionError):
        return f"{len(out)} bytes that are not JSON" if out.strip() else "nothing"
    if not isinstance(document, dict) or document.get("kind") != "ExecCredential":
        return "JSON that is no ExecCredential"
    if not str(document.get("apiVersion", "")).startswith(_GROUP):
        return f"an ExecCredential of another API, {document.get('apiVersion')!r}"
    status = document.get("status")
    if not isinstance(status, dict):
        return "an ExecCredential without a status"
    parts = [status.get(key) or "" for key in ("token", "clientCertificateData", "clientKeyData")]
    if not all(isinstance(each, str) for each in parts):
        return "an ExecCredential whose token or certificate is no text"
    token, certificate, key = parts
    if bool(certificate) != bool(key) or not (token or certificate):
        return "an ExecCredential with neither a token nor a certificate with its key"
    expires = None
    if (text := status.get("expirationTimestamp")) is not None:
        try:
            expires = datetime.datetime.fromisoformat(str(text))
        except ValueError:
            return f"an ExecCredential that expires at {text!r}, which is no time"
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=datetime.UTC)
    return Credentials(token, certificate, key, expires)


def _info(plugin: Mapping[str, Any], chosen: Chosen, asks: bool) -> dict[str, Any]:
    specification: dict[str, Any] = {"interactive": asks}
    if plugin.get("provideClusterInfo"):
        body = chosen.cluster.body
        specification["cluster"] = {
            "server": chosen.server,
            **{
                key: body[name]
                for key, name in (
                    ("certificate-authority-data", "certificate-authority-data"),
                    ("insecure-skip-tls-verify", "insecure-skip-tls-verify"),
                    ("tls-server-name", "tls-server-name"),
                    ("proxy-url", "proxy-url"),
                )
                if name in body
            },
        }
    version = plugin.get("apiVersion") or f"{_GROUP}v1"
    return {"apiVersion": version, "kind": "ExecCredential", "spec": specification}


def _variables(listed: Any) -> dict[str, str]:
    return {
        str(each["name"]): str(each.get("value", ""))
        for each in listed or ()
        if isinstance(each, dict) and "name" in each
    }


def _fix(plugin: Mapping[str, Any], command: list[str], kubectl: str) -> str:
    hint = plugin.get("installHint")
    told = " ".join(str(hint).split()) if hint else "install it, or put its folder on PATH"
    return f"{told}; then see that `{kubectl} auth whoami` answers, which runs `{command[0]}` too"


def _told(said: bytes | None) -> str:
    text = (said or b"")[-_TAIL:].decode(errors="replace").strip()
    return f":\n{text}" if text else ", and wrote nothing to standard error"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
