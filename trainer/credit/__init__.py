"""The credit of decisions: one definition for training, tuning and both venues of ``o2o``.

``queues`` serves execution queues again without a task, ``rebuilding`` makes such queues from a
task log, ``weight`` says how much of the effect on later decisions counts, and ``gains`` puts the
three together. Import the modules directly; this package imports nothing.
"""
