"""The crash campaign: real local networks, one injected fault after another, everything checked.

``make crash-campaign FAULTS=40 SEED=1`` runs it; docs/reliability.md says what is promised and how
a trial is repeated. A trial brings a small network up, starts a run, injects one fault at an
instant drawn from the seed, waits for the end within stated bounds, and checks the task log, the
final state, the teardown and the next ``up``.
"""
