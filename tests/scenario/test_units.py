from __future__ import annotations

import re
from fractions import Fraction

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
        (units.LINK_RATE, "10Mbps", "did you mean 10Mbit/s?", "MB/s"),
        (units.LINK_RATE, "10 MB / s", "did you mean 10MB/s?", "MB/s"),
        (units.LINK_RATE, "10MBps", "did you mean 10MB/s?", "MB/s"),
        (units.DURATION, "3 seconds", "did you mean 3s?", "ms"),
        (units.PROBABILITY, "50 percent", "did you mean 50%?", "from 0 to 1"),
        (units.FREQUENCY, "1,5GHz", "a comma, a blank", "a decimal point"),
        (units.SIZE, "1 000KB", "a comma, a blank", "nothing between thousands"),
        (units.SIZE, "1\u00a0000KB", "a comma, a blank", "nothing between thousands"),
        (units.SIZE, "1_000KB", "a comma, a blank", "nothing between thousands"),
        (units.SIZE, "1.000.000KB", "a comma, a blank", "nothing between thousands"),
        (units.SIZE, "9" * 100_000 + "KB", "is not a size", "KB"),
        (units.SIZE, "1" + "x" + " " * 100_000 + "x", "is not a size", "KB"),
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


def test_a_number_of_thousands_of_digits_is_refused_without_writing_it_out() -> None:
    with pytest.raises(QuantityError, match="very many digits is out of range"):
        units.whole(1, 5, 2).read(10**5000)


MEANINGS = {
    "b": Fraction(1, 8),
    "bit": Fraction(1, 8),
    "bits": Fraction(1, 8),
    "B": Fraction(1),
    "byte": Fraction(1),
    "bytes": Fraction(1),
}
PREFIXES = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "K": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
}
SPELLINGS = {
    **{f"{p}{u}": x * y for p, x in PREFIXES.items() for u, y in MEANINGS.items()},
    **{
        f"{p}{u}{per}": x * y
        for p, x in PREFIXES.items()
        for u, y in MEANINGS.items()
        for per in ("/s", "ps", "/sec", " / s")
    },
    **{f"{p}Hz": x for p, x in PREFIXES.items()},
    **{f"{p}hz": x for p, x in PREFIXES.items()},
    "ns": Fraction(1, 1000),
    "us": Fraction(1),
    "msec": Fraction(10**3),
    "ms": Fraction(10**3),
    "s": Fraction(10**6),
    "sec": Fraction(10**6),
    "m": Fraction(60 * 10**6),
    "min": Fraction(60 * 10**6),
    "minutes": Fraction(60 * 10**6),
    "M": Fraction(10**6),
    "hours": Fraction(3600 * 10**6),
    "d": Fraction(24 * 3600 * 10**6),
    "percent": Fraction(1, 100),
    "‰": Fraction(1, 1000),
    "cycles/byte": Fraction(1, 8),
    "cycles/bits": Fraction(1),
    "/ms": Fraction(1000),
    "/min": Fraction(1, 60),
}
"""What people write, in the base units of the quantity it is one of: bytes, Hz, microseconds."""


@pytest.mark.parametrize("quantity", ALL, ids=lambda q: f"{q.name} {q.example}")
@given(
    unit=st.sampled_from(sorted(SPELLINGS)),
    number=st.from_regex(r"[1-9][0-9]{0,2}(?:[., _'][0-9]{1,3}){0,2}", fullmatch=True),
    blank=st.sampled_from(["", " ", "\u00a0"]),
)
def test_a_suggestion_means_what_was_written(
    quantity: Quantity, unit: str, number: str, blank: str
) -> None:
    try:
        quantity.read(f"{number}{blank}{unit}")
    except QuantityError as error:
        suggested = re.search(r"did you mean (.*)\?\)", error.seen)
        if suggested is None:
            return
        same = re.fullmatch(r"([0-9.]+)(.*)", suggested[1])
        assert same is not None
        assert same[1] == number
        assert quantity.units[same[2]] == SPELLINGS[unit]
