"""The process in which ``testbed.policies.trial`` tries a policy."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, Final

from testbed.errors import TestbedError, UsageError
from testbed.policies import inference
from testbed.policies.artifact import Policy
from testbed.policies.card import PolicyCard
from testbed.policies.trial import CPU_S, LARGEST_ANSWER, MEMORY_BYTES, SOURCE


def main() -> None:
    """Try the policy on standard input, and write its problems to standard output."""
    # What reads the answer reads nothing else, whatever a library prints.
    answer = os.dup(1)
    os.dup2(2, 1)
    header: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    policy = Policy(PolicyCard.from_json(header["card"]), sys.stdin.buffer.read(), "tried")

    inference.import_runtime()
    _bound()
    problems: list[list[str]] = []
    try:
        inference.load_actor(policy)
    except UsageError as error:
        problems = [[each.path, each.seen, each.allowed] for each in error.problems]
        if any(sign in each.seen for each in error.problems for sign in _NO_MEMORY):
            seen = f"needs more than {MEMORY_BYTES >> 20} MiB of memory"
            problems = [[SOURCE, seen, "a graph that needs less"]]
    except TestbedError as error:
        problems = [[SOURCE, str(error), ""]]
    except MemoryError:
        seen = f"needs more than {MEMORY_BYTES >> 20} MiB of memory"
        problems = [[SOURCE, seen, "a graph that needs less"]]
    os.write(answer, json.dumps({"problems": problems})[:LARGEST_ANSWER].encode())
    # Not the way through all destructors: some of a graph that failed may fail too.
    os._exit(0)


_NO_MEMORY: Final = ("bad_alloc", "bad allocation", "Failed to allocate", "MemoryError", "std::bad")


def _bound() -> None:
    """Bound what this process may still use, from here on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + 1 + CPU_S
    bounds = {resource.RLIMIT_CPU: (cpu, cpu + 1), resource.RLIMIT_CORE: (0, 0)}
    bounds[resource.RLIMIT_FSIZE] = (0, 0)
    with contextlib.suppress(OSError):
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        memory = mapped * resource.getpagesize() + MEMORY_BYTES
        bounds[resource.RLIMIT_AS] = (memory, memory)
    for which, bound in bounds.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, bound)
