"""Artifacts: trained policies and what belongs to them, written once under a key.

``open_artifact_store`` is the way in; ``base`` holds the seam.
"""

from __future__ import annotations

from testbed.storage.artifacts.base import ArtifactStore, Content, check_key
from testbed.storage.artifacts.folder import FolderArtifactStore
from testbed.storage.artifacts.opening import open_artifact_store

__all__ = ["ArtifactStore", "Content", "FolderArtifactStore", "check_key", "open_artifact_store"]
