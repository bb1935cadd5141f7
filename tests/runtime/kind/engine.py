"""An engine and a kind of the tests' own: the folder behind ``programs.py``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from testbed.runtime.kind import NODE_IMAGE
from testbed.runtime.kind.config import MARK

PROGRAMS: Final = Path(__file__).with_name("programs.py")


class FakeEngine:
    """The folder behind the programs: what is in it, and what is to go wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        for each in (self.bin, folder / "containers"):
            each.mkdir(parents=True)
        for program in ("docker", "kind"):
            path = self.bin / program
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {PROGRAMS} {program} "$@"\n')
            path.chmod(0o755)
        (folder / "journal").touch()
        (folder / "behaviour.json").write_text("{}")
        (folder / "images.json").write_text("{}")
        self.has(NODE_IMAGE)

    @classmethod
    def installed(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
        """Return one in ``folder`` that the programs of a test find, and no other."""
        made = cls(folder / "engine")
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        return made

    def environment(self) -> dict[str, str]:
        """What has programs use this engine and this kind, and find no others."""
        return {"FAKE_ENGINE": str(self.folder), "PATH": str(self.bin)}

    def behaves(self, **what: Any) -> None:
        """Have something go wrong from now on, or right again."""
        path = self.folder / "behaviour.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **what}))

    def has(self, image: str, content: str = "", **more: Any) -> None:
        """Have the engine hold an image, of this content."""
        path = self.folder / "images.json"
        identity = f"sha256:{hashlib.sha256((content or image).encode()).hexdigest()}"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), image: {"id": identity, **more}})
        )

    def forgets(self, image: str) -> None:
        path = self.folder / "images.json"
        images = json.loads(path.read_text())
        del images[image]
        path.write_text(json.dumps(images))

    def removes(self, program: str) -> None:
        """Uninstall ``docker`` or ``kind``."""
        (self.bin / program).unlink()

    def containers(self) -> list[dict[str, Any]]:
        return [
            json.loads(path.read_text())
            for path in sorted((self.folder / "containers").glob("*.json"))
        ]

    def names(self) -> list[str]:
        return sorted(each["Name"][1:] for each in self.containers())

    def runs(self, name: str, cluster: str, *, binds: Sequence[str] = ()) -> None:
        """Have somebody else's node run."""
        identity = hashlib.sha256(name.encode()).hexdigest()
        labels = {"io.x-k8s.kind.cluster": cluster, "io.x-k8s.kind.role": "control-plane"}
        self._write(
            {
                "Id": identity,
                "Name": f"/{name}",
                "Config": {"Labels": labels, "Image": "kindest/node"},
                "State": {"Status": "running"},
                "HostConfig": {"Binds": list(binds) or None},
            }
        )

    def stops(self, status: str = "exited") -> None:
        """Have all containers stop, as after a restart of the machine."""
        for each in self.containers():
            each["State"]["Status"] = status
            self._write(each)

    def loses(self, name: str) -> None:
        """Have a container be gone."""
        for each in self.containers():
            if each["Name"] == f"/{name}":
                (self.folder / "containers" / f"{each['Id']}.json").unlink()

    def _write(self, container: dict[str, Any]) -> None:
        path = self.folder / "containers" / f"{container['Id']}.json"
        path.write_text(json.dumps(container))

    def calls(self, begin: str) -> list[str]:
        """What the programs were called with, from the beginning, as far as it begins so."""
        lines = (self.folder / "journal").read_text().splitlines()
        return [line for line in lines if line.startswith(begin)]


def mark_of(home: Path, cluster: str, digest: str) -> str:
    """How the engine writes the mount that marks a node of this home."""
    return f"{home}/kind/{cluster}/owner-{digest}:{MARK}:ro"
