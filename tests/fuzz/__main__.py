"""``python -m tests.fuzz TARGET [--runs N] [--seed N]``: fuzz one parser, guided by coverage.

Ends with 0 when every input was read or refused by an error for users; otherwise the input that
was not is printed and kept, and the exit code is not 0.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final

MEMORY_MB: Final = 1024
"""Resident memory above which libFuzzer calls it a failure; the parsers need about 200 MB."""

INPUT_S: Final = 20
"""Most seconds that one input may take on a busy machine."""


def main() -> None:
    """Fuzz; does not return."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, help="inputs; as many as in the tests if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=Path, help="repeat one input that was kept")
    options = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["testbed"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[options.target]
        once, valid = target.make()
    if options.again is not None:
        once(options.again.read_bytes())
        return
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, each in enumerate(valid):
        (corpus / str(number)).write_bytes(each)
    atheris.Setup(
        [
            sys.argv[0],
            f"-runs={options.runs or target.inputs}",
            f"-seed={options.seed}",
            f"-max_len={target.length}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={INPUT_S}",
            "-print_final_stats=1",
            f"-artifact_prefix={corpus}/failed-",
            str(corpus),
        ],
        once,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stderr.write(f"{options.target}: {len(valid)} valid inputs, {peak} MB before\n")
    atheris.Fuzz()


if __name__ == "__main__":
    main()
