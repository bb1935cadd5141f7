"""The environment variables of this toolkit: their names, what they mean, and reading them.

All begin with ``TESTBED_``; those that begin with ``TESTBED_PROCESS_`` are for the processes of a
testbed and never for commands, so that a shell's own do not reach the nodes started from it.
docs/cli.md has `MEANINGS` as a table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

HOME: Final = "TESTBED_HOME"
NAME: Final = "TESTBED_NAME"
STORAGE: Final = "TESTBED_STORAGE"
ARTIFACTS: Final = "TESTBED_ARTIFACTS"
CONTROLLER: Final = "TESTBED_CONTROLLER"
RUNTIME: Final = "TESTBED_RUNTIME"
CONTEXT: Final = "TESTBED_CONTEXT"
NAMESPACE: Final = "TESTBED_NAMESPACE"
CREDENTIALS: Final = "TESTBED_CREDENTIALS"
TOKEN: Final = "TESTBED_TOKEN"
INSECURE_PLAINTEXT: Final = "TESTBED_INSECURE_PLAINTEXT"
MYSQL_PASSWORD: Final = "TESTBED_MYSQL_PASSWORD"
THREADS: Final = "TESTBED_THREADS"

PROCESS_CREDENTIALS: Final = "TESTBED_PROCESS_CREDENTIALS"
PROCESS_TOKEN: Final = "TESTBED_PROCESS_TOKEN"
PROCESS_STORAGE: Final = "TESTBED_PROCESS_STORAGE"
PROCESS_ARTIFACTS: Final = "TESTBED_PROCESS_ARTIFACTS"
PROCESS_TESTBED: Final = "TESTBED_PROCESS_TESTBED"
PROCESS_FOLDER: Final = "TESTBED_PROCESS_FOLDER"
PROCESS_NAME: Final = "TESTBED_PROCESS_NAME"

MEANINGS: Final[Mapping[str, str]] = {
    HOME: "Folder for testbeds and their task log, as `--home`. Default: "
    "`$XDG_STATE_HOME/edge-testbed`, else `~/.local/state/edge-testbed`.",
    NAME: "Name of the testbed, as `--name`.",
    STORAGE: "URL of the task log, as `--storage`.",
    ARTIFACTS: "Artifact store of the `policy` commands, as `--artifacts`; with `--controller` "
    "that of the testbed as it is reached from here, for all commands.",
    CONTROLLER: "Address of a controller that something else started, as `--controller`.",
    CREDENTIALS: "File with the operator's credentials for that controller.",
    INSECURE_PLAINTEXT: "If set, talk to that controller without encryption, as "
    "`--insecure-plaintext`.",
    TOKEN: f"The token of that controller; `{TOKEN}_FILE` names a file that holds it.",
    RUNTIME: "Name of a runtime, such as `local`, `kind` or `cluster`, as `--runtime`.",
    CONTEXT: "Context of the cluster, as `--context`.",
    NAMESPACE: "Namespace on the cluster, as `--namespace`.",
    MYSQL_PASSWORD: "Password of the task log's server, for commands and the controller.",
    THREADS: "Threads of the compiled engine, where `--threads` does not say it. Default: one per "
    "processor.",
    "KUBECONFIG": "Kubeconfigs, as for kubectl.",
    "HADOOP_USER_NAME": "User at an HDFS whose URL names none.",
    "NO_COLOR": "If set to anything, no colours.",
    PROCESS_CREDENTIALS: "Controller and nodes: file with the credentials of the process, as "
    "`--credentials`.",
    PROCESS_TOKEN: "Controller and nodes with `--insecure-plaintext`: the token that all of them "
    f"share; `{PROCESS_TOKEN}_FILE` names a file that holds it.",
    PROCESS_STORAGE: "Controller: URL of the task log, as `--store`; other users of the machine do "
    "not see it.",
    PROCESS_ARTIFACTS: "Controller: artifact store, as `--artifacts`.",
    PROCESS_TESTBED: "Set in every process of a testbed: the name of the testbed.",
    PROCESS_FOLDER: "Set in every process of a testbed: the testbed's folder, by which processes "
    "are found again.",
    PROCESS_NAME: "Set in every process of a testbed: the name of the process.",
}

EARLIER: Final[Mapping[str, str]] = {
    PROCESS_CREDENTIALS: "EDGE_TESTBED_CREDENTIALS",
    PROCESS_TOKEN: "EDGE_TESTBED_TOKEN",
    f"{PROCESS_TOKEN}_FILE": "EDGE_TESTBED_TOKEN_FILE",
    PROCESS_STORAGE: "EDGE_TESTBED_STORE",
    PROCESS_ARTIFACTS: "EDGE_TESTBED_ARTIFACTS",
    PROCESS_TESTBED: "EDGE_TESTBED_NAME",
    PROCESS_FOLDER: "EDGE_TESTBED_DIR",
    PROCESS_NAME: "EDGE_TESTBED_PROCESS",
}
"""Earlier names of variables; read with a warning until the release after 0.1."""


def read(name: str) -> str:
    """Return the value of a variable, empty if it is not set.

    Its earlier name is read too, with a warning.
    """
    if value := os.environ.get(name, ""):
        return value
    value = os.environ.get(EARLIER.get(name, name), "")
    if value:
        # Imported here: it would take a tenth of the time of a command that needs none.
        import logging

        logging.getLogger(__name__).warning(
            "the variable %s is now called %s; rename it", EARLIER[name], name
        )
    return value


def found(variables: Mapping[str, str], name: str) -> str | None:
    """Return the value of a variable of another process, by its name or its earlier one."""
    value = variables.get(name)
    return variables.get(EARLIER.get(name, name)) if value is None else value
