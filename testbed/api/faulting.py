"""A fault by hand, from the keys that a scenario would describe it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    from testbed.model.faults import Fault


def _unchanged(problem: Problem) -> Problem:
    return problem


def refuse_wrong(
    entry: Mapping[str, Any],
    size: int | None,
    told: Callable[[Problem], Problem] = _unchanged,
) -> None:
    """Raise UsageError with all problems of a fault; ``size`` None: the nodes are not known.

    ``told`` puts a problem into the caller's words, such as names of options.
    """
    from testbed.scenario.check import fault_problems

    if problems := fault_problems(dict(entry), size):
        raise UsageError("invalid fault", [told(problem) for problem in problems])


def fault_of(
    entry: Mapping[str, Any], size: int, told: Callable[[Problem], Problem] = _unchanged
) -> Fault:
    """Return the fault that these keys of a scenario describe, with its duration as ``end``.

    Raises: UsageError: something in ``entry`` is wrong; names every problem.
    """
    from testbed.model.faults import KINDS, Fault
    from testbed.model.faults.spec import links_between
    from testbed.scenario.resolve import fault_spec
    from testbed.scenario.schema import FaultPart

    refuse_wrong(entry, size, told)
    part = FaultPart.model_validate(dict(entry))
    spec = fault_spec(part, size, 0)
    links = KINDS[spec.kind].target == "links"
    assert isinstance(spec.nodes, tuple)
    assert isinstance(spec.sources, tuple)
    assert isinstance(spec.destinations, tuple)
    return Fault(
        kind=spec.kind,
        begin=0,
        end=max(1, round(spec.duration.at(0.5))),
        nodes=() if links else spec.nodes,
        links=links_between(spec.sources, spec.destinations, spec.both_ways) if links else (),
        factor=spec.factor,
        failure_rate=spec.failure_rate,
        mode=spec.mode,
    )
