"""Rows of a file that a user names, JSON lines or CSV: one error with file and line for whatever else it may be."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datagen.errors import ConfigError

_LOOKS_LIKE = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive or spreadsheet",
    b"\x1f\x8b": "a gzip file",
    b"SQLite": "a database",
}


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line that is not blank.

    Raises ConfigError for a file that cannot be read, is not UTF-8 or not JSON lines, and for text that no database can hold.
    """
    data = _bytes(path)
    for start, what in _LOOKS_LIKE.items():
        if data.startswith(start):
            raise ConfigError(f"{path}: is {what}. Give a file of JSON lines: one object per line.")
    # not splitlines(): it would part a line at signs that may stand inside a JSON string
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{path}:{number}: is not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1}). Save the file as UTF-8."
            ) from error
        yield number, _value(path, number, text)


def read_table(path: Path, key: str, value: str) -> dict[str, Any]:
    """What the field `value` says for each text of the field `key`, of a file of JSON lines or, named .csv, of CSV with a header.

    Raises ConfigError as `read_json_lines` does, for a field that is missing and for one text with two values.
    """
    rows = _csv(path) if path.suffix.lower() == ".csv" else read_json_lines(path)
    table: dict[str, Any] = {}
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get(key), str) or value not in row:
            have = ", ".join(map(str, row)) if isinstance(row, dict) else f"a JSON {type(row).__name__}"
            raise ConfigError(f"{path}:{number}: needs a text {key!r} and {value!r} (it has: {have}). Name the fields in the taxonomy.")
        if table.setdefault(row[key], row[value]) != row[value]:
            raise ConfigError(f"{path}:{number}: {row[key][:60]!r} has two answers. Remove one.")
    if not table:
        raise ConfigError(f"{path}: has no rows.")
    return table


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(_bytes(path).decode("utf-8-sig"), newline=""), strict=True, restval=None)
        for row in reader:
            if None in row or None in row.values():
                raise ConfigError(f"{path}:{reader.line_num}: has another number of cells than the header. Mend the line.")
            yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{path}: is not CSV ({error}). Mend it.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give a file of rows.") from error


def _value(path: Path, number: int, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if number == 1 and (text.strip() in "[{" or text.lstrip()[:1] not in "{["):
            kind = "a JSON document over several lines" if text.strip() in "[{" else f"begins with {text[:40]!r}"
            raise ConfigError(f"{path}: is not JSON lines ({kind}). Give one JSON object per line.") from error
        raise ConfigError(f"{path}:{number}: not valid JSON ({error}). Mend or remove the line.") from error
    if "\\u" in text and ("\\u0000" in text or not _is_unicode(value)):
        raise ConfigError(f"{path}:{number}: holds NUL or half of a surrogate pair, which is no text. Mend or remove the line.")
    return value


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
