"""Finds runtimes by name: the built-in ones, and those of other packages.

Another package adds one by an entry point in the group ``edge_testbed.runtimes`` that names a
``RuntimeFactory``, usually the class of the runtime. ``testbed --runtime NAME`` then takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from testbed.errors import Problem, TestbedError, UsageError
from testbed.model.own_code import described, interrupted
from testbed.plugins import Plugins
from testbed.runtime.base import Report, Runtime

if TYPE_CHECKING:
    from testbed.scenario.schema import Deployment

GROUP: Final = "edge_testbed.runtimes"
"""The entry point group in which other packages name their runtimes."""

LOCAL: Final = "local"
"""The runtime where none is named."""

_BUILT_IN: Final[Mapping[str, str]] = {
    LOCAL: "testbed.runtime.local:LocalRuntime",
    "kind": "testbed.runtime.kind.runtime:KindRuntime",
    "cluster": "testbed.runtime.kubernetes:ClusterRuntime",
}

RUNTIMES: Final = Plugins(GROUP, "runtime", _BUILT_IN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a runtime. It uses those that it names in ``takes``, and these three always.

    Args:
        home: folder for what has to be kept.
        patience_s: how long a call waits for something that does not answer; None: the default.
        tell: gets a line while something is waited for.
        context: context of the cluster in the kubeconfig; empty: the current one.
        kubeconfig: path of the kubeconfig; empty: as kubectl finds it.
        namespace: a namespace that was made for the testbed; empty: it gets one of its own.
        deployment: how to put a testbed on this machine or a cluster; None: as it is, or the
            default.
        retain: leave what was started when ``up`` fails.
        force: overwrite fields that others have changed.
        merge_kubeconfig: enter a cluster that is made in the user's kubeconfig.
        keep_cluster: leave a cluster that was made when its last testbed goes.
    """

    home: Path
    patience_s: float | None = None
    tell: Report = lambda line: None
    context: str = ""
    kubeconfig: str = ""
    namespace: str = ""
    deployment: Deployment | None = None
    retain: bool = False
    force: bool = False
    merge_kubeconfig: bool = False
    keep_cluster: bool = False


class RuntimeFactory(Protocol):
    """The target of an entry point: opens a runtime, and names the settings it uses."""

    takes: frozenset[str]
    """Names of fields of ``Settings``. ``deployment`` is what all clusters use of it; a runtime
    that uses one of the others names it: ``deployment.kind``, ``deployment.nodesPerProcess``,
    ``deployment.transport``, ``deployment.httpPort``, ``deployment.metricsPort``."""

    def open(self, settings: Settings) -> Runtime:
        """Return the runtime. Starts no process and sends no request."""
        ...


def names() -> tuple[str, ...]:
    """Return the names of all runtimes: the built-in ones, then those of other packages."""
    return RUNTIMES.names()


def takes(name: str) -> frozenset[str]:
    """Return the settings that the runtime ``name`` uses.

    Raises: UsageError: the name is unknown, or its factory cannot be loaded or is none.
    """
    return _factory(name).takes


def open_runtime(name: str, settings: Settings) -> Runtime:
    """Return the runtime ``name``.

    Raises: UsageError: the name is unknown, or its factory cannot be loaded, is none or raises.
    """
    factory = _factory(name)
    try:
        return factory.open(settings)
    except TestbedError:
        raise
    except BaseException as error:
        if name in _BUILT_IN or interrupted(error):
            raise
        raise UsageError(f"runtime '{name}' cannot be made: {described(error)}") from error


def _factory(name: str) -> RuntimeFactory:
    found: Any = RUNTIMES.find(name)
    if not callable(getattr(found, "open", None)) or not isinstance(
        getattr(found, "takes", None), frozenset
    ):
        raise UsageError(
            f"runtime '{name}': {RUNTIMES.target(name)} is no factory of runtimes",
            [Problem("", "has no `takes` or `open`", "a class with both: RuntimeFactory")],
        )
    factory: RuntimeFactory = found
    return factory
