"""Facts about a run besides its results, as names and texts, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from testbed.model.fault_effects import fault_lines
from testbed.storage.tasklog import TESTBED, Run

Tone: TypeAlias = Literal["", "state", "good", "warning"]
"""Mark of a text: none, the state of the run that it names, or a verdict."""


class Fact(NamedTuple):
    """A line about a run. A name that begins with spaces belongs to the one before it."""

    name: str
    text: str
    tone: Tone = ""


def facts_of(run: Run) -> list[Fact]:
    """Return the settings of a run, how it went, and what was said of it."""
    info = run.info
    last = info.first_episode + info.episodes - 1
    versions = {key: value for key, value in info.versions.items() if key != TESTBED}
    found = [
        Fact("scenario", f"{info.name} [{info.scenario_hash[:12]}]"),
        Fact("scheduler", info.scheduler),
        Fact("driver", info.driver),
    ]
    if info.testbed is not None:
        found.append(Fact("testbed", info.testbed))
    found.append(Fact("state", run.state.value, "state"))
    found += _went(run)
    found += [
        Fact("started", info.started),
        Fact("ended", run.ended or "-"),
        Fact("episodes", f"{info.episodes}, numbers {info.first_episode} to {last}"),
        Fact("seeds", ", ".join(f"{key} {value}" for key, value in info.seeds.items())),
        Fact("versions", ", ".join(f"{key} {value}" for key, value in versions.items())),
    ]
    if info.label:
        found.append(Fact("label", info.label))
    if run.tags:
        found.append(Fact("tags", ", ".join(run.tags)))
    if run.note:
        found.append(Fact("note", run.note))
    return [*found, *_fidelity(run.certificate)]


def _went(run: Run) -> Iterator[Fact]:
    """Yield what happened in a run that its scenario alone does not tell."""
    certificate = run.certificate or {}
    for node, reason in certificate.get("dead_nodes", {}).items():
        yield Fact(f"  node {node}", f"was out: {reason}")
    if certificate.get("failure"):
        yield Fact("  failure", certificate["failure"])
    for failure in run.code_failures:
        yield Fact("  own code", failure)
    for change in run.changes:
        who = ", ".join(map(str, change["nodes"])) or "all"
        at = f"episode {change['episode']}, slot {change['slot']}"
        yield Fact("  changed", f"{at}: {change['scheduler']} on nodes {who}")
    for line in fault_lines(run.faults):
        yield Fact("  fault", line)


def _fidelity(certificate: Mapping[str, Any] | None) -> Iterator[Fact]:
    if certificate is None or "valid" not in certificate:
        return
    good = bool(certificate["valid"])
    verdict = "within its limits" if good else "outside its limits"
    reasons = "; ".join(certificate.get("reasons", ()))
    text = f"{verdict}: {reasons}" if reasons else verdict
    yield Fact("fidelity", text, "good" if good else "warning")
    shared = max((certificate.get("machine") or {}).get("sharing") or [1])
    if shared > 1:
        yield Fact("isolation", f"up to {shared} nodes shared a process, and could hold it up")
