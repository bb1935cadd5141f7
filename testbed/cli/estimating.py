"""``policy estimate``: the success rate of a policy from logs of others, before it is deployed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from testbed.api.policies import resolved, surroundings
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import Artifacts, Json, Name, quoted
from testbed.cli.tuning import check_learning_is_possible

if TYPE_CHECKING:
    from trainer.estimation.estimate import Estimate, Estimated

FEW: Final = 200
"""Effective decisions below which weighted outcomes say little."""


def estimate(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="Policy id or a unique prefix, its key, or its folder (./FOLDER).",
        ),
    ],
    data_set: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="Name of a data set of this home, or its folder: logs of other schedulers.",
        ),
    ],
    gamma: Annotated[
        float | None,
        typer.Option(
            "--gamma",
            metavar="X",
            help="Discount per slot of a node's later tasks, below 1. Default: 0, each task alone.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", min=1, help="Gradient steps of the Q evaluation."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Random seed of the estimate.")
    ] = 0,
    name: Name = "default",
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Estimate the success rate of a policy from a data set of logs in which it did not decide."""
    check_learning_is_possible("estimating")
    from testbed.api.data_sets import folder_of
    from testbed.storage.dataset import load
    from trainer.estimation.estimate import EstimateConfig
    from trainer.estimation.estimate import estimate as estimated
    from trainer.estimation.fqe import FqeConfig
    from trainer.estimation.from_data_set import logged_of, probabilities_of, without_bits

    given = {"gamma": gamma, "steps": steps}
    settings: dict[str, Any] = {key: each for key, each in given.items() if each is not None}
    config = EstimateConfig(FqeConfig(seed=seed, **settings))
    found = resolved(policy, surroundings(name, artifacts)[0])
    data = load(folder_of(data_set))
    logged, probabilities = logged_of(data), probabilities_of(found, data)
    result = estimated(probabilities, logged, config)
    if silent := without_bits(data):
        console.warn(
            f"{', '.join(silent)} asked for no overload bits, so the masks that the policy would "
            "have had are not in these logs; all destinations count as allowed"
        )
    if result.effective < FEW:
        console.warn(
            f"the {result.decisions} decisions weigh as much as {result.effective:.0f}: the policy "
            "seldom does what these logs have; trust neither of the weighted estimates"
        )
    if as_json:
        console.emit({"policy": found.card.id, "data_set": data_set, **document(result)})
        return
    table = console.Rows(["ESTIMATE", ">SUCCESS", "INTERVAL", "FROM"])
    told = {
        "fqe": "values fitted to the logs",
        "doubly-robust": "values, corrected by weighted outcomes",
        "importance": "weighted outcomes alone",
    }
    for estimator, each in result.estimates.items():
        table.add(console.mark(estimator, "cyan"), *_shown(each), told[estimator])
    table.add("logs", *_shown(result.logged), "what decided in them: " + ", ".join(data.policy))
    console.show(table)
    console.next_command(
        f"testbed policy evaluate {quoted(policy)} {data.metadata['scenario']}",
        with_name(f"testbed policy deploy {quoted(policy)}", name),
    )


def document(result: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values for JSON."""

    def known(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 6)

    def plain(each: Estimated) -> dict[str, float | None]:
        return {"rate": known(each.rate), "low": known(each.low), "high": known(each.high)}

    return {
        "estimates": {name: plain(each) for name, each in result.estimates.items()},
        "logged": plain(result.logged),
        "episodes": result.episodes,
        "decisions": result.decisions,
        "effective_decisions": known(result.effective),
        "weights_cut": known(result.cut),
    }


def _shown(each: Estimated) -> tuple[str, str]:
    return f"{100 * each.rate:.1f} %", f"{100 * each.low:.1f} .. {100 * each.high:.1f}"
