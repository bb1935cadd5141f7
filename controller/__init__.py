"""The controller process: generates tasks, knows which nodes are healthy, writes the task log.

It is the only writer of the log, and waits for nothing without a limit.
"""
