"""The paper's learner with one target for both Q networks, as in the authors' released code.

The paper has a target for each (section IV-C2). With one, which follows the first Q network, the
smaller of two targets is that one, so nothing is left of the second network in what is learned
towards: an estimate that is too high is no longer held down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import nn

from trainer.learning.cql import CqlConfig, CqlLearner
from trainer.learning.module import OffloadingModule
from trainer.learning.stepping import described


@dataclass(frozen=True, slots=True)
class SharedTargetConfig(CqlConfig):
    """Settings of the learner: those of ``cql``.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    name: ClassVar[str] = "shared-target"

    def algorithm(self) -> AlgorithmConfig:
        """Return RLlib's description of the learner."""
        return described(self, SharedTargetLearner)


class SharedTargetLearner(CqlLearner):
    """RLlib learner of the losses of ``cql``; both targets follow the first Q network."""

    def build(self) -> None:
        """Build like ``cql``, then let both targets begin alike, as they go on."""
        super().build()
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        for target, source in self.target_pairs(module):
            target.load_state_dict(source.state_dict())

    def target_pairs(self, module: OffloadingModule) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Return both targets, each with the first Q network."""
        return tuple((target, module.q1) for target, _ in super().target_pairs(module))
