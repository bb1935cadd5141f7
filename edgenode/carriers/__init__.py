"""Carriers of messages between nodes: one module for each, all behind ``edgenode.links``."""
