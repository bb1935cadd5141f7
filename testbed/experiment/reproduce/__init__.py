"""The paper's experiments: what it claims, what comes out here, and whether the two agree.

``definitions`` says what each figure varies and claims; ``runner`` computes the points it needs,
each stored once (``points``); ``results`` makes intervals of them; ``drawing`` and ``page`` write
what can be looked at. docs/reproduce.md is the user's page.
"""

from __future__ import annotations
