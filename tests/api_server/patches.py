"""The patches besides server-side apply: JSON, JSON merge and strategic merge."""

from __future__ import annotations

from typing import Any, Final

from tests.api_server import structure
from tests.api_server.resources import Object, clone
from tests.api_server.status import Refusal, bad_request

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
ACCEPTED: Final = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)


def patched(live: Object, patch: Any, kind: str) -> Object:
    """``live`` after ``patch`` of media type ``kind``, which is not that of an apply.

    Raises: Refusal: the patch is not one, or does not fit.
    """
    live = clone(live)
    if kind == JSON_PATCH:
        return _json_patched(live, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map")
    return merge_patched(live, patch) if kind == MERGE_PATCH else _strategic(live, patch)


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


def _strategic(live: Object, patch: Object) -> Object:
    if patch.get("$patch") == "replace":
        return {name: part for name, part in patch.items() if name != "$patch"}
    result = dict(live)
    for name, part in patch.items():
        old = result.get(name)
        if name.startswith("$deleteFromPrimitiveList/"):
            name = name.partition("/")[2]
            result[name] = [item for item in result.get(name, []) if item not in part]
        elif name.startswith("$"):
            continue
        elif part is None:
            result.pop(name, None)
        elif isinstance(part, dict):
            result[name] = _strategic(old if isinstance(old, dict) else {}, part)
        elif isinstance(part, list) and structure.is_set(name):
            result[name] = (old or []) + [item for item in part if item not in (old or [])]
        elif isinstance(part, list) and (keys := structure.keys_of(name, part)):
            result[name] = _strategic_items(old or [], part, keys)
        else:
            result[name] = part
    return result


def _strategic_items(live: list[Any], patch: list[Any], keys: tuple[str, ...]) -> list[Any]:
    items = {structure.element(item, keys): item for item in live}
    for part in patch:
        key = structure.element(part, keys)
        if part.get("$patch") == "delete":
            items.pop(key, None)
        else:
            items[key] = _strategic(items.get(key, {}), part)
    return list(items.values())


def _json_patched(live: Object, patch: Any) -> Object:
    """RFC 6902, without ``move`` and ``copy``."""
    for step in patch:
        *parents, last = (
            part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
        )
        node: Any = live
        try:
            for part in parents:
                node = node[int(part) if isinstance(node, list) else part]
            place = last
            if isinstance(node, list):
                place = len(node) if last == "-" else int(last)
            if step["op"] == "test":
                if node[place] != step["value"]:
                    raise _unprocessable(f"testing value {step['path']} failed: test failed")
            elif step["op"] == "remove":
                del node[place]
            elif step["op"] == "add" and isinstance(node, list):
                node.insert(place, step["value"])
            else:
                node[place] = step["value"]
        except (KeyError, IndexError) as error:
            raise _unprocessable(
                f"{step['op']} operation does not apply: doc is missing path: "
                f'"{step["path"]}": missing value'
            ) from error
    return live


def _unprocessable(message: str) -> Refusal:
    return Refusal(
        422, "Invalid", f"the server rejected our request due to an error in our request: {message}"
    )
