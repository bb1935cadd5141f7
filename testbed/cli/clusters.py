"""Checks of ``doctor`` for testbeds in containers; notes only, as local testbeds need none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Final

from testbed.api import places
from testbed.cli.findings import Finding, Surroundings, size
from testbed.errors import TestbedError

ENGINE_S: Final = 5.0
"""Time that the container engine gets to answer."""
_ABSENT: Final = "not installed; optional"


def engine(_: Surroundings) -> Iterator[Finding]:
    """Check that the container engine answers."""
    from testbed.runtime.kind import preflight
    from testbed.runtime.kind.engine import engine

    if shutil.which("docker") is None:
        yield Finding("container engine", "note", _ABSENT)
        return
    try:
        found = engine(ENGINE_S)
    except TestbedError as error:
        lack = preflight.lack_of(error)
        yield Finding("container engine", "note", lack.what, lack.fix)
    else:
        seen = f"Docker {found.version}, {size(found.memory_bytes)} of memory"
        yield Finding("container engine", "ok", seen)


def kind(around: Surroundings) -> Iterator[Finding]:
    """Check that kind could bring this network up, and report what it lacks."""
    from testbed.runtime.kind import KindCluster, KindSettings, preflight
    from testbed.runtime.kind.engine import engine
    from testbed.runtime.kubernetes.rendering import render, requests_of
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan

    if shutil.which("kind") is None:
        yield Finding("kind", "note", _ABSENT)
        return
    settings = KindSettings()
    count = f"nodes.count={around.nodes}"
    lacks = list(preflight.kind_program(settings))
    if shutil.which("docker") is not None:
        try:
            found = preflight.examine(
                settings,
                exists=KindCluster(around.home).exists(),
                wanted=requests_of(
                    render(plan(load("quickstart", [count])), "default", scenario="")
                ),
                pull=True,
                engine=engine(ENGINE_S),
            )
        except TestbedError:
            # The engine's own check says so.
            pass
        else:
            lacks += [*found.lacks, *found.cautions]
    for lack in lacks:
        yield Finding("kind", "note", lack.what, lack.fix)
    if not lacks:
        version = ".".join(map(str, preflight.kind_version()))
        yield Finding("kind", "ok", f"kind {version}")


def kubectl(_: Surroundings) -> Iterator[Finding]:
    """Check that kubectl is installed; the toolkit does not need it, but users may."""
    path = shutil.which("kubectl")
    yield Finding("kubectl", "ok" if path else "note", path or _ABSENT)


def cluster(_: Surroundings) -> Iterator[Finding]:
    """Check that the named cluster answers, and that the user has the rights that are needed."""
    place = places.place_of(None)
    if place.runtime != places.CLUSTER:
        return
    runtime = places.open_place(place, patience_s=ENGINE_S)
    lacks = runtime.check()
    for lack in lacks:
        yield Finding("cluster", "problem", lack.what, lack.fix)
    if not lacks and runtime.on_cluster is not None:
        yield Finding("cluster", "ok", runtime.on_cluster.server())
