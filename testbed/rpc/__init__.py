"""Communication between controller, nodes and CLI: protobuf messages, clients and servers.

Every call has a deadline. ``generated`` comes from ``make proto`` and is never edited.
"""
