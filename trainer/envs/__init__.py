"""The network as an environment of other libraries: RLlib's and PettingZoo's multi-agent APIs.

Import the modules directly; this package imports nothing.
"""
