"""The exit codes of every command, in one place for the code that uses them and for the docs."""

from __future__ import annotations

import signal
from typing import Final

from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    TemporaryError,
    TestbedError,
    UsageError,
)

UNEXPECTED: Final = 70
"""EX_SOFTWARE of sysexits.h."""
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM

MEANINGS: Final[dict[int, str]] = {
    0: "Done. This includes runs in which a node died or that missed their limits of fidelity: "
    "their state (`degraded`, `invalid`) tells.",
    TestbedError.exit_code: "Not done, for another reason: `run`, when the run was stopped "
    "from elsewhere; any command, when the reader of its output has gone.",
    UsageError.exit_code: "What was asked for is impossible: a wrong option, a wrong scenario "
    "(`scenario validate`), an unknown scheduler, run or testbed, a name that is taken, a file "
    "that exists. Nothing was changed.",
    PrerequisiteMissing.exit_code: "Something that is needed is missing: no task log yet, no home "
    "that can be written, no answer from a cluster's API server. `doctor` found a problem.",
    TemporaryError.exit_code: "Something did not answer in time: the controller, a locked or "
    "unreachable task log. The same command may succeed later.",
    PermanentError.exit_code: "Refused or impossible here: a damaged task log, one of another "
    "version or that cannot be written, a place for results that cannot be written, a full disk, "
    "a process that ended while starting, a run that failed.",
    UNEXPECTED: "A defect of this toolkit; `--debug` shows where.",
    INTERRUPTED: "Interrupted by Ctrl-C. `run` has stopped its run, `up` has removed what it "
    "started; a second Ctrl-C ends them at once.",
    TERMINATED: "Ended by SIGTERM; cleans up as after Ctrl-C.",
}
"""Meaning of each exit code, as Markdown."""
