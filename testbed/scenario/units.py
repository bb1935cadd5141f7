"""Quantities as people write them: ``3GHz``, ``10MB/s``, ``1000KB``, ``100ms``, ``50%``.

A ``Quantity`` reads such a text into the base unit of the model and writes it back so that reading
it again gives the very same number. KB, MB and GB are powers of 1000; KiB, MiB, GiB of 1024.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

_NUMBER: Final = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,9})?"
_TEXT: Final = re.compile(rf"\s*({_NUMBER})\s*(.*?)\s*", re.DOTALL | re.ASCII)
_LONGEST: Final = 60
_LONGEST_TEXT: Final = 200
"""Characters of a quantity; any value a model can hold is shorter."""
_LONGEST_BITS: Final = 1000
_GROUPED: Final = re.compile(r"(?:[.,_'\u2019]|\s)*\d")
"""Beginning of a text that continues a number: ``1,5``, ``1 000``, ``1_000``."""

_SAME: Final[Mapping[str, str]] = {
    alias: unit
    for unit, aliases in {
        "Hz": "hz HZ hertz Hertz",
        "kHz": "khz KHz Khz KHZ kilohertz",
        "MHz": "Mhz MHZ megahertz",
        "GHz": "ghz Ghz GHZ gHz gigahertz",
        "THz": "thz Thz THZ terahertz",
        "B": "byte bytes Byte Bytes",
        "KB": "KByte KBytes kByte kBytes kilobyte kilobytes",
        "MB": "MByte MBytes megabyte megabytes",
        "GB": "GByte GBytes gigabyte gigabytes",
        "KiB": "KIB kiB Kibibyte kibibyte kibibytes",
        "MiB": "MIB mebibyte mebibytes",
        "GiB": "GIB gibibyte gibibytes",
        "B/s": "Bps byte/s bytes/s B/sec",
        "KB/s": "KBps kBps kB/sec KB/sec KByte/s kByte/s",
        "MB/s": "MBps MB/sec MByte/s MBytes/s",
        "GB/s": "GBps GB/sec GByte/s GBytes/s",
        "KiB/s": "KiBps KiB/sec",
        "MiB/s": "MiBps MiB/sec",
        "GiB/s": "GiBps GiB/sec",
        "kbit/s": "kbps Kbps kb/s Kb/s kbits/s Kbit/s kbit/sec kilobit/s",
        "Mbit/s": "Mbps Mb/s Mbits/s Mbit/sec Mb/sec megabit/s",
        "Gbit/s": "Gbps Gb/s Gbits/s Gbit/sec Gb/sec gigabit/s",
        "us": "\u03bcs usec usecs microsecond microseconds",
        "ms": "msec msecs millisecond milliseconds",
        "s": "sec secs second seconds",
        "min": "mins minute minutes",
        "h": "hr hrs hour hours",
        "%": "percent pct",
        "/s": "failures/s failure/s requests/s request/s req/s rps per_second /sec 1/sec",
        "/min": "requests/min request/min per_minute",
        "cycles/bit": "cycle/bit cycles/bits",
    }.items()
    for alias in aliases.split()
}
"""Other spellings of a unit that mean exactly it: the only ones that are ever suggested.

Not by likeness: ``Mb`` and ``MB`` differ by a factor of 8, ``mHz`` and ``MHz`` by 10^9.
"""


class QuantityError(ValueError):
    """A value is not the quantity wanted; ``seen`` and ``allowed`` as in ``Problem``."""

    def __init__(self, seen: str, allowed: str) -> None:
        self.seen = seen
        self.allowed = allowed
        super().__init__(f"{seen}; {allowed}")


def shown(value: object) -> str:
    """``value`` as a user may have written it, cut to a line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int() if value.bit_length() > _LONGEST_BITS:
            return "a number of very many digits"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@dataclass(frozen=True, slots=True)
class Quantity:
    """One kind of quantity: its units, what a plain number means, and its limits.

    ``units`` maps each unit to its size in base units. ``bare`` says that a plain number counts in
    base units; where it is False only 0 may stand without a unit. ``whole`` gives integers.
    ``low`` and ``high`` are limits in base units, ``above_low`` excludes ``low`` itself, and
    ``limits`` is how messages call them.
    """

    name: str
    units: Mapping[str, Fraction]
    low: Fraction
    high: Fraction
    limits: str
    example: str
    bare: bool = False
    whole: bool = False
    above_low: bool = False

    @property
    def allowed(self) -> str:
        """Allowed values, in words."""
        names = ", ".join(unit for unit in self.units if unit)
        if not names:
            return f"{self.limits}, such as {self.example}"
        number = (
            f"a number, plain or in {names}" if self.bare else f"a number with a unit ({names})"
        )
        return f"{number}, {self.limits}, such as {self.example}"

    def read(self, value: object) -> float:
        """``value`` in base units: an int for whole quantities, else a float.

        Raises: QuantityError saying what was seen and what is allowed.
        """
        exact = self._exact(value)
        if exact < self.low or exact > self.high or (self.above_low and exact == self.low):
            raise QuantityError(f"{shown(value)} is out of range", self.allowed)
        if not self.whole:
            return float(exact)
        if exact.denominator != 1:
            raise QuantityError(f"{shown(value)} is not a whole number", self.allowed)
        return int(exact)

    def write(self, value: float) -> str | int | float:
        """``value`` in base units as text that ``read`` reads to the same number."""
        exact = Fraction(value)
        if self.bare:
            return int(exact) if exact.denominator == 1 else value
        base = next(unit for unit, factor in self.units.items() if factor == 1)
        shortest = f"{int(exact) if exact.denominator == 1 else repr(value)}{base}"
        for unit, factor in self.units.items():
            amount = exact / factor
            number = str(int(amount)) if amount.denominator == 1 else repr(float(amount))
            text = f"{number}{unit}"
            if amount >= 1 and len(text) < len(shortest) and self.read(text) == value:
                shortest = text
        return shortest

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what ``read`` accepts, as far as a schema can say it."""
        forms: list[dict[str, Any]] = []
        if self.bare or not any(self.units):
            kind = "integer" if self.whole else "number"
            bound = "exclusiveMinimum" if self.above_low else "minimum"
            numbers = {"type": kind, bound: _plain(self.low), "maximum": _plain(self.high)}
            forms.append(numbers)
        elif self.low == 0 and not self.above_low:
            forms.append({"const": 0})
        if any(self.units):
            units = "|".join(unit for unit in self.units if unit)
            sign = "" if self.low >= 0 else "[+-]?"
            number = rf"{sign}\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
            optional = "?" if self.bare else ""
            forms.append({"type": "string", "pattern": rf"^\s*{number}\s*({units}){optional}\s*$"})
        schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
        return {**schema, "description": self.allowed, "examples": [_example(self)]}

    def _exact(self, value: object) -> Fraction:
        wrong = QuantityError(f"{shown(value)} is not {self.name}", self.allowed)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise wrong
        if isinstance(value, str):
            match = _TEXT.fullmatch(value) if len(value) <= _LONGEST_TEXT else None
            if match is None:
                raise wrong
            number, unit = match.groups()
        else:
            if isinstance(value, int) and value.bit_length() > _LONGEST_BITS:
                raise QuantityError(f"{shown(value)} is out of range", self.allowed)
            if not math.isfinite(value):
                raise wrong
            number, unit = repr(value), ""
        amount = Decimal(number)
        if amount and not -400 < amount.adjusted() < 40:
            raise QuantityError(f"{shown(value)} is out of range", self.allowed)
        exact = Fraction(amount)
        if unit == "" and (self.bare or exact == 0 or "" in self.units):
            return exact
        if unit in self.units:
            return exact * self.units[unit]
        if unit == "":
            raise QuantityError(f"{shown(value)} has no unit", self.allowed)
        if _GROUPED.match(unit):
            raise QuantityError(
                f"{shown(value)} has a comma, a blank or another mark within its number",
                f"{self.allowed}; with a decimal point, and nothing between thousands",
            )
        near = self._same(unit)
        suggestion = f" (did you mean {number}{near}?)" if near else ""
        raise QuantityError(
            f"{shown(value)}: unit '{unit[:_LONGEST]}' is not known here{suggestion}",
            self.allowed,
        )

    def _same(self, unit: str) -> str | None:
        """Return the unit of this quantity that ``unit`` is another spelling of."""
        joined = re.sub(r"\s+", "_" if unit.startswith("per") else "", unit)
        same = joined if joined in self.units else _SAME.get(joined)
        return same if same in self.units else None


def _example(quantity: Quantity) -> str | float:
    if any(quantity.units):
        return quantity.example
    return quantity.write(quantity.read(quantity.example))


def _plain(number: Fraction) -> int | float:
    return int(number) if number.denominator == 1 else float(number)


_BYTES: Final = {
    "B": Fraction(1),
    "KB": Fraction(10**3),
    "MB": Fraction(10**6),
    "GB": Fraction(10**9),
    "kB": Fraction(10**3),
    "KiB": Fraction(2**10),
    "MiB": Fraction(2**20),
    "GiB": Fraction(2**30),
}
_PER_SECOND: Final = {f"{unit}/s": factor for unit, factor in _BYTES.items()} | {
    "kbit/s": Fraction(10**3, 8),
    "Mbit/s": Fraction(10**6, 8),
    "Gbit/s": Fraction(10**9, 8),
}
_TIME: Final = {
    "us": Fraction(1),
    "µs": Fraction(1),
    "ms": Fraction(10**3),
    "s": Fraction(10**6),
    "min": Fraction(60 * 10**6),
    "h": Fraction(3600 * 10**6),
}
_MONTH: Final = Fraction(30 * 24 * 3600 * 10**6)
_FREQUENCY: Final = {
    "Hz": Fraction(1),
    "kHz": Fraction(10**3),
    "MHz": Fraction(10**6),
    "GHz": Fraction(10**9),
    "THz": Fraction(10**12),
}

FREQUENCY: Final = Quantity(
    "a frequency", _FREQUENCY, Fraction(1), Fraction(10**15), "from 1Hz to 1000THz", "3GHz"
)
LINK_RATE: Final = Quantity(
    "a link rate", _PER_SECOND, Fraction(1), Fraction(10**12), "from 1B/s to 1000GB/s", "10MB/s"
)
LINK_RATE_OR_NONE: Final = Quantity(
    "a link rate", _PER_SECOND, Fraction(0), Fraction(10**12), "from 1B/s to 1000GB/s", "10MB/s"
)
SIZE: Final = Quantity("a size", _BYTES, Fraction(1), Fraction(10**12), "1B to 1000GB", "1000KB")
CHUNK: Final = Quantity(
    "a size", _BYTES, Fraction(1000), Fraction(10**6), "from 1KB to 1MB", "64KB", whole=True
)
COMPLEXITY: Final = Quantity(
    "a complexity",
    {"cycles/bit": Fraction(1)},
    Fraction(0),
    Fraction(10**9),
    "above 0",
    "800 cycles/bit",
    bare=True,
    above_low=True,
)
DURATION: Final = Quantity(
    "a duration",
    _TIME,
    Fraction(0),
    _MONTH,
    "from 0 to 720h, whole microseconds",
    "1ms",
    whole=True,
)
POSITIVE_DURATION: Final = Quantity(
    "a duration", _TIME, Fraction(1), _MONTH, "from 1us to 720h", "100ms", whole=True
)
DEADLINE: Final = Quantity("a duration", _TIME, Fraction(1), _MONTH, "from 1us to 720h", "4s")
PROBABILITY: Final = Quantity(
    "a probability",
    {"%": Fraction(1, 100)},
    Fraction(0),
    Fraction(1),
    "from 0 to 1",
    "0.5",
    bare=True,
)
FACTOR: Final = Quantity(
    "a factor",
    {"%": Fraction(1, 100)},
    Fraction(0),
    Fraction(1000),
    "from 0 to 1000",
    "0.5",
    bare=True,
)
SHARE: Final = Quantity(
    "a share", {"%": Fraction(1, 100)}, Fraction(0), Fraction(10), "from 0 to 10", "2%", bare=True
)
FAILURE_RATE: Final = Quantity(
    "a failure rate",
    {"/s": Fraction(1), "1/s": Fraction(1)},
    Fraction(0),
    Fraction(10**6),
    "0 or above, in failures per second",
    "0.1",
    bare=True,
)
REQUEST_RATE: Final = Quantity(
    "a rate of requests",
    {"/s": Fraction(1), "/min": Fraction(1, 60)},
    Fraction(0),
    Fraction(10**6),
    "from 0 to 1000000/s",
    "50/s",
)
TIME_SCALE: Final = Quantity(
    "a time scale",
    {"": Fraction(1)},
    Fraction(1, 1000),
    Fraction(1000),
    "a number from 0.001 to 1000",
    "1",
    bare=True,
)


def whole(low: int, high: int, example: int) -> Quantity:
    """Return a plain whole number from ``low`` to ``high``."""
    return Quantity(
        "a whole number",
        {"": Fraction(1)},
        Fraction(low),
        Fraction(high),
        f"a whole number from {low} to {high}",
        str(example),
        bare=True,
        whole=True,
    )


_ANY_WHOLE: Final = whole(0, 10**9, 1)


def integer(value: object) -> int | None:
    """Return ``value`` if it is a whole number from 0 to 10^9, as a file may have it."""
    try:
        return int(_ANY_WHOLE.read(value))
    except QuantityError:
        return None
