"""What controller, nodes and CLI say to each other: protobuf messages, clients and servers.

Every call has a deadline. ``generated`` comes from ``make proto`` and is never edited.
"""
