"""The kind cluster that a testbed can run on: made, found again, given images, deleted.

What runs on it is the business of ``testbed.runtime.kubernetes``.
"""

from __future__ import annotations

from testbed.runtime.kind.cluster import KindCluster
from testbed.runtime.kind.config import NODE_IMAGE, KindSettings, Mount, PortMapping
from testbed.runtime.kind.images import Loaded

__all__ = ["NODE_IMAGE", "KindCluster", "KindSettings", "Loaded", "Mount", "PortMapping"]
