"""The ``testbed`` command, the only place where layers meet: it parses, calls and prints.

Results go to stdout, progress and logs to stderr; an error ends with its documented exit code and
never with a traceback. What one command does from end to end stands in testbed/experiment.
"""
