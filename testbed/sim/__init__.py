"""Drives the model in virtual time.

:mod:`testbed.sim.simulator` drives one ``NodeState`` per node with a heap and is the reference.
"""
