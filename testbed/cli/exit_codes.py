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
    0: "Done. A run during which a node died, or that was not faithful, is done too: its state "
    "(`degraded`, `invalid`) says so.",
    TestbedError.exit_code: "Not done, for a reason that none of the others is: `run`, when the "
    "run was stopped from elsewhere; any command, when who reads its output has gone.",
    UsageError.exit_code: "What was asked for is impossible: a wrong option, a wrong scenario "
    "(`scenario validate`), an unknown scheduler, run or testbed, a name that is taken, a file "
    "that exists. Nothing was changed.",
    PrerequisiteMissing.exit_code: "Something needed is not there: no task log yet, no home that "
    "can be written. `doctor` found a problem.",
    TemporaryError.exit_code: "Something did not answer in time: the controller, a locked or "
    "unreachable task log. The same command may succeed later.",
    PermanentError.exit_code: "Something said no: a damaged task log, one of another version or "
    "that cannot be written, a place for results that cannot be written, a full disk, a process "
    "that ended while starting, a run that failed.",
    UNEXPECTED: "A defect of this toolkit; `--debug` shows where.",
    INTERRUPTED: "Interrupted by Ctrl-C. `run` has stopped its run, `up` has removed what it "
    "started; a second Ctrl-C ends them at once.",
    TERMINATED: "Ended by SIGTERM, as tidily as by Ctrl-C.",
}
"""Return the meaning of each exit code, as Markdown."""
