"""Schedulers: one file each, found by name through :mod:`testbed.schedulers.registry`.

Every scheduler here is pure: it reads an ``Observation`` and answers with a ``Decision`` or an
``Ask`` (see :mod:`testbed.model.decision`), the same in the simulator and on a node.
"""
