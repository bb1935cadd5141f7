"""Training: data sets in, a policy for the nodes out.

The only package that imports ray and torch (the ``train`` extra); nodes and controller never
import it. ``trainer.learning`` is the learning core on plain arrays; what runs episodes and what
stores data sets or policies stands elsewhere and is handed in.
"""
