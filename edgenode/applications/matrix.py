"""A real application: matrix work on the payload.

The bytes become square matrices of float32, which are multiplied with themselves as often as the
task's cycles ask for; the largest element of the products is the result. It takes as long as this
host needs, so measured execution times show the host and not the scenario.
"""

from __future__ import annotations

import os
from typing import Any, Final

from edgenode.applications.threaded import Function
from testbed.model.task import Task

SIDE: Final = 256
"""Rows and columns of one matrix."""

_OPERATIONS_PER_PRODUCT: Final = 2 * SIDE**3
_OPERATIONS_PER_CYCLE: Final = 8
"""Operations of a core per cycle with vector instructions; turns modelled cycles into products."""


class Matrix(Function):
    """Multiplies the matrices that a task's bytes make, for about ``cycles`` of one modern core.

    ``limit`` is the largest number of products per task, None is unbounded.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(work, {"limit": limit})


def work(task: Task, payload: bytes | None, limit: int | None = None) -> float:
    """Return the largest absolute element of the products; 0 for a task without bytes."""
    np = _numpy()
    values = np.frombuffer(payload or b"", dtype=np.uint8).astype(np.float32)
    matrices = np.resize(values, (max(1, values.size // SIDE**2), SIDE, SIDE)) / 255.0
    products = max(1, task.cycles * _OPERATIONS_PER_CYCLE // _OPERATIONS_PER_PRODUCT)
    if limit is not None:
        products = min(products, limit)
    largest = 0.0
    for i in range(products):
        matrix = matrices[i % len(matrices)]
        largest = max(largest, float(np.abs(matrix @ matrix).max()))
    return largest


def _numpy() -> Any:
    # One thread per node: a node is one server, and the host is shared by all nodes.
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    import numpy

    return numpy
