"""Where a process finds the token of its testbed: given to it, in the environment, or in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from testbed.errors import PrerequisiteMissing

TOKEN_VARIABLE: Final = "EDGE_TESTBED_TOKEN"
"""For processes of a testbed; with ``_FILE`` appended, the name of a file that holds it."""


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
