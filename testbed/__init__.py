"""Kubernetes-emulated edge testbed with an offline-to-online learning pipeline.

docs/python.md documents the names of this module. Each is imported when it is first used, so that
``import testbed`` is quick. Everything else is internal and may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from testbed.version import __version__ as __version__

if TYPE_CHECKING:
    from testbed.api.data_sets import StoredDataSet as StoredDataSet
    from testbed.api.data_sets import build_data_set as build_data_set
    from testbed.api.data_sets import open_data_set as open_data_set
    from testbed.api.planning import LoadedPlan as LoadedPlan
    from testbed.api.planning import load as load
    from testbed.api.reading import Log as Log
    from testbed.api.reading import Runs as Runs
    from testbed.api.reading import open_log as open_log
    from testbed.api.results import Comparison as Comparison
    from testbed.api.results import ReplayResult as ReplayResult
    from testbed.api.results import RunResult as RunResult
    from testbed.api.simulating import compare as compare
    from testbed.api.simulating import replay as replay
    from testbed.api.simulating import simulate as simulate
    from testbed.api.testbeds import Lab as Lab
    from testbed.api.testbeds import LiveRun as LiveRun
    from testbed.api.testbeds import connect as connect
    from testbed.api.testbeds import up as up
    from testbed.api.testbeds import use_home as use_home
    from testbed.errors import PermanentError as PermanentError
    from testbed.errors import PrerequisiteMissing as PrerequisiteMissing
    from testbed.errors import TemporaryError as TemporaryError
    from testbed.errors import TestbedError as TestbedError
    from testbed.errors import UsageError as UsageError
    from testbed.experiment.metrics import Metric as Metric
    from testbed.model.decision import Answer as Answer
    from testbed.model.decision import Ask as Ask
    from testbed.model.decision import Decision as Decision
    from testbed.model.decision import Observation as Observation
    from testbed.model.decision import Refuse as Refuse
    from testbed.model.decision import Scheduler as Scheduler
    from testbed.model.decision import SchedulerContext as SchedulerContext
    from testbed.scenario.plan import SchedulerSpec as SchedulerSpec
    from testbed.sim.engine.vector import VectorEnv as VectorEnv


_MODULES = {
    "testbed.api.data_sets": ("StoredDataSet", "build_data_set", "open_data_set"),
    "testbed.api.planning": ("LoadedPlan", "load"),
    "testbed.api.reading": ("Log", "Runs", "open_log"),
    "testbed.api.results": ("Comparison", "ReplayResult", "RunResult"),
    "testbed.api.simulating": ("compare", "replay", "simulate"),
    "testbed.api.testbeds": ("Lab", "LiveRun", "connect", "up", "use_home"),
    "testbed.errors": (
        "PermanentError",
        "PrerequisiteMissing",
        "TemporaryError",
        "TestbedError",
        "UsageError",
    ),
    "testbed.experiment.metrics": ("Metric",),
    "testbed.model.decision": (
        "Answer",
        "Ask",
        "Decision",
        "Observation",
        "Refuse",
        "Scheduler",
        "SchedulerContext",
    ),
    "testbed.scenario.plan": ("SchedulerSpec",),
    "testbed.sim.engine.vector": ("VectorEnv",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(
            f"module 'testbed' has no attribute '{name}'; docs/python.md lists all"
        )
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return list(__all__)
