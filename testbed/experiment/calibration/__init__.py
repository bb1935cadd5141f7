"""Calibration of a machine: the largest networks that it emulates faithfully in real time.

``questions`` says what is tried, ``search`` finds the knee of each, ``values`` holds and stores the
results, ``estimate`` holds a plan against them, ``drawing`` draws them.
"""

from __future__ import annotations
