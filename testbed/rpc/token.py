"""Where a process finds what proves it to others: in a file, or the token of its testbed."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Final

from testbed.errors import PrerequisiteMissing
from testbed.rpc.credentials import CREDENTIALS_VARIABLE, Credentials, read, shared
from testbed.rpc.identity import Identity

TOKEN_VARIABLE: Final = "EDGE_TESTBED_TOKEN"
"""For processes of a testbed; with ``_FILE`` appended, the name of a file that holds it."""


PLAINTEXT: Final = (
    "--insecure-plaintext: whoever is on the network can read everything, and act as anybody"
)
"""What is said where somebody has asked for it."""

CLIENT_TOKEN_VARIABLE: Final = "TESTBED_TOKEN"
"""For commands. Not that of processes: what a shell is given for commands is not what it starts
nodes with."""


def add_access_arguments(parser: ArgumentParser, whom: str) -> None:
    """Add the options for what proves a process; ``whom`` names it in the help."""
    parser.add_argument(
        "--credentials",
        type=Path,
        metavar="FILE",
        help=f"what proves {whom} to others, and others to it; else the file that "
        f"{CREDENTIALS_VARIABLE} names",
    )
    parser.add_argument(
        "--probes", default="", help="host:port where the health service is open to anybody"
    )
    parser.add_argument(
        "--insecure-plaintext",
        action="store_true",
        help=f"no encryption, and the token in {TOKEN_VARIABLE} (or the file that "
        f"{TOKEN_VARIABLE}_FILE names) proves everybody: for networks that nobody else is on",
    )


def find_credentials(
    identity: Identity, given: Path | None = None, *, plaintext: bool = False
) -> Credentials:
    """The credentials of ``identity``: in the file ``given``, or that the environment names.

    ``plaintext``: those made from the token that all processes of the testbed share.

    Raises: PrerequisiteMissing: there are none, they cannot be used, or are somebody else's.
    """
    if plaintext and (token := find_token()):
        return shared(token, identity)
    path = given or Path(os.environ.get(CREDENTIALS_VARIABLE, ""))
    if str(path) != ".":
        found = read(path)
        if found.identity != identity:
            raise PrerequisiteMissing(
                f"the credentials in {path} are those of {found.identity}",
                f"name the file of {identity}",
            )
        return found
    raise PrerequisiteMissing(
        f"{identity} has no credentials to prove itself with",
        f"let --credentials or {CREDENTIALS_VARIABLE} name the file that holds them: "
        "`testbed credentials` makes one",
    )


def find_token(given: str = "", variable: str = TOKEN_VARIABLE) -> str:
    """``given``, else the value of ``variable``, else what the file ``variable``_FILE names holds.

    Empty if there is none of them.

    Raises: PrerequisiteMissing: the file cannot be read, or holds nothing.
    """
    if token := given or os.environ.get(variable, ""):
        return token
    path = os.environ.get(f"{variable}_FILE", "")
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise PrerequisiteMissing(
            f"the token's file {path} cannot be read: {reason}",
            f"let {variable}_FILE name a file that this process may read, or set {variable}",
        ) from None
    if not token:
        raise PrerequisiteMissing(
            f"the token's file {path} is empty", f"write the token into it, or set {variable}"
        )
    return token
