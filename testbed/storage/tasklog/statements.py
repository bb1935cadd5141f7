"""The statements that write rows. The only SQL that differs between databases is here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any, Final, TypeAlias

from sqlalchemy import Column, Connection, Dialect, Table

CHUNK: Final = 500
"""Values named in one statement; SQLite takes at least 999."""

_TOGETHER: Final = 16
"""Rows of one statement of SQLite: a quarter less time than row by row, and no less with more."""

_STATEMENT: Final = 500_000
"""Characters of one statement of MySQL, about; servers take 16 MB, and a row up to 16 MB."""

Row: TypeAlias = tuple[Any, ...]
"""Values of a table's columns, in their order."""


class Statements:
    """Writes many rows, each a tuple in the order of its table's columns.

    SQLAlchemy would make a dictionary of each row, and the driver of MySQL takes a microsecond for
    each value: both are longer than the database needs.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._is_sqlite = dialect.name == "sqlite"
        self._quote = dialect.identifier_preparer.quote

    def add(self, connection: Connection, table: Table, rows: Sequence[Row]) -> int:
        """Insert rows whose key is not there yet; return how many these were."""
        return self._add(connection, table, list(table.columns), rows)

    def add_one(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row with ``values`` by column; whether it was not there yet by any key."""
        columns = [table.c[name] for name in values]
        return self._add(connection, table, columns, [tuple(values.values())]) > 0

    def _add(
        self,
        connection: Connection,
        table: Table,
        columns: Sequence[Column[Any]],
        rows: Sequence[Row],
    ) -> int:
        into = self._into(table, columns)
        if self._is_sqlite:
            return self._bound(connection, f"INSERT OR IGNORE {into}", rows)
        # Not IGNORE: it would also store what does not fit, cut to size.
        first = self._quote(next(iter(table.primary_key.columns)).name)
        same = f" ON DUPLICATE KEY UPDATE {first} = {first}"
        return _written(connection, f"INSERT {into}", rows, same)

    def put(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows in place of those with the same key."""
        write = self._bound if self._is_sqlite else _written
        write(connection, f"REPLACE {self._into(table, list(table.columns))}", rows)

    def _into(self, table: Table, columns: Sequence[Column[Any]]) -> str:
        names = ", ".join(self._quote(column.name) for column in columns)
        return f"INTO {self._quote(table.name)} ({names}) VALUES "

    @staticmethod
    def _bound(connection: Connection, begin: str, rows: Sequence[Row]) -> int:
        """Write rows with their values beside the statement."""
        many = len(rows) - len(rows) % _TOGETHER
        packed = [
            tuple(chain.from_iterable(rows[i : i + _TOGETHER])) for i in range(0, many, _TOGETHER)
        ]
        count = 0
        for number, values in ((_TOGETHER, packed), (1, rows[many:])):
            if values:
                row = ", ".join(["?"] * len(rows[0]))
                text = begin + ", ".join([f"({row})"] * number)
                count += connection.exec_driver_sql(text, values).rowcount
        return count


def _written(connection: Connection, begin: str, rows: Sequence[Row], end: str = "") -> int:
    """Write rows with their values in the statement."""
    count = 0
    texts = _literals(rows) or _escaped(rows, connection.connection.driver_connection)
    start = 0
    while start < len(texts):
        size, stop = 0, start
        while stop < len(texts) and size < _STATEMENT:
            size += len(texts[stop])
            stop += 1
        text = begin + ",".join(texts[start:stop]) + end
        # Without parameters a % in it is only that.
        count += connection.exec_driver_sql(
            text, execution_options={"no_parameters": True}
        ).rowcount
        start = stop
    return count


def _literals(rows: Sequence[Row]) -> list[str]:
    """Return the values of each row in parentheses, none if the driver has to write them.

    What Python shows of a tuple of numbers and plain text is SQL already, except for None.
    """
    types = Counter(map(type, chain.from_iterable(rows)))
    if not types.keys() <= {int, str, NoneType} or any(len(row) < 2 for row in rows[:1]):
        return []
    texts = list(map(repr, rows))
    whole = "".join(texts)
    # Text that is not plain is shown with a backslash or between double quotes.
    if "\\" in whole or ', "' in whole or whole.count(", None") != types[NoneType]:
        return []
    return [text.replace(", None", ", NULL") for text in texts] if types[NoneType] else texts


def _escaped(rows: Sequence[Row], driver: Any) -> list[str]:
    """Return the same of any values."""

    def literal(value: object) -> str:
        if value is None:
            return "NULL"
        if type(value) is int:
            return str(value)
        return str(driver.escape(value))

    return [f"({','.join(map(literal, row))})" for row in rows]
