"""The patch besides server-side apply: JSON merge."""

from __future__ import annotations

from typing import Any, Final

from tests.api_server.resources import Object, clone
from tests.api_server.status import bad_request

MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
ACCEPTED: Final = (MERGE_PATCH, APPLY_PATCH)


def patched(live: Object, patch: Any) -> Object:
    """``live`` after a merge patch.

    Raises: Refusal: the patch is not one.
    """
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map")
    merged: Object = merge_patched(clone(live), patch)
    return merged


def merge_patched(live: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(live) if isinstance(live, dict) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), part)
    return result
