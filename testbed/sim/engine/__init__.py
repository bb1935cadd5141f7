"""The compiled engine: batches of episodes as machine code, equal to the heap simulator.

``compiled`` holds the records, ``arrays`` makes them from plans, ``events`` moves them on,
``threads`` spreads episodes over threads. Decisions come from ``heuristics``, or from policies on
what ``features`` encodes (``vector``, ``scoring``, ``perceptron``). ``episodes`` plays whole ones.
Import the modules directly; this package imports nothing.
"""
