"""``credentials``: certificates for a testbed that something else than ``up`` starts."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed import environment
from testbed.cli import console
from testbed.errors import Problem, UsageError
from testbed.files import replacing


def credentials(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the testbed.")],
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", min=1, max=500, help="Number of edge nodes.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write a file for each party into this folder."),
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Print the Secrets for kubectl instead.")
    ] = False,
) -> None:
    """Make certificates for a testbed that is started by Compose or kubectl.

    Creates a new authority and certificates for the operator, the controller and each node, valid
    for 30 days.
    Existing files are replaced; processes that use them have to be restarted.
    """
    from testbed.runtime.base import valid_name
    from testbed.runtime.kubernetes.certificates import CREDENTIALS, NODE_CREDENTIALS, completed

    if (out is None) != kubernetes:
        raise UsageError(
            "one of --out and --kubernetes is needed",
            [Problem("--out", "says where files go", "--out DIR, or --kubernetes for Secrets")],
        )
    contents, _ = completed({}, valid_name(name), nodes)
    if out is None:
        console.out(_secrets(contents))
        return
    files = {key: text for key, text in contents[CREDENTIALS].items() if key != "authority.pem"}
    for key, text in contents[NODE_CREDENTIALS].items():
        files[f"{key.removeprefix('edge-')}.pem"] = text
    _write(out, files)
    console.out(f"{len(files)} files in {out}")


def _secrets(contents: dict[str, dict[str, str]]) -> str:
    import yaml

    from testbed.runtime.kubernetes.certificates import CREDENTIALS, PASSWORD_KEY
    from testbed.runtime.kubernetes.rendering import render_secrets

    given = os.environ.get(environment.MYSQL_PASSWORD)
    contents[CREDENTIALS][PASSWORD_KEY] = given or secrets.token_urlsafe(24)
    documents: list[Any] = render_secrets(contents)
    return str(yaml.safe_dump_all(documents, sort_keys=False)).rstrip()


def _write(folder: Path, files: dict[str, str]) -> None:
    from testbed.cli.files import cannot_write
    from testbed.runtime.kubernetes.certificates import OPERATOR_KEY

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The folder keeps others out. The files may be read by whom they are mounted for: a
        # container has another user.
        folder.chmod(0o700)
        for key, text in files.items():
            with replacing(folder / key) as file:
                os.fchmod(file.fileno(), 0o600 if key == OPERATOR_KEY else 0o644)
                file.write(f"{text}\n".encode())
    except OSError as error:
        raise cannot_write(folder, error) from error
