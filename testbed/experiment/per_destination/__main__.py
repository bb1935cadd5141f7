"""``python -m testbed.experiment.per_destination FOLDER``: train the policy that ships again.

It is written to the folder. Progress goes to stderr, the final table to stdout as JSON. With
``--shipped`` instead of a folder nothing is trained, and the table is of the policy that ships.
With ``--order`` it is about the order within slots and refusal, of the policies that ship.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from testbed.errors import UsageError
from testbed.experiment.per_destination.evaluation import (
    CHOICE_TOPOLOGIES,
    FINAL_TOPOLOGIES,
    NETWORKS,
    compare,
)
from testbed.experiment.per_destination.order import compare_order
from testbed.model.per_destination import NAME, STATE_NAME
from testbed.policies import shipped
from testbed.sim.engine.policies import weights_of
from trainer.per_destination.export import write_policy
from trainer.per_destination.train import (
    EXAMPLES,
    Iteration,
    PerDestinationConfig,
    PerDestinationResult,
    train_per_destination,
)


def main() -> int:
    """Train, evaluate on the networks of the final test, write."""
    defaults = PerDestinationConfig()
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiment.per_destination", description=__doc__
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("folder", type=Path, nargs="?")
    where.add_argument("--shipped", action="store_true", help="only evaluate the policy that ships")
    where.add_argument(
        "--order",
        action="store_true",
        help="only evaluate the policies that ship with and without turns and refusal",
    )
    parser.add_argument(
        "--network",
        action="append",
        choices=tuple(NETWORKS),
        help="with --order: only this network; repeatable",
    )
    parser.add_argument(
        "--load",
        action="append",
        type=float,
        help="with --order: scale the work of tasks to this offered load; repeatable",
    )
    parser.add_argument("--episodes", type=int, default=40, help="with --order: of each network")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--iterations", type=int, default=defaults.iterations)
    parser.add_argument(
        "--information",
        default=defaults.information,
        metavar="KIND",
        help=f"what the policy asks its peers: {', '.join(EXAMPLES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, default=None, help="of episodes; default: one per CPU"
    )
    parser.add_argument(
        "--choose", action="store_true", help="evaluate on the networks for choices instead"
    )
    given = parser.parse_args()
    topologies = CHOICE_TOPOLOGIES if given.choose else FINAL_TOPOLOGIES
    if given.order:
        names, loads = given.network or tuple(NETWORKS), given.load or (None,)
        known = {name: weights_of(shipped(name)) for name in (NAME, STATE_NAME)}
        found = compare_order(known, topologies, given.episodes, names, loads, _evaluated)
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    try:
        config = dataclasses.replace(
            defaults,
            seed=given.seed,
            iterations=given.iterations,
            information=given.information,
            threads=given.threads,
        )
    except UsageError as error:
        parser.error(str(error))
    result = None if given.shipped else train_per_destination(config, _tell)
    weights = weights_of(shipped()) if result is None else result.weights
    asks = None if result is None else config.asks
    table = compare(weights, topologies, progress=_evaluated, asks=asks)
    if result is not None:
        _say(f"trained in {result.seconds:.0f} s, {result.processor_seconds:.0f} s of processors")
        write_policy(
            weights,
            given.folder,
            "per-destination",
            asks=asks,
            training=training_of(result),
            evaluation={"topologies": list(topologies), "episodes": 40, "networks": table},
        )
    sys.stdout.write(json.dumps(table, indent=2) + "\n")
    return 0


def training_of(result: PerDestinationResult) -> dict[str, object]:
    """Return the facts of the training, for the card of the policy.

    Nothing that differs between runs or machines: the id of the policy is a hash of its card.
    """
    config = result.config
    return {
        "seed": config.seed,
        "information": config.information,
        "iterations": config.iterations,
        "episodes": sum(iteration.episodes for iteration in result.history),
        "decisions": sum(iteration.decisions for iteration in result.history),
        "networks": [
            {
                "family": group.family.name,
                "nodes": list(group.sizes),
                "episodes_per_iteration": group.episodes,
            }
            for group in config.groups
        ],
    }


def _evaluated(name: str) -> None:
    _say(f"evaluated {name}")


def _tell(iteration: Iteration) -> None:
    rates = ", ".join(f"{name} {rate:.3f}" for name, rate in iteration.success_rate.items())
    _say(
        f"{iteration.number + 1}: {rates}; entropy {iteration.entropy:.2f}, "
        f"{iteration.seconds:.1f} s"
    )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
