"""The input of an estimate from files: a data set of logged runs, and a policy's artifact."""

from __future__ import annotations

import numpy as np

from testbed.errors import Problem, UsageError
from testbed.policies import Policy
from testbed.policies.inference import open_actor
from testbed.storage.dataset import DataSet
from trainer.estimation.estimate import Probabilities
from trainer.learning.transitions import BoolArray, FloatArray
from trainer.o2o.logged import ASK_NO_BITS, LoggedSequences, of_data_set


def logged_of(data: DataSet) -> LoggedSequences:
    """Return a data set with the outcome of each decided task as its reward.

    Raises:
        UsageError: it is of an earlier release, whose data sets have no outcomes.
    """
    own = (2.0 * data.outcome - 1.0).astype(np.float32)
    if not np.isfinite(own).any():
        raise UsageError(
            "this data set has no outcomes of single tasks",
            [Problem("outcome", "missing", "build it again: `testbed dataset build`")],
        )
    lengths = np.diff(data.offsets)
    keys = list(zip(data.run, data.episode.tolist(), strict=True))
    places = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    row_episode = np.repeat([places[key] for key in keys], lengths)
    told = np.isfinite(own)
    succeeded = np.bincount(row_episode[told], data.outcome[told], minlength=len(places))
    tasks = np.bincount(row_episode[told], minlength=len(places))
    rates = np.where(tasks > 0, succeeded / np.maximum(tasks, 1), np.nan)
    return of_data_set(data, own, np.full_like(own, np.nan), rates)


def without_bits(data: DataSet) -> tuple[str, ...]:
    """Return the schedulers of a data set that asked no overload bits.

    Where they decided, the mask that a policy would have had is not known.
    """
    return tuple(name for name in data.policy if name in ASK_NO_BITS)


def probabilities_of(policy: Policy, data: DataSet) -> Probabilities:
    """Return what a policy gives for observations of ``data``, as nodes compute it.

    Raises:
        UsageError: the policy is made for other observations or another number of nodes, or its
            file cannot be used.
    """
    card = policy.card
    problems = []
    if card.kind != "flat" or card.encoder != data.encoder:
        problems.append(
            Problem(
                "encoder",
                f"{card.encoder} of the policy, {data.encoder} of the data set",
                f"a policy for {data.encoder}, or a data set built with the policy's encoder",
            )
        )
    elif card.nodes != data.nodes:
        problems.append(
            Problem("nodes", f"{card.nodes} of the policy, {data.nodes} of the data set", "equal")
        )
    if problems:
        raise UsageError(f"policy {card.id} does not fit this data set", problems)
    actor = open_actor(policy)

    def probabilities(obs: FloatArray, mask: BoolArray) -> FloatArray:
        found = np.zeros(mask.shape, np.float32)
        idle = mask[:, -1]
        found[idle, -1] = 1.0
        for row in np.flatnonzero(~idle):
            found[row] = actor.probabilities(obs[row].tolist(), mask[row].tolist())
        return found

    return probabilities
