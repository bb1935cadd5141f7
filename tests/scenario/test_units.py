from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.scenario import units
from testbed.scenario.units import Quantity, QuantityError

ALL = [
    units.FREQUENCY,
    units.LINK_RATE,
    units.SIZE,
    units.CHUNK,
    units.COMPLEXITY,
    units.DURATION,
    units.POSITIVE_DURATION,
    units.DEADLINE,
    units.PROBABILITY,
    units.SHARE,
    units.FAILURE_RATE,
    units.TIME_SCALE,
    units.whole(1, 1000, 10),
]


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (units.FREQUENCY, "3GHz", 3e9),
        (units.FREQUENCY, " 2.5 MHz ", 2.5e6),
        (units.LINK_RATE, "10MB/s", 10e6),
        (units.LINK_RATE, "100Mbit/s", 12.5e6),
        (units.SIZE, "1000KB", 1_000_000),
        (units.SIZE, "1KiB", 1024),
        (units.SIZE, "1e3KB", 1_000_000),
        (units.DURATION, "100ms", 100_000),
        (units.DURATION, "0.1s", 100_000),
        (units.DURATION, 0, 0),
        (units.DURATION, "2min", 120_000_000),
        (units.COMPLEXITY, "800 cycles/bit", 800),
        (units.COMPLEXITY, 800, 800),
        (units.PROBABILITY, "35%", 0.35),
        (units.FAILURE_RATE, "0.1/s", 0.1),
        (units.FAILURE_RATE, "0.1 1/s", 0.1),
    ],
)
def test_reads_what_people_write(quantity: Quantity, text: object, value: float) -> None:
    assert quantity.read(text) == value


@pytest.mark.parametrize(
    ("quantity", "value", "seen", "allowed"),
    [
        (units.FREQUENCY, "3Ghz", "did you mean 3GHz?", "Hz, kHz, MHz, GHz, THz"),
        (units.FREQUENCY, 3, "3 has no unit", "such as 3GHz"),
        (units.FREQUENCY, "0GHz", "out of range", "from 1Hz"),
        (units.LINK_RATE, "10MB", "'MB' is not known here", "MB/s"),
        (units.LINK_RATE, "0MB/s", "out of range", "from 1B/s"),
        (units.DURATION, "4", "'4' has no unit", "us, µs, ms, s"),
        (units.DURATION, "-4s", "out of range", "from 0"),
        (units.DURATION, "0.5us", "not a whole number", "whole microseconds"),
        (units.PROBABILITY, 1.5, "out of range", "from 0 to 1"),
        (units.PROBABILITY, float("nan"), "not a probability", "from 0 to 1"),
        (units.PROBABILITY, True, "true is not a probability", "from 0 to 1"),
        (units.COMPLEXITY, 0, "out of range", "above 0"),
        (units.SIZE, "big", "'big' is not a size", "KB"),
        (units.SIZE, "1e999999999KB", "out of range", "KB"),
        (units.SIZE, None, "nothing is not a size", "KB"),
        (units.SIZE, [1], "a list is not a size", "KB"),
        (units.SIZE, "٣KB", "is not a size", "KB"),
        (units.whole(1, 5, 2), 2.5, "not a whole number", "from 1 to 5"),
        (units.whole(1, 5, 2), 6, "out of range", "from 1 to 5"),
    ],
)
def test_says_what_is_wrong_and_what_is_allowed(
    quantity: Quantity, value: object, seen: str, allowed: str
) -> None:
    with pytest.raises(QuantityError) as caught:
        quantity.read(value)
    assert seen in caught.value.seen
    assert allowed in caught.value.allowed


@pytest.mark.parametrize("quantity", ALL, ids=lambda q: f"{q.name} {q.example}")
@given(data=st.data())
def test_what_is_written_reads_as_the_same(quantity: Quantity, data: st.DataObject) -> None:
    low, high = float(quantity.low), float(quantity.high)
    value = data.draw(
        st.integers(int(low), int(high))
        if quantity.whole
        else st.floats(low, high, exclude_min=quantity.above_low)
    )
    written = quantity.write(value)
    assert quantity.read(written) == value
    jsonschema.validate(written, quantity.json_schema())


@pytest.mark.parametrize("quantity", ALL, ids=lambda q: f"{q.name} {q.example}")
@given(value=st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_reads_or_refuses_anything(quantity: Quantity, value: object) -> None:
    try:
        read = quantity.read(value)
    except QuantityError:
        return
    assert quantity.low <= read <= quantity.high


def test_the_shortest_exact_text_is_written() -> None:
    assert units.SIZE.write(3_000_000) == "3MB"
    assert units.FREQUENCY.write(1.5e9) == "1.5GHz"
    assert units.DURATION.write(100_000) == "100ms"
    assert units.DURATION.write(0) == "0us"
