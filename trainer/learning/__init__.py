"""The learning core on arrays: offline CQL, online PPO, and the actor they hand over.

Nothing here knows the network model, a file layout of runs, or how episodes are run: transitions
and trajectories come in as arrays, weights and metrics go out. Import the modules directly;
this package imports nothing, so that the torch-free ones (``transitions``, ``actor``,
``checkpoint``) stay cheap.
"""
