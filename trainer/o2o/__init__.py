"""The whole story: heuristic logs, offline training, online fine-tuning, fair evaluation.

``pipeline.run_simulated`` tells it in the simulator; ``testbed.experiment.o2o_network`` tells it on
a network that is up, with the same learners, recipes and checks. See docs/o2o.md.
"""

from __future__ import annotations
