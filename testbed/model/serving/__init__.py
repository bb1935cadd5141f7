"""The serving family: requests that are answered where they came in or at a neighbour.

A node is a proxy in front of services. A pure model like that of tasks: events in, effects out.
"""
