"""Fuzzing: bytes nobody would send, for everything that reads what others have written.

``python -m tests.fuzz TARGET`` fuzzes a parser in its own process, guided by coverage (atheris).
``services`` fuzzes the gRPC services of a controller and nodes that run.
"""
