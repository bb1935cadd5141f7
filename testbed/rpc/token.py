"""Where a process finds what proves it to others: in a file, or the token of its testbed."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Final

from testbed import environment
from testbed.errors import PrerequisiteMissing
from testbed.rpc.credentials import Credentials, read, shared
from testbed.rpc.identity import Identity

PLAINTEXT: Final = (
    "--insecure-plaintext: whoever is on the network can read everything, and act as anybody"
)
"""Warning about plaintext connections."""


def add_access_arguments(parser: ArgumentParser, whom: str) -> None:
    """Add the options for what proves a process; ``whom`` names it in the help."""
    parser.add_argument(
        "--credentials",
        type=Path,
        metavar="FILE",
        help=f"what proves {whom} to others, and others to it; else the file that "
        f"{environment.PROCESS_CREDENTIALS} names",
    )
    parser.add_argument(
        "--probes", default="", help="host:port where the health service is open to anybody"
    )
    parser.add_argument(
        "--metrics", default="", help="host:port where Prometheus may scrape metrics, as open"
    )
    parser.add_argument(
        "--insecure-plaintext",
        action="store_true",
        help=f"no encryption, and the token in {environment.PROCESS_TOKEN} (or the file that "
        f"{environment.PROCESS_TOKEN}_FILE names) proves everybody: for networks that nobody else "
        "is on",
    )


def find_credentials(
    identity: Identity, given: Path | None = None, *, plaintext: bool = False
) -> Credentials:
    """Return the credentials of ``identity``: in the file ``given``, or that the environment names.

    ``plaintext``: those made from the token that all processes of the testbed share.

    Raises: PrerequisiteMissing: there are none, they cannot be used, or belong to another user.
    """
    if plaintext and (token := find_token()):
        return shared(token, identity)
    path = given or Path(environment.read(environment.PROCESS_CREDENTIALS))
    if str(path) != ".":
        found = read(path)
        if found.identity != identity:
            raise PrerequisiteMissing(
                f"the credentials in {path} are those of {found.identity}",
                f"name the file of {identity}",
            )
        return found
    raise PrerequisiteMissing(
        f"{identity} has no credentials",
        f"let --credentials or {environment.PROCESS_CREDENTIALS} name the file that holds them: "
        "`testbed credentials` makes one",
    )


def find_token(given: str = "", variable: str = environment.PROCESS_TOKEN) -> str:
    """``given``, else the value of ``variable``, else what the file ``variable``_FILE names holds.

    Empty if there is none of them.

    Raises: PrerequisiteMissing: the file cannot be read, or holds nothing.
    """
    if token := given or environment.read(variable):
        return token
    path = environment.read(f"{variable}_FILE")
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise PrerequisiteMissing(
            f"the token's file {path} cannot be read: {reason}",
            f"let {variable}_FILE name a file that this process may read, or set {variable}",
        ) from None
    if not token:
        raise PrerequisiteMissing(
            f"the token's file {path} is empty", f"write the token into it, or set {variable}"
        )
    return token
