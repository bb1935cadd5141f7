"""Containers, networks and images of the tests, by the ``docker`` command; all carry one label."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
TAG: Final = "test"
LABEL: Final = "edge-testbed.test"
CONTAINED: Final = (
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
"""As the compose file runs what is ours."""


def docker(*arguments: str | Path, check: bool = True) -> str:
    """What ``docker ARGUMENTS`` wrote to stdout.

    Raises: RuntimeError with all it wrote if it fails, unless ``check`` is False.
    """
    run = subprocess.run(
        ["docker", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    if check and run.returncode:
        raise RuntimeError(f"docker {' '.join(map(str, arguments))}:\n{run.stdout}{run.stderr}")
    return run.stdout.strip()


def has_image(name: str) -> bool:
    """Whether the engine has this image."""
    return bool(docker("image", "ls", "--quiet", name))


def base_image(kind: str, public: str | None) -> str | None:
    """The base to use: the one the environment names, else one made here, else the public one."""
    given = os.environ.get(f"TESTBED_TEST_{kind.upper()}_IMAGE")
    local = f"edge-testbed/{kind}:bookworm"
    return given or (local if has_image(local) else public)


def build(images: Iterable[str], **variables: str | None) -> None:
    """``make images`` as a user would.

    Raises: RuntimeError with what make wrote.
    """
    settings = {
        "IMAGES": " ".join(images),
        "TAG": TAG,
        "WHEEL_PYTHON": sys.executable,
        **{name: value for name, value in variables.items() if value},
    }
    run = subprocess.run(
        ["make", "images", *(f"{name}={value}" for name, value in settings.items())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if run.returncode:
        raise RuntimeError(f"make images:\n{run.stdout[-6000:]}")


class PrivateNetwork:
    """A bridge network, and containers on it that find each other by name; ``remove`` it."""

    def __init__(self) -> None:
        self.name = f"edge-testbed-{secrets.token_hex(4)}"
        self._label = f"{LABEL}={self.name}"
        docker("network", "create", "--label", self._label, self.name)

    def start(
        self, name: str, image: str, *command: str, options: Sequence[str | Path] = ()
    ) -> None:
        """Start a container known as ``name`` to the others."""
        docker(
            *("run", "--detach", "--label", self._label, "--network", self.name),
            *("--name", self.container(name), "--hostname", name, "--network-alias", name),
            *(*options, image, *command),
        )

    def once(self, image: str, *command: str, options: Sequence[str | Path] = ()) -> str:
        """What a container that ends by itself writes to stdout."""
        common = ("--rm", "--label", self._label, "--network", self.name)
        return docker("run", *common, *options, image, *command)

    def container(self, name: str) -> str:
        """What the engine calls the container ``name``."""
        return f"{self.name}-{name}"

    def execute(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        return subprocess.run(
            ["docker", "exec", self.container(name), *command],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def state(self, name: str) -> dict[str, Any]:
        """How a container is: ``Running``, ``ExitCode``, ``Health``."""
        found = docker("inspect", "--format", "{{json .State}}", self.container(name))
        return dict(json.loads(found))

    def published(self, name: str, port: int) -> str:
        """The address on this host of a port of a container."""
        return docker("port", self.container(name), str(port)).splitlines()[0]

    def logs(self) -> str:
        """The end of what each container wrote."""
        return "\n".join(
            f"--- {name}\n"
            + subprocess.run(
                ["docker", "logs", "--tail", "40", name],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            ).stdout
            for name in self._containers()
        )

    def remove(self) -> None:
        """Remove all containers with their volumes, and the network."""
        if containers := self._containers():
            docker("rm", "--force", "--volumes", *containers)
        docker("network", "rm", self.name)

    def _containers(self) -> list[str]:
        listed = docker("ps", "--all", "--filter", f"label={self._label}", "--format", "{{.Names}}")
        return listed.split()
