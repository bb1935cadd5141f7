"""Data sets: transitions of logged runs, for learners here and elsewhere.

``build`` makes one from a task log, ``load`` gives it as checked arrays, ``export_data_set`` writes
it for other tools. docs/data-sets.md describes the format.
"""

from __future__ import annotations

from testbed.storage.dataset.building import build, team_rewards
from testbed.storage.dataset.catalog import brief, list_data_sets, show
from testbed.storage.dataset.exports import export_data_set
from testbed.storage.dataset.format import Content, Counts, TransitionSequence, write_data_set
from testbed.storage.dataset.loading import DataSet, load, validate

__all__ = [
    "Content",
    "Counts",
    "DataSet",
    "TransitionSequence",
    "brief",
    "build",
    "export_data_set",
    "list_data_sets",
    "load",
    "show",
    "team_rewards",
    "validate",
    "write_data_set",
]
