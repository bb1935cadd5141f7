"""Payloads: the same bytes everywhere, and no others accepted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgenode.payload import BLOCK_BYTES, Inbox, payload_of, payload_slice
from tests.edgenode.network import task

sizes = st.integers(1, 3 * BLOCK_BYTES)


@given(st.integers(0, 2**40), sizes, st.data())
def test_slices_are_parts_of_the_whole(task_id: int, size: int, data: st.DataObject) -> None:
    whole = payload_of(task(task_id, size_bytes=size))
    position = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, min(BLOCK_BYTES, size - position)))
    assert len(whole) == size
    assert payload_slice(task_id, position, length) == whole[position : position + length]


@given(st.integers(0, 2**40), sizes, st.integers(1, BLOCK_BYTES))
def test_what_was_sent_is_what_is_kept(task_id: int, size: int, chunk: int) -> None:
    sent = task(task_id, size_bytes=size)
    inbox = Inbox(keep=True)
    # At most some dozens of chunks.
    chunk = max(chunk, size // 32)
    chunk = min(chunk, BLOCK_BYTES)
    for position in range(0, size, chunk):
        inbox.add(1, task_id, payload_slice(task_id, position, min(chunk, size - position)))
    assert inbox.complete(1, sent, size) is None
    assert inbox.take(task_id) == payload_of(sent)
    assert inbox.take(task_id) is None


@given(st.integers(0, 4999), st.integers(1, 255))
def test_one_wrong_byte_is_noticed(position: int, flip: int) -> None:
    sent = task(7, size_bytes=5000)
    data = bytearray(payload_of(sent))
    data[position] ^= flip
    inbox = Inbox(keep=False)
    inbox.add(1, 7, bytes(data))
    assert "not those that were sent" in str(inbox.complete(1, sent, 5000))


def test_missing_and_surplus_bytes_are_noticed() -> None:
    sent = task(7, size_bytes=5000)
    for length in (0, 4999):
        inbox = Inbox(keep=False)
        inbox.add(1, 7, payload_slice(7, 0, length))
        assert f"{length} bytes arrived" in str(inbox.complete(1, sent, 5000))


def test_bytes_of_a_task_that_was_withdrawn_are_gone() -> None:
    sent = task(7, size_bytes=5000)
    inbox = Inbox(keep=True)
    inbox.add(1, 7, payload_slice(7, 0, 2000))
    inbox.discard(1, 7)
    inbox.add(1, 7, payload_of(sent))
    assert inbox.complete(1, sent, 5000) is None


def test_two_senders_do_not_mix() -> None:
    sent = task(7, size_bytes=5000)
    inbox = Inbox(keep=False)
    inbox.add(1, 7, payload_slice(7, 0, 2000))
    inbox.add(2, 7, payload_of(sent))
    assert inbox.complete(2, sent, 5000) is None
    assert inbox.complete(1, sent, 5000) is not None


def test_payloads_are_kept_only_for_applications_that_read_them() -> None:
    sent = task(7, size_bytes=5000)
    inbox = Inbox(keep=False)
    inbox.add(1, 7, payload_of(sent))
    assert inbox.complete(1, sent, 5000) is None
    assert inbox.take(7) is None
