"""Data sets in the formats of learning libraries: Minari, and RLlib's offline episodes.

Here and not with the other exports, because only the trainer may import these libraries.
"""

from __future__ import annotations

from trainer.data.minari_export import export_minari
from trainer.data.rllib_export import export_rllib

__all__ = ["export_minari", "export_rllib"]
