"""The serving family at a node: its HTTP front, its driver in real time, and its neighbours.

``front`` takes requests, ``driver`` carries out what ``testbed.model.serving`` decides about them,
``neighbours`` forwards requests and says words to other nodes, ``routing`` calls routers.
"""
