"""The offline learners by name: the only place that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

from testbed.errors import Problem, UsageError
from trainer.learning.cloning import CloningConfig
from trainer.learning.cql import CqlConfig
from trainer.learning.dqn import DqnConfig
from trainer.learning.iql import IqlConfig
from trainer.learning.shared_target import SharedTargetConfig
from trainer.learning.stepping import Settings

LEARNERS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        each.name: each
        for each in (CqlConfig, CloningConfig, IqlConfig, DqnConfig, SharedTargetConfig)
    }
)
"""Their settings classes (``trainer.learning.stepping.Settings``)."""


def learner_like(name: str, base: Settings) -> Settings:
    """Return the settings of a learner with those values of ``base`` that both have.

    Raises:
        UsageError: there is no such learner.
    """
    if name == base.name:
        return base
    if name not in LEARNERS:
        known = ", ".join(LEARNERS)
        raise UsageError(
            f"unknown learner {name!r}", [Problem("learner", repr(name), f"one of {known}")]
        )
    shared = {each.name for each in fields(LEARNERS[name])}
    values = {name: getattr(base, name) for name in shared if hasattr(base, name)}
    made: Settings = LEARNERS[name](**values)
    return made
