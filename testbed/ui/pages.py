"""The table of all pages, in the order of their links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from testbed.ui.context import Page
from testbed.ui.live.page import live
from testbed.ui.past.compare_page import compare
from testbed.ui.past.data_sets_page import data_set, data_sets
from testbed.ui.past.policies_page import experiment, policies, policy
from testbed.ui.past.run_page import run
from testbed.ui.past.runs_page import runs

PAGES: Final[Sequence[Page]] = (
    Page("/", "Live", live),
    Page("/runs", "Runs", runs),
    Page("/runs/{run}", "Run", run, listed=False),
    Page("/compare", "Compare", compare),
    Page("/data-sets", "Data sets", data_sets),
    Page("/data-sets/{name}", "Data set", data_set, listed=False),
    Page("/policies", "Policies", policies),
    Page("/policies/{policy}", "Policy", policy, listed=False),
    Page("/learning/{experiment}", "Learning", experiment, listed=False),
)
