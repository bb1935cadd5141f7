"""Learners, one in this process or several on a Ray cluster, behind one set of calls.

With ``num_learners`` 0 nothing of Ray is started. With more, an already connected cluster is
used; gradients are averaged over the learners and their weights stay equal.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from testbed.errors import PermanentError, PrerequisiteMissing, Problem, UsageError
from trainer.learning.checkpoint import Arrays

_ADAM_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def learner_group(
    config: AlgorithmConfig, spec: RLModuleSpec, num_learners: int = 0
) -> LearnerGroup:
    """Build the learner (0: in this process) or ``num_learners`` remote ones.

    The workers of a cluster must be able to import this package. Call ``shutdown`` when done.

    Raises:
        PrerequisiteMissing: remote learners asked for and no Ray cluster connected; one is never
            started from here.
    """
    if num_learners and not ray.is_initialized():
        raise PrerequisiteMissing(
            f"{num_learners} remote learners need a Ray cluster and none is connected",
            "give the address of a cluster, or use 0 learners to train in this process",
        )
    config = config.copy(copy_frozen=False)
    # Learners reserve no processor: they and the rollouts take turns, and learners that kept all
    # processors to themselves would wait for ever for rollouts that find none.
    config.learners(num_learners=num_learners, num_cpus_per_learner=0, num_gpus_per_learner=0)
    with _quiet_deprecations():
        return LearnerGroup(config=config, module_spec=spec)


def learn_here(group: LearnerGroup, **arguments: Any) -> None:
    """Call ``learn`` of the learner in this process, which ``group`` must be.

    Raises:
        PermanentError: the loss is no longer finite.
    """
    group.foreach_learner(_learn, **arguments)


def read_state(group: LearnerGroup) -> Arrays:
    """Weights (``module/...``) and Adam moments (``adam/...``) of the learners, as copies."""
    state: Arrays = _first(group, _read_learner)
    return state


def write_state(group: LearnerGroup, state: Mapping[str, NDArray[Any]]) -> None:
    """Set weights and Adam moments of all learners to what `read_state` gave.

    Raises:
        UsageError: names or shapes differ from those of this learner; nothing is changed then.
    """
    _every(group, _write_learner, state=dict(state))


def write_weights(group: LearnerGroup, weights: Mapping[str, NDArray[Any]]) -> None:
    """Set the named weights only, keeping all others and the optimiser as they are.

    Raises:
        UsageError: an unknown name or a wrong shape; nothing is changed then.
    """
    _every(group, _write_weights, weights=dict(weights))


def read_weights(group: LearnerGroup) -> Arrays:
    """Return the weights of the module by name (``pi.0.weight`` ...), as copies."""
    weights: Arrays = _first(group, _read_weights)
    return weights


def write_learning_rate(group: LearnerGroup, rate: float) -> None:
    """Set the step size of all optimisers from the next update on."""
    _every(group, _write_rate, rate=rate)


def read_metrics(group: LearnerGroup) -> dict[str, float]:
    """Return the means the learners kept of their last update, averaged over learners."""
    per_learner: list[dict[str, float]] = _every(group, _last_metrics)
    return {
        name: float(np.mean([metrics[name] for metrics in per_learner])) for name in per_learner[0]
    }


@contextmanager
def _quiet_deprecations() -> Iterator[None]:
    """Hide what Ray logs and warns about its own use of its own deprecated settings."""
    logger = logging.getLogger("ray._common.deprecation")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)


def _learn(learner: TorchLearner, **arguments: Any) -> None:
    learner.learn(**arguments)


def _write_rate(learner: TorchLearner, *, rate: float) -> None:
    for _, optimizer in learner.get_optimizers_for_module(DEFAULT_MODULE_ID):
        for parameter_group in optimizer.param_groups:
            parameter_group["lr"] = rate


def _last_metrics(learner: TorchLearner) -> dict[str, float]:
    return dict(learner.last_metrics)


def _read_weights(learner: TorchLearner) -> Arrays:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    state = module.state_dict()
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def _write_weights(learner: TorchLearner, *, weights: Arrays) -> None:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    own = module.state_dict()
    _check_fit({name: weights.get(name) for name in weights}, own)
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(torch.as_tensor(value))


def _adam(learner: TorchLearner) -> Iterator[tuple[str, torch.optim.Optimizer, torch.Tensor]]:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for _, optimizer in learner.get_optimizers_for_module(DEFAULT_MODULE_ID):
        for parameter_group in optimizer.param_groups:
            for parameter in parameter_group["params"]:
                yield names[id(parameter)], optimizer, parameter


def _read_learner(learner: TorchLearner) -> Arrays:
    state = {f"module/{name}": value for name, value in _read_weights(learner).items()}
    for name, optimizer, parameter in _adam(learner):
        moments = optimizer.state.get(parameter, {})
        for moment in _ADAM_MOMENTS:
            if moment in moments:
                value = torch.as_tensor(moments[moment]).detach().cpu().numpy()
                state[f"adam/{moment}/{name}"] = np.array(value)
    return state


def _write_learner(learner: TorchLearner, *, state: Arrays) -> None:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    own: dict[str, torch.Tensor] = {
        f"module/{name}": value for name, value in module.state_dict().items()
    }
    known = dict(own)
    for name, _, parameter in _adam(learner):
        known[f"adam/step/{name}"] = torch.zeros(())
        known[f"adam/exp_avg/{name}"] = known[f"adam/exp_avg_sq/{name}"] = parameter
    _check_fit({**dict.fromkeys(own), **state}, known)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(torch.as_tensor(state[name]))
    for name, optimizer, parameter in _adam(learner):
        moments = {
            moment: torch.tensor(state[f"adam/{moment}/{name}"])
            for moment in _ADAM_MOMENTS
            if f"adam/{moment}/{name}" in state
        }
        optimizer.state.pop(parameter, None)
        if moments:
            optimizer.state[parameter] = moments


def _check_fit(given: Mapping[str, NDArray[Any] | None], known: Mapping[str, torch.Tensor]) -> None:
    problems = []
    for name, value in given.items():
        if name not in known:
            problems.append(Problem(name, "no such array in this learner", ""))
        elif value is None:
            problems.append(Problem(name, "missing", f"shape {tuple(known[name].shape)}"))
        elif tuple(value.shape) != tuple(known[name].shape):
            problems.append(
                Problem(name, f"shape {value.shape}", f"shape {tuple(known[name].shape)}")
            )
    if problems:
        raise UsageError("this state belongs to another network", problems)


def _every(group: LearnerGroup, call: Callable[..., Any], **arguments: Any) -> list[Any]:
    results = []
    for result in group.foreach_learner(call, **arguments):
        if not result.ok:
            error = result.get()
            cause = getattr(error, "cause", None)
            if isinstance(cause, UsageError):
                raise cause
            raise PermanentError(f"a learner failed: {error}") from error
        results.append(result.get())
    return results


def _first(group: LearnerGroup, call: Callable[..., Any]) -> Any:
    return _every(group, call)[0]
