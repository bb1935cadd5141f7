"""Kubernetes-emulated edge testbed with an offline-to-online learning pipeline."""

from __future__ import annotations

__version__ = "0.1.0"
