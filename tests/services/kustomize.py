"""The real kustomize: the one on this machine, or one that Go builds once for all later runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

VERSION: Final = "v5.0.3"
"""What is built where there is none; new enough for the manifests, old enough for Debian's Go."""

SOURCE: Final = "sigs.k8s.io/kustomize/kustomize/v5"
BUILD_S: Final = 600.0


def lacking() -> str | None:
    """What to install so that ``render`` works here; None if nothing."""
    if _built().is_file() or any(map(shutil.which, ("kustomize", "kubectl", "go"))):
        return None
    return "install kustomize or kubectl, or Go, which builds kustomize once"


def render(overlay: Path) -> str:
    """What ``kubectl apply -k OVERLAY`` would apply.

    Raises: RuntimeError with what kustomize, or Go when it builds it, wrote.
    """
    return _run([*_program(), str(overlay)], 60)


@cache
def _program() -> list[str]:
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    if not _built().is_file():
        _build()
    return [str(_built()), "build"]


def _built() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / (
        f"edge-testbed/bin/kustomize-{VERSION}"
    )


def _build() -> None:
    target = _built()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Built aside: a run that is interrupted leaves no half program of this name.
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        _run(["go", "install", f"{SOURCE}@{VERSION}"], BUILD_S, GOBIN=aside)
        (Path(aside) / "kustomize").replace(target)


def _run(command: list[str], timeout: float, **environment: str) -> str:
    run = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{run.stdout}{run.stderr}")
    return run.stdout
