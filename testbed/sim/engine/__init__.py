"""The compiled engine: batches of episodes as machine code, equal to the heap simulator.

``compiled`` holds the records, ``arrays`` makes them from plans, ``events`` moves them on,
``threads`` spreads episodes over threads. Decisions come from ``heuristics`` or ``placement``, or
from policies on what ``features`` encodes (``vector``, ``scoring``, ``perceptron``). ``episodes``
plays whole ones; ``fates`` tells what failures will do before they happen.
Import the modules directly; this package imports nothing.
"""
