"""What the offline learners share: an RLlib learner that takes one gradient step per minibatch.

A learner is a subclass with its ``losses`` and a settings class (``Settings``), in a file of its
own, and a line in ``trainer.learning.learners``. It needs nothing else: batches, optimiser,
targets, checkpoints and the hand-over to the online phase are common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, nn

from testbed.errors import PermanentError, check_settings
from trainer.learning.checkpoint import Arrays
from trainer.learning.lean import Adam, descend
from trainer.learning.module import ONLINE_PARTS, OffloadingModule

Check = tuple[str, bool, str]
"""A setting, whether it is fine, and what is allowed."""


class Settings(Protocol):
    """Settings of an offline learner, a frozen dataclass; in checkpoints under ``name``."""

    name: ClassVar[str]
    """What ``--learner`` and checkpoints call it."""

    twin_q: ClassVar[bool]
    """Whether the module has Q networks, with their targets."""

    @property
    def learning_rate(self) -> float:
        """Adam step size of all networks."""

    @property
    def gamma(self) -> float:
        """Discount per slot, in [0, 1]."""

    @property
    def batch_size(self) -> int:
        """Agent rows per gradient step."""

    def algorithm(self) -> AlgorithmConfig:
        """Return RLlib's description of the learner (``described``)."""

    def handed_over(self, weights: Arrays) -> Arrays:
        """Return the actor (``pi.*``) and value critic (``vf.*``) of the module's weights."""


def check_learner(settings: Settings, *own: Check) -> None:
    """Refuse settings of which a value is outside its range: what all have, and their ``own``.

    Raises:
        UsageError: all values that are not fine are listed.
    """
    checks = (
        ("learning_rate", settings.learning_rate > 0, "above 0"),
        ("gamma", 0 <= settings.gamma <= 1, "0 to 1"),
        ("batch_size", settings.batch_size >= 1, "at least 1"),
        *own,
    )
    check_settings("invalid settings of the offline training", settings.name, settings, checks)


def described(settings: Settings, learner: type[StepLearner]) -> AlgorithmConfig:
    """RLlib's description of a learner; no Algorithm is ever made of it."""
    found = AlgorithmConfig()
    found.framework("torch")
    found.training(gamma=settings.gamma)
    found.learners(learner_class=learner, learner_config_dict={SETTINGS: settings})
    return found


SETTINGS: Final = "settings"
"""Key of the settings in the learner's own dictionary."""


def actor_and_critic(weights: Arrays) -> Arrays:
    """Return the parts that go to the online phase, of a module whose actor was trained."""
    return {name: value for name, value in weights.items() if name.split(".", 1)[0] in ONLINE_PARTS}


def entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of masked logits [B, A], for the log; no gradient."""
    with torch.no_grad():
        log_prob = torch.log_softmax(logits, dim=-1)
        found: Tensor = -(log_prob.exp() * log_prob).sum(-1).mean()
    return found


class StepLearner(TorchLearner):  # type: ignore[misc]
    """RLlib learner of the losses of a subclass; targets move after every gradient step.

    All losses share one backward pass: the networks have no parameter in common and what one loss
    takes from another network is detached, so each gets the gradient of its own loss only.
    """

    TRAINED: ClassVar[tuple[str, ...]] = ()
    """Names of the losses that are descended; the others are for the log."""

    def losses(self, module: OffloadingModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scalar losses of one minibatch, and what else is for the log."""
        raise NotImplementedError

    def build(self) -> None:
        """Build like any RLlib learner, then find the settings in the learner's own dictionary."""
        super().build()
        self.settings: Any = self.config.learner_config_dict[SETTINGS]
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self.last_metrics: dict[str, float] = {}
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        pairs = self.target_pairs(module)
        self._targets: list[Tensor] = [p for target, _ in pairs for p in target.parameters()]
        self._sources: list[Tensor] = [p for _, source in pairs for p in source.parameters()]

    def target_pairs(self, module: OffloadingModule) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Return each target network with the one that it follows."""
        return module.target_pairs() if module.twin_q else ()

    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        """One Adam over everything that is trained; the targets are not."""
        module = self.module[module_id].unwrapped()
        trained = [p for p in module.parameters() if p.requires_grad]
        rate = float(self.config.learner_config_dict[SETTINGS].learning_rate)
        optimizer = Adam(trained, lr=rate, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=trained)

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: AlgorithmConfig,
        batch: dict[str, Tensor],
        fwd_out: dict[str, Tensor],
    ) -> Tensor:
        """Return the sum of the trained losses of one minibatch."""
        return self._noted(self.losses(self.module[module_id].unwrapped(), batch))

    def compute_gradients(
        self, loss_per_module: dict[str, Tensor], **kwargs: Any
    ) -> dict[Any, Tensor]:
        """Gradients of the summed losses.

        Raises:
            PermanentError: the loss is no longer finite.
        """
        for loss in loss_per_module.values():
            if not bool(torch.isfinite(loss)):
                raise diverged()
        gradients: dict[Any, Tensor] = super().compute_gradients(loss_per_module, **kwargs)
        return gradients

    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        """Step the optimiser, then move each target towards its own network by tau."""
        for parameter, gradient in gradients_dict.items():
            parameter.grad = gradient
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            optimizer.step()
        self._follow()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Close the running means of the losses since the last call."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._close()

    def learn(self, batch: Mapping[str, Tensor], size: int) -> None:
        """Take one gradient step for every ``size`` rows of ``batch``, as ``update`` does."""
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        ((_, optimizer),) = self.get_optimizers_for_module(DEFAULT_MODULE_ID)
        parameters = [each for each in module.parameters() if each.requires_grad]
        for first in range(0, len(batch[Columns.ACTIONS]), size):
            part = {name: column[first : first + size] for name, column in batch.items()}
            losses = self.losses(module, part)
            descend(self._total(losses), parameters, optimizer, diverged())
            self._follow()
            self._note(losses)
        self._close()

    def _follow(self) -> None:
        if self._targets:
            with torch.no_grad():
                torch._foreach_lerp_(self._targets, self._sources, self.settings.tau)

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([losses[name] for name in self.TRAINED]).sum()

    def _noted(self, losses: Mapping[str, Tensor]) -> Tensor:
        self._note(losses)
        return self._total(losses)

    def _note(self, losses: Mapping[str, Tensor]) -> None:
        for name, value in losses.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def _close(self) -> None:
        steps = max(1, self._steps)
        self.last_metrics = {name: float(total) / steps for name, total in self._sums.items()}
        self._sums, self._steps = {}, 0


def next_value(module: OffloadingModule, batch: Mapping[str, Tensor], gamma: float) -> Tensor:
    """Return r + gamma V(o') by the value critic [B], without V where the episode terminated.

    Without a discount ``batch`` need not have what follows. No gradient.
    """
    reward = batch[Columns.REWARDS]
    if not gamma:
        return reward
    with torch.no_grad():
        following, _ = module.split(batch[Columns.NEXT_OBS])
        value = module.vf(following).squeeze(-1)
        return reward + gamma * torch.where(batch[Columns.TERMINATEDS], 0.0, value)


def diverged() -> PermanentError:
    """Return the error of a loss that is no longer finite."""
    return PermanentError(
        "offline training diverged: the loss is no longer finite; "
        "use a smaller learning rate, or go on from an earlier checkpoint"
    )
