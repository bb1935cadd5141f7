"""Testbeds as pods of a Kubernetes cluster that exists; ``testbed.runtime.kind`` makes one.

Needs the ``kubernetes`` extra, so it is imported only where a command asks for a cluster.
"""

from __future__ import annotations

from testbed.runtime.kubernetes.rendering import ClusterOptions
from testbed.runtime.kubernetes.runtime import ClusterRuntime

__all__ = ["ClusterOptions", "ClusterRuntime"]
