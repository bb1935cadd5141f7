"""The pages about what is over: runs, comparisons, data sets, policies, learning experiments.

``charts``, ``runs``, ``family`` and ``learning`` are pure; the modules named ``*_page`` draw.
"""
