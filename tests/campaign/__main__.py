"""``python -m tests.campaign``: run a campaign; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.campaign import REPORT, Plan, carry_out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    options = _parser().parse_args(arguments)
    plan = Plan(
        faults=options.faults,
        seed=options.seed,
        stores=tuple(options.stores.split(",")),
        hdfs=options.hdfs,
        long=options.long,
        only=tuple(int(each) for each in options.only.split(",") if each),
        kinds=tuple(each for each in options.kinds.split(",") if each),
        lanes=options.lanes,
    )
    began = time.monotonic()
    counts = carry_out(plan, options.out, lambda line: _write(sys.stderr, line))
    for result in counts.failed:
        _write(sys.stderr, f"repeat #{result.trial.number}: {plan.repeat(result.trial.number)}")
    _write(sys.stderr, f"report: {options.out / REPORT}")
    _write(sys.stdout, counts.line(time.monotonic() - began))
    return 1 if counts.failed else 0


def _write(stream: object, line: str) -> None:
    stream.write(f"{line}\n")  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--faults", type=int, default=40, help="number of faults")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn")
    parser.add_argument("--stores", default="sqlite", help="task logs to draw from: sqlite,mysql")
    parser.add_argument("--hdfs", action="store_true", help="with faults of a real HDFS")
    parser.add_argument("--long", action="store_true", help="with faults that take minutes")
    parser.add_argument("--only", default="", help="repeat these trials alone: 17 or 3,17")
    parser.add_argument("--kinds", default="", help="deal only these faults")
    parser.add_argument("--lanes", type=int, default=2, help="networks side by side")
    parser.add_argument(
        "--out", type=Path, default=Path("crash-campaign"), help="folder of the report"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
