"""The edge node process: drives the model of testbed/model in real time, with real bytes over gRPC.

Imports no training library.
"""
