"""A whole experiment: heuristic logs, offline training, online fine-tuning, fair evaluation.

``pipeline.run`` runs it on a venue: ``simulated.SimulatedVenue``, or ``network.NetworkVenue`` on a
network that is up. See docs/o2o.md.
"""

from __future__ import annotations
