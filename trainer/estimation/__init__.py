"""Estimates of a policy from logs of others, before it decides anywhere (docs/policy-estimates.md).

``estimate.estimate`` takes logged decisions and a policy, and gives success rates with intervals.
"""

from __future__ import annotations
