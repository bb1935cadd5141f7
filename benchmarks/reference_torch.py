"""The offline and online updates in bare PyTorch: the yardstick of the learners' overhead.

Same networks, losses, minibatch sizes and number of gradient steps as ``trainer.learning``, without
RLlib, checks or metrics. Only for measuring; the losses that count are tested in the trainer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MASKED = -1e9


def network(features: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
    )


class BareCql:
    """Discrete soft actor-critic with the CQL regulariser and a value critic."""

    def __init__(self, features: int, actions: int) -> None:
        self.pi, self.vf = network(features, actions), network(features, 1)
        self.q1, self.q2 = network(features, actions), network(features, actions)
        self.t1, self.t2 = network(features, actions), network(features, actions)
        trained = [p for n in (self.pi, self.vf, self.q1, self.q2) for p in n.parameters()]
        self.targets: list[Tensor] = [p for n in (self.t1, self.t2) for p in n.parameters()]
        self.sources: list[Tensor] = [p for n in (self.q1, self.q2) for p in n.parameters()]
        self.adam = torch.optim.Adam(trained, lr=3e-4)

    def step(
        self,
        obs: Tensor,
        mask: Tensor,
        action: Tensor,
        reward: Tensor,
        following: Tensor,
        next_mask: Tensor,
    ) -> None:
        """Do one gradient step on a minibatch."""
        with torch.no_grad():
            log_next = torch.log_softmax(torch.where(next_mask, self.pi(following), MASKED), -1)
            q_next = torch.minimum(self.t1(following), self.t2(following))
            y = reward + 0.99 * (log_next.exp() * (q_next - 0.05 * log_next)).sum(-1)
            judged = torch.minimum(self.t1(obs), self.t2(obs))
        loss = (self.vf(obs).squeeze(-1) - y).square().mean()
        for q_network in (self.q1, self.q2):
            q = q_network(obs)
            chosen = q.gather(1, action.unsqueeze(1)).squeeze(1)
            gap = torch.logsumexp(torch.where(mask, q, MASKED), -1) - chosen
            loss = loss + (chosen - y).square().mean() + 0.1 * gap.mean()
        log_prob = torch.log_softmax(torch.where(mask, self.pi(obs), MASKED), -1)
        loss = loss - (log_prob.exp() * (judged - 0.05 * log_prob)).sum(-1).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.targets, self.sources, 5e-4)


class BarePpo:
    """Clipped surrogate and value error over several epochs of shuffled minibatches."""

    def __init__(self, features: int, actions: int) -> None:
        self.pi, self.vf = network(features, actions), network(features, 1)
        trained = [p for n in (self.pi, self.vf) for p in n.parameters()]
        self.adam = torch.optim.Adam(trained, lr=3e-4)

    def update(
        self,
        obs: Tensor,
        mask: Tensor,
        action: Tensor,
        log_prob: Tensor,
        reward: Tensor,
        *,
        epochs: int,
        minibatch: int,
    ) -> None:
        """Do one update on S sequences of T decisions: obs [S, T + 1, D], action [S, T]."""
        with torch.no_grad():
            value = self.vf(obs).squeeze(-1)
            delta = reward + 0.99 * value[:, 1:] - value[:, :-1]
            advantage, running = torch.zeros_like(delta), torch.zeros(len(delta))
            for t in range(delta.shape[1] - 1, -1, -1):
                running = delta[:, t] + 0.99 * 0.95 * running
                advantage[:, t] = running
            target = (advantage + value[:, :-1]).reshape(-1)
            advantage = advantage.reshape(-1)
            advantage = (advantage - advantage.mean()) / advantage.std()
        obs, mask = obs[:, :-1].flatten(0, 1), mask[:, :-1].flatten(0, 1)
        action, log_prob = action.reshape(-1), log_prob.reshape(-1)
        for _ in range(epochs):
            for rows in torch.randperm(len(action)).split(minibatch):
                logits = torch.where(mask[rows], self.pi(obs[rows]), MASKED)
                now = torch.log_softmax(logits, -1).gather(1, action[rows].unsqueeze(1)).squeeze(1)
                ratio = (now - log_prob[rows]).exp()
                gain = torch.minimum(
                    ratio * advantage[rows], ratio.clamp(0.8, 1.2) * advantage[rows]
                )
                error = self.vf(obs[rows]).squeeze(-1) - target[rows]
                loss = -gain.mean() + error.square().mean()
                self.adam.zero_grad()
                loss.backward()
                self.adam.step()
