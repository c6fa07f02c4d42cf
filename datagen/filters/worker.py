"""A process of its own for verifiers that run somebody's code: a pattern, a schema, a query, a function of the user.

    python -m datagen.filters.worker FD

It is told one verifier, then rows, and says of each row what is wrong with it. Whoever waits for it (verify.py) ends it when a row
takes too long; memory is limited here. Nothing that the code prints or raises reaches anybody else.
"""

import contextlib
import importlib.util
import json
import re
import resource
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# says what is wrong with one row, or None: {"value": ..., "known": ..., "example": {...}}; "value" and "known" may be missing
Check = Callable[[Mapping[str, Any]], str | None]


def main() -> None:
    """Serve until the other end closes."""
    link = Connection(int(sys.argv[1]))
    told = json.loads(link.recv_bytes())
    try:
        check = load(told["verifier"])
        _limit_memory(told["memory_mb"])
        link.send_bytes(b'"ready"')
    except BaseException as error:
        link.send_bytes(json.dumps(f"cannot be loaded: {_told(error)}").encode())
        return
    while True:
        try:
            rows = json.loads(link.recv_bytes())
        except EOFError:
            return
        for row in rows:
            link.send_bytes(json.dumps(_decide(check, row)).encode())


def _decide(check: Check, row: Mapping[str, Any]) -> tuple[str, str | None]:
    """("says", reason or None), or ("fails", what happened)."""
    try:
        said = check(row)
    except (Exception, SystemExit) as error:
        return "fails", _told(error)
    return "says", said


def _told(error: BaseException) -> str:
    return f"raised {type(error).__name__}: {error}"[:300]


def _limit_memory(megabytes: int) -> None:
    """What is loaded already does not count."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    most = pages * resource.getpagesize() + megabytes * 1024 * 1024
    with contextlib.suppress(ValueError, OSError):  # some systems know no such limit
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def load(verifier: Mapping[str, Any]) -> Check:
    """The check that a verifier (records.Verifier as data) stands for. Raises whatever is wrong with it."""
    return _LOADERS[verifier["check"]](verifier)


def _pattern(verifier: Mapping[str, Any]) -> Check:
    pattern = re.compile(verifier["pattern"])

    def check(row: Mapping[str, Any]) -> str | None:
        text = row["value"] if isinstance(row["value"], str) else json.dumps(row["value"], ensure_ascii=False)
        found = pattern.search(text)
        if verifier["absent"]:
            return f"{found.group()[:60]!r} must not occur" if found else None
        return None if found else f"{text[:60]!r} does not match"

    return check


def _json_schema(verifier: Mapping[str, Any]) -> Check:
    from datagen import json_schema

    json_schema.check(verifier["json_schema"])
    return lambda row: json_schema.violation(row["value"], verifier["json_schema"])


def _sql(verifier: Mapping[str, Any]) -> Check:
    from datagen.filters.sql import Database, SqlError, differ

    setup, dimension = verifier["setup"], verifier["dimension"]
    databases = {name: Database(script) for name, script in setup.items()} if dimension else {"": Database(setup)}

    def check(row: Mapping[str, Any]) -> str | None:
        database = databases[row["example"]["dimensions"][dimension] if dimension else ""]
        if not isinstance(row["value"], str):
            return "is no text"
        try:
            rows = database.rows(row["value"])
        except SqlError as error:
            return str(error)
        if "known" not in row:
            return None
        try:
            return differ(rows, database.rows(str(row["known"])), ordered=verifier["ordered"])
        except SqlError as error:
            raise ValueError(f"the known query fails: {error}") from error

    return check


def _function(verifier: Mapping[str, Any]) -> Check:
    path, _, name = verifier["python"].rpartition(":")
    spec = importlib.util.spec_from_file_location("_user_verifier", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).parent))
    spec.loader.exec_module(module)
    function = getattr(module, name)

    def check(row: Mapping[str, Any]) -> str | None:
        said = function({**row["example"], **{key: row[key] for key in ("value", "known") if key in row}})
        if said is None or said is True:
            return None
        if said is False:
            return "says no"
        if isinstance(said, str):
            return said[:300]
        raise TypeError(f"it returned {said!r}"[:200] + "; return True or None for right, False or a text for wrong")

    return check


_LOADERS: Mapping[str, Callable[[Mapping[str, Any]], Check]] = {
    "regex": _pattern,
    "json_schema": _json_schema,
    "sql": _sql,
    "python": _function,
}

if __name__ == "__main__":
    main()
