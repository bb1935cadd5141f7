"""The garbage collector, kept off while an episode is simulated."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Leave the garbage collector off for the moment, if it is on.

    An episode makes many small objects and, while it runs, no cycles; looking for some among them
    again and again took a sixth of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
