"""SQL that a model wrote, run in an in-memory DuckDB that reaches no file and no network and changes nothing.

The one place besides the store that knows duckdb: it opens no file, so it has nothing of the store's to share.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import duckdb

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # or `FROM x` reads a Python variable x
    "temp_directory": "",
    "threads": "1",
    "memory_limit": "256MB",
}
_MOST_ROWS = 10_000
_DIGITS = 9
Rows = Sequence[tuple[Any, ...]]


class SqlError(Exception):
    """A query that is not one SELECT, or that DuckDB refuses; the message is for people."""


class Database:
    """Tables made by a script of the taxonomy, for queries that only read. Raises SqlError for a script that fails."""

    def __init__(self, setup: str) -> None:
        self._con = duckdb.connect(":memory:", config=_CONFIG)
        try:
            self._con.execute(setup or "SELECT 1")
            self._con.execute("SET lock_configuration = true")
        except duckdb.Error as error:
            raise SqlError(_first_line(error)) from error
        self.rows = lru_cache(maxsize=4096)(self._rows)

    def _rows(self, query: str) -> Rows:
        """The rows of one SELECT. Raises SqlError."""
        try:
            statements = self._con.extract_statements(query)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
                raise SqlError(f"is not one SELECT but {kinds}")
            rows = self._con.execute(statements[0]).fetchmany(_MOST_ROWS + 1)
        except duckdb.Error as error:
            raise SqlError(_first_line(error)) from error
        except (RuntimeError, ValueError, UnicodeError) as error:  # the bindings' own, for text that is none
            raise SqlError(str(error)) from error
        if len(rows) > _MOST_ROWS:
            raise SqlError(f"returns more than {_MOST_ROWS:,} rows")
        return rows


def differ(found: Rows, wanted: Rows, *, ordered: bool) -> str | None:
    """How two results differ, in words; None when they are the same. Numbers to nine digits, names of columns left aside."""
    one, other = [_row(row) for row in found], [_row(row) for row in wanted]
    if one == other or (not ordered and Counter(one) == Counter(other)):
        return None
    if len(one) != len(other):
        return f"{len(one)} rows, the reference has {len(other)}"
    if one and len(one[0]) != len(other[0]):
        return f"{len(one[0])} columns, the reference has {len(other[0])}"
    if ordered and Counter(one) == Counter(other):
        return "the reference's rows in another order"
    row = next(row for row in one if row not in set(other)) if set(one) - set(other) else one[0]
    return f"row {', '.join(map(str, row))!r}, which the reference does not have so"


def _row(row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(_value(value) for value in row)


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    try:
        return f"{float(value):.{_DIGITS}g}" if not isinstance(value, str) else f"text {value}"
    except (TypeError, ValueError):
        return f"{type(value).__name__} {value}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
