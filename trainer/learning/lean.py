"""Gradient steps of a learner in this process: without what only a cluster needs, on two threads.

RLlib's learners log, convert and check around every minibatch; at these sizes that takes as long
as the mathematics. What is here does the same operations on the same tensors in the same order, so
that weights and metrics are equal bit for bit (the tests hold them to it). Networks that learn
without each other are trained side by side, each in a thread of its own. Where they would have to
meet in every step, as in offline training, handing over costs more than the second thread gains.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from testbed.sim.engine.threads import usual_threads


class Beside:
    """Runs two jobs at a time, the second in another thread; in this one if threads are 1.

    ``threads`` None takes ``testbed.sim.engine.threads.usual_threads``. A context manager.
    ``given_up`` is set once the first job has failed or was interrupted: a second one that takes
    long looks at it and ends early, because its caller waits for it.
    """

    def __init__(self, threads: int | None = None) -> None:
        wanted = usual_threads() if threads is None else threads
        self._pool = ThreadPoolExecutor(1) if wanted > 1 else None
        self.given_up = threading.Event()

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def both(self, here: Callable[[], None], there: Callable[[], None]) -> None:
        """Run both jobs; returns when both are done. Raises what either raises."""
        if self._pool is None:
            there()
            here()
            return
        self.given_up.clear()
        future = self._pool.submit(there)
        try:
            here()
            future.result()
        except BaseException:
            self.given_up.set()
            raise
        finally:
            # Also when this one failed: the other works on the same learner.
            future.exception()


class Adam(torch.optim.Adam):
    """PyTorch's fused Adam, which can also step some of its parameters by ``step_some``."""

    # PyTorch's own is wrapped for its compiler, whose import would take longer than all the rest
    # of the start.
    add_param_group = getattr(
        torch.optim.Optimizer.add_param_group,
        "__wrapped__",
        torch.optim.Optimizer.add_param_group,
    )

    def step_some(self, parameters: Iterable[Tensor]) -> None:
        """Step these parameters by their gradients, as ``step`` does all of them."""
        (group,) = self.param_groups
        beta1, beta2 = group["betas"]
        chosen = [parameter for parameter in parameters if parameter.grad is not None]
        moments = [self._moments(parameter) for parameter in chosen]
        steps = [each["step"] for each in moments]
        with torch.no_grad():
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                chosen,
                [parameter.grad for parameter in chosen if parameter.grad is not None],
                [each["exp_avg"] for each in moments],
                [each["exp_avg_sq"] for each in moments],
                [],
                steps,
                amsgrad=False,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )

    def _moments(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def descend(loss: Tensor, parameters: list[Tensor], optimizer: Adam, diverged: Exception) -> None:
    """Take one gradient step of ``parameters``, on which alone ``loss`` depends.

    Raises ``diverged`` where the loss is no longer finite; nothing has been changed then.
    """
    if not bool(torch.isfinite(loss)):
        raise diverged
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    optimizer.step_some(parameters)
