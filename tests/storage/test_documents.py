"""JSON that other people wrote: read strictly, or refused with what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import PermanentError, TestbedError
from testbed.storage.artifacts.base import manifest_of, read_manifest
from testbed.storage.documents import read_object

DIGEST = "0" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 30"),
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "names 'b' twice"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "too large"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[1]", "an array instead of an object"),
        (b"null", "null instead of an object"),
        (b'{"a": "' + b"x" * 200_000 + b'"}', "more than 150000 bytes"),
    ],
)
def test_what_is_no_document_is_told(text: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_object(text, 150_000 if b"x" in text else 1_000_000)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "of another version: manifest.json: version: None"),
        ({"version": 1}, "files: None; it has to be an object"),
        ({"version": True, "files": {}}, "version: True"),
        ({"version": 2, "files": {}}, "reads version 1"),
        ({"version": 1, "files": []}, r"files: \[\]; it has to be an object"),
        ({"version": 1, "files": {}}, "of 1 to 1000 files"),
        ({"version": 1, "files": {"a": None}}, "'a': None; it has to be an object"),
        ({"version": 1, "files": {"a": {"sha256": DIGEST}}}, "bytes: None"),
        ({"version": 1, "files": {"a": {"bytes": "1", "sha256": DIGEST}}}, "bytes: '1'"),
        ({"version": 1, "files": {"a": {"bytes": True, "sha256": DIGEST}}}, "bytes: True"),
        ({"version": 1, "files": {"a": {"bytes": -1, "sha256": DIGEST}}}, "bytes: -1"),
        ({"version": 1, "files": {"a": {"bytes": 1.5, "sha256": DIGEST}}}, "bytes: 1.5"),
        ({"version": 1, "files": {"a": {"bytes": 1, "sha256": 7}}}, "sha256: 7; .*64 hexadecimal"),
        ({"version": 1, "files": {"a": {"bytes": 1}}}, "sha256: None"),
        ({"version": 1, "files": {"../a": {"bytes": 1, "sha256": DIGEST}}}, "is not a valid name"),
        ({"version": 1, "files": {"/a": {"bytes": 1, "sha256": DIGEST}}}, "is not a valid name"),
        ({"version": 1, "files": {"a": {"bytes": 2**50, "sha256": DIGEST}}}, "may have at most"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named(document: Any, told: str) -> None:
    with pytest.raises(PermanentError, match=f"policies/x.*{told}"):
        read_manifest("policies/x", json.dumps(document).encode())


@given(JSON, st.sampled_from(["version", "files", "a", "bytes", "sha256"]))
def test_no_manifest_is_a_defect(value: Any, where: str) -> None:
    document: dict[str, Any] = json.loads(manifest_of({"a": b"1"}))
    place: dict[str, Any] = document
    while where not in place:
        place = place["files"]["a"] if "files" in place and where != "a" else place["files"]
    place[where] = value
    told = "manifest.json"
    try:
        read_manifest("policies/x", json.dumps(document).encode())
    except TestbedError as error:
        told = str(error)
    assert "manifest.json" in told
