"""The pure model of an edge network: no clock, no I/O, no global randomness.

Guarantees that the same events at the same instants give the same effects, whoever drives it: the
simulator in virtual time, the edge node in real time, or a test.
"""
