"""The documents of requests and windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.serving.record import RequestRecord, WindowRecord
from testbed.rpc.serving import (
    decode_requests,
    decode_windows,
    encode_request,
    encode_window,
)

_numbers = st.integers(0, 2**62)
_maybe = st.none() | _numbers
_requests = st.builds(
    RequestRecord,
    *(_numbers,) * 6,
    peer=_maybe,
    server=_maybe,
    elapsed=_numbers,
)
_windows = st.builds(
    WindowRecord,
    *(_numbers,) * 3,
    counts=st.lists(st.dictionaries(st.text(), _numbers), max_size=3).map(tuple),
    said=_numbers,
    said_bytes=_numbers,
    heard=_numbers,
    heard_bytes=_numbers,
)


@given(st.lists(_requests, max_size=4), st.lists(_windows, max_size=4))
def test_documents_are_read_as_they_were_written(
    requests: list[RequestRecord], windows: list[WindowRecord]
) -> None:
    assert decode_requests([encode_request(each) for each in requests]) == requests
    assert decode_windows([encode_window(each) for each in windows]) == windows


@pytest.mark.parametrize(
    "document",
    [
        b"{}",
        b"[1,2]",
        b"1",
        b"[1,0,0,0,5,200,null,0,null]",
        b'[1,0,0,"f",5,200,null,0,7]',
        b"[1,0,0,0,5,200,null,0,7.5]",
        b"[1,0,0,0,5,200,null,0,7],[2,0,0,0,5,200,null,0,7]",
        b"nonsense",
    ],
)
def test_what_is_no_request_is_refused(document: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_requests([document])


@pytest.mark.parametrize(
    "document",
    [b"[]", b'[0,0,0,["local"],0,0,0,0]', b'[0,0,0,[{"local":"1"}],0,0,0,0]', b"[0,0,0,7,0,0,0,0]"],
)
def test_what_is_no_window_is_refused(document: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_windows([document])
