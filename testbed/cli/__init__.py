"""The ``testbed`` command, the only place where layers meet: it parses, calls and prints.

Results go to stdout, progress and logs to stderr; an error ends with its documented exit code and
never with a traceback. The steps of a command from end to end are in testbed/api and in
testbed/experiment.
"""
