"""``python -m testbed.experiment.pricing``: learn the price of ``priced`` again, from nothing.

Progress goes to stderr, the price to stdout as JSON. Nothing is written: the price that ships
stands in ``testbed.model.work_price``, and ``priced`` takes another by its options. What it reaches
says ``python -m testbed.experiment.per_destination --order``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time

from testbed.errors import UsageError
from trainer.pricing import PricingConfig, PricingIteration, learn_price


def main() -> int:
    """Learn, tell how it goes, print the price."""
    defaults = PricingConfig()
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiment.pricing", description=__doc__
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--iterations", type=int, default=defaults.iterations)
    parser.add_argument("--threads", type=int, help="default: one per CPU")
    given = parser.parse_args()
    try:
        config = dataclasses.replace(defaults, **vars(given))
    except UsageError as error:
        parser.error(str(error))
    began = time.monotonic()

    def tell(iteration: PricingIteration) -> None:
        done = iteration.number + 1
        left = (time.monotonic() - began) / done * (config.iterations - done)
        numbers = ", ".join(
            f"{name} {value:.2f}" for name, value in iteration.price._asdict().items()
        )
        sys.stderr.write(
            f"{done} of {config.iterations}: {numbers}; success {iteration.success_rate:.3f}, "
            f"{left:.0f} s left\n"
        )

    price = learn_price(config, tell)
    rounded = {name: round(value, 3) for name, value in price._asdict().items()}
    sys.stdout.write(json.dumps(rounded) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
