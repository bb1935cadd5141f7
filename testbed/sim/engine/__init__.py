"""The compiled engine: batches of episodes as machine code, equal to the heap simulator.

``compiled`` holds the records, ``arrays`` makes them from plans, ``events`` moves them on, ``rows``
spreads them over threads. Who decides: ``heuristics``, or policies on what ``features`` encodes
(``vector``, ``scoring``, ``perceptron``). ``episodes`` plays whole ones. Import the modules
directly; this package imports nothing.
"""
