"""Nodes ask Linux for short slices."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

import pytest

from edgenode.slices import SLICE_NS, ask_for_short_slices

GET = {"x86_64": 315, "aarch64": 275}
"""Numbers of the system call ``sched_getattr``."""

ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def slice_and_nice() -> tuple[int, int]:
    """What Linux says of this thread."""
    answer = ctypes.create_string_buffer(ATTRIBUTES.size)
    number = GET[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, answer, ATTRIBUTES.size, 0) == 0
    _, _, _, nice, _, runtime, _, _ = ATTRIBUTES.unpack(answer.raw)
    return runtime, nice


def release() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split(".")[:2])


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in GET or release() < (6, 12),
    reason="Linux gives no slices that one can ask for",
)
def test_a_thread_gets_short_slices_and_keeps_its_nice_value() -> None:
    seen: list[tuple[int, int]] = []

    def asks() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
        assert ask_for_short_slices()
        seen.append(slice_and_nice())
        # Threads that it starts have them too.
        started = threading.Thread(target=lambda: seen.append(slice_and_nice()))
        started.start()
        started.join()

    thread = threading.Thread(target=asks)
    thread.start()
    thread.join()
    assert seen == [(SLICE_NS, 3), (SLICE_NS, 3)]
