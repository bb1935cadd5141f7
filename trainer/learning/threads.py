"""Threads and memory of PyTorch while it learns; without Ray, whose import takes seconds."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep what is freed for what is allocated next.

    A tensor of some 100 KB would otherwise be mapped and cleared by the system each time, which
    takes longer than most of what is done with it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_MMAP_THRESHOLD, 1 << 28)
    mallopt(_TRIM_THRESHOLD, 1 << 29)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with ``count`` torch threads and set the former number again.

    Networks of this size are fastest with one, and one gives the same sums on every machine.
    """
    _keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
