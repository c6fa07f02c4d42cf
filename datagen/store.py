"""The store: one DuckDB file for people to query, and an append-only log beside it that takes every answer at once.

A record is written to `NAME.log` the moment it exists (one JSON line, one write) and kept in memory; DuckDB takes what has gathered
in one transaction every few seconds. The file is never held open, so that people can query while a run goes on. A log
that is found at start is replayed: nothing that was answered is lost by a crash.
DuckDB is imported here alone; others ask through `query` and the views.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import duckdb

from datagen.errors import StoreError
from datagen.records import Example, PlanItem, Request, Response, Verdict

_SCHEMA = Path(__file__).with_name("schema.sql")
_TABLES, _VIEWS = _SCHEMA.read_text(encoding="utf-8").split("-- VIEWS\n")

Row = dict[str, Any]

# from_json's structure of each table: how the log's lines become rows.
_CHAT = [{"role": "VARCHAR", "content": "VARCHAR"}]
_COLUMNS: dict[str, dict[str, Any]] = {
    "runs": {
        "id": "VARCHAR", "command": "VARCHAR", "started": "TIMESTAMP", "finished": "TIMESTAMP", "status": "VARCHAR",
        "recipe": "JSON", "versions": "JSON", "terms": "JSON",
    },
    "calls": {
        "id": "VARCHAR", "item_id": "VARCHAR", "prompt": "VARCHAR", "role": "VARCHAR", "model": "VARCHAR", "messages": _CHAT,
        "params": "JSON", "sample": "VARCHAR", "text": "VARCHAR", "reasoning": "VARCHAR", "finish_reason": "VARCHAR",
        "prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "cached_tokens": "BIGINT", "cost_usd": "DOUBLE",
        "latency_s": "DOUBLE", "attempts": "INTEGER", "run_id": "VARCHAR", "created_at": "TIMESTAMP",
    },
    "failures": {
        "request_id": "VARCHAR", "item_id": "VARCHAR", "prompt": "VARCHAR", "role": "VARCHAR", "model": "VARCHAR",
        "error": "VARCHAR", "message": "VARCHAR", "run_id": "VARCHAR", "created_at": "TIMESTAMP",
    },
    "items": {
        "id": "VARCHAR", "topic": "VARCHAR", "generator": "VARCHAR", "count": "INTEGER", "plan": "JSON", "status": "VARCHAR",
        "error": "VARCHAR", "example_ids": ["VARCHAR"], "planned": "BOOLEAN", "run_id": "VARCHAR",
    },
    "examples": {
        "id": "VARCHAR", "item_id": "VARCHAR", "topic": "VARCHAR", "generator": "VARCHAR", "prompt": _CHAT,
        "completion": "VARCHAR", "rejected": "VARCHAR", "reasoning": "VARCHAR", "answer": "JSON", "label": "VARCHAR",
        "kind": "VARCHAR", "dimensions": "JSON", "scores": "JSON", "calls": ["VARCHAR"], "parent": "VARCHAR",
        "run_id": "VARCHAR",
    },
    "verdicts": {
        "example_id": "VARCHAR", "decided_by": "VARCHAR", "keep": "BOOLEAN", "reason": "VARCHAR", "created_at": "TIMESTAMP",
    },
    "groups": {"example_id": "VARCHAR", "group_id": "VARCHAR"},
}  # fmt: skip
_UPSERTED = ("items", "runs")  # the newest line of an id is its state; elsewhere the first line of an id stays
_PLAIN = ("verdicts", "groups", "failures")  # rows without an id of their own


def _m001_tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(_TABLES)


def _m002_terms_of_runs(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE runs ADD COLUMN IF NOT EXISTS terms JSON")
    con.execute("COMMENT ON COLUMN runs.terms IS 'How the terms of each teacher stood when the run asked them.'")


# Each entry takes a store from version n to n + 1. Paid data is migrated, never cleared.
MIGRATIONS: list[Callable[[duckdb.DuckDBPyConnection], None]] = [_m001_tables, _m002_terms_of_runs]


class Store:
    """One recipe's store. Opening it makes or migrates the file and replays a log that a crash left."""

    def __init__(self, path: Path, *, lock_wait_s: float = 60.0) -> None:
        self.path = path
        self.log_path = path.with_suffix(".log")
        self.run_id = ""
        self._lock_wait_s = lock_wait_s
        self._pending: dict[str, list[Row]] = {}
        self._log: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent}: cannot be made ({error.strerror}). Choose another place by --store.") from error
        if self._needs_upgrade():
            with self.writing():
                self._upgrade()
        elif self._has_log():
            with self.writing():
                pass

    # -- connections

    @contextmanager
    def _connect(self, read_only: bool, wait_s: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one piece of work; waits while another process holds the file."""
        deadline = time.monotonic() + (self._lock_wait_s if wait_s is None else wait_s)
        while True:
            try:
                con = duckdb.connect(str(self.path), read_only=read_only)
                break
            except duckdb.IOException as error:
                text = str(error)
                if "lock" not in text.lower():
                    raise StoreError(f"{self.path}: cannot be opened: {text}") from error
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"{self.path}: another program holds it open. Close that program and run again; nothing is lost."
                    ) from error
                time.sleep(0.02)
            except duckdb.Error as error:
                raise StoreError(
                    f"{self.path}: is not a store that can be read ({error}). Name another file by --store, or move this one away."
                ) from error
        try:
            if not read_only:
                con.execute("SET checkpoint_threshold = '256MB'")  # bulk loading was measured 1.4-1.8 times faster
            yield con
        except duckdb.OutOfMemoryException as error:
            raise StoreError(f"{self.path}: DuckDB ran out of memory or disk: {error}. Make room and run again.") from error
        except (duckdb.IOException, duckdb.TransactionException) as error:
            raise StoreError(f"{self.path}: {error}. Make room on the disk and run again; nothing is lost.") from error
        finally:
            con.close()

    def _version(self, con: duckdb.DuckDBPyConnection) -> int:
        tables = con.execute("SELECT table_name FROM information_schema.tables").fetchall()
        if ("settings",) not in tables:
            if tables:
                raise StoreError(f"{self.path}: is a DuckDB file, but not a store of this program. Name another by --store.")
            return 0
        found = con.execute("SELECT max(value::INTEGER) FROM settings WHERE name = 'version'").fetchone()
        return int(found[0]) if found and found[0] is not None else 0

    def _needs_upgrade(self) -> bool:
        if not self.path.exists():
            return True
        with self._connect(read_only=True) as con:
            version = self._version(con)
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path}: has version {version}; this program knows up to {len(MIGRATIONS)}. "
                    "Install a newer version of the program; the file was not touched."
                )
            if version < len(MIGRATIONS):
                return True
            views = con.execute("SELECT value FROM settings WHERE name = 'views'").fetchone()
            return views is None or views[0] != _views_hash()

    def _upgrade(self) -> None:
        with self._connect(read_only=False) as con:
            con.execute("BEGIN")
            for number in range(self._version(con), len(MIGRATIONS)):
                MIGRATIONS[number](con)
            con.execute(_VIEWS)
            self._set(con, {"version": str(len(MIGRATIONS)), "views": _views_hash()})
            con.execute("COMMIT")

    # -- reading

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of a read-only query, as dicts. Raises StoreError with DuckDB's own words for SQL that is wrong."""
        with self._connect(read_only=True) as con:
            try:
                result = con.execute(sql, params)
                columns = [column[0] for column in result.description or []]
                return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
            except duckdb.IOException:
                raise
            except duckdb.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

    def answers(self) -> dict[str, Response]:
        """Every stored answer by request id: what a rerun does not ask again."""
        rows = self.query(
            "SELECT id AS request_id, text, reasoning, finish_reason, prompt_tokens, completion_tokens, cached_tokens, "
            "cost_usd, latency_s, attempts FROM calls"
        )
        return {row["request_id"]: Response.model_construct(**row) for row in rows}

    def spent_usd(self) -> float:
        """What all stored calls cost."""
        return float(self.query("SELECT coalesce(sum(cost_usd), 0) AS usd FROM calls")[0]["usd"])

    def teachers_of_accepted(self) -> list[Row]:
        """Role, model and api_base of every call behind the accepted examples, those that judged their items included."""
        return self.query(
            "FROM (SELECT DISTINCT role, model, params->>'api_base' AS api_base FROM calls "
            "WHERE id IN (SELECT unnest(calls) FROM accepted) OR (role = 'judge' AND item_id IN (SELECT item_id FROM accepted))) "
            "ORDER BY list_position(['teacher', 'weak', 'judge'], role), model, api_base"
        )

    def terms_of_runs(self) -> list[list[Row]]:
        """How the teachers' terms stood in each run that noted it, the newest first."""
        rows = self.query("SELECT terms FROM runs WHERE terms IS NOT NULL ORDER BY started DESC")
        return [json.loads(row["terms"]) for row in rows]

    def current_examples(self) -> list[Example]:
        """The examples that the present plan stands for, by id."""
        return self._examples("current_examples")

    def accepted_examples(self) -> list[Example]:
        """The examples that are fit for training, by id."""
        return self._examples("accepted")

    def _examples(self, view: Literal["current_examples", "accepted"]) -> list[Example]:
        rows = self.query(f"SELECT * FROM {view} ORDER BY id")
        for row in rows:
            for name in ("answer", "dimensions", "scores"):
                row[name] = json.loads(row[name]) if row[name] else None
            row["dimensions"], row["scores"] = row["dimensions"] or {}, row["scores"] or {}
        return [Example.from_row(row) for row in rows]

    def totals(self) -> Row:
        """How many current examples there are, and how many the last word keeps and drops."""
        return self.query(
            "SELECT count(*) AS examples, count(*) FILTER (keep) AS accepted, count(*) FILTER (NOT keep) AS rejected FROM decisions"
        )[0]

    def topic_coverage(self) -> list[Row]:
        """What was asked for, made and accepted of each topic, by path."""
        return self.query(
            "SELECT topic, sum(target)::BIGINT AS target, sum(examples)::BIGINT AS examples, sum(accepted)::BIGINT AS accepted "
            "FROM coverage GROUP BY topic ORDER BY topic"
        )

    def verdicts(self) -> list[Verdict]:
        """Every verdict in the order in which it was given."""
        return [
            Verdict(**row)
            for row in self.query(
                'SELECT example_id, decided_by AS "by", keep, reason FROM verdicts ORDER BY created_at, example_id, decided_by'
            )
        ]

    def copy(self, select: str, path: Path, format: Literal["parquet", "json"], params: Sequence[Any] = ()) -> None:
        """Write the rows of a SELECT to a Parquet or JSON-lines file."""
        options = "FORMAT parquet, COMPRESSION zstd" if format == "parquet" else "FORMAT json"
        target = str(path).replace("'", "''")
        with self._connect(read_only=True) as con:
            try:
                con.execute(f"COPY ({select}) TO '{target}' ({options})", list(params))
            except duckdb.IOException:
                raise
            except duckdb.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

    # -- writing

    @contextmanager
    def writing(self) -> Iterator[Self]:
        """The right to write: one process at a time. Replays a log that was left, and flushes at the end."""
        if self._log is not None:
            yield self
            return
        try:
            self._log = os.open(self.log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StoreError(f"{self.log_path}: cannot be written ({error.strerror}). Choose another place by --store.") from error
        try:
            try:
                fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(f"{self.path}: another run is writing to it. Wait until it ends, or stop it; nothing is lost.") from error
            if not self.path.exists():
                self._upgrade()
            self._replay()
            try:
                yield self
            finally:
                self.flush()
        finally:
            os.close(self._log)
            self._log = None

    def _has_log(self) -> bool:
        return self.log_path.exists() and self.log_path.stat().st_size > 0

    def _replay(self) -> None:
        """Take the lines that a killed process left; a torn last line was never acknowledged and is dropped."""
        data = self.log_path.read_bytes()
        if not data:
            return
        for number, line in enumerate(data.split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                table, row = json.loads(line)
                self._pending.setdefault(table, []).append(row)
            except ValueError as error:
                if number <= data.count(b"\n"):
                    raise StoreError(
                        f"{self.log_path}:{number}: is damaged (not a torn last line). Move the line elsewhere and run again."
                    ) from error
        self.flush()

    def _append(self, table: str, row: Row) -> None:
        if self._log is None:
            raise StoreError(f"{self.path}: nothing can be written outside `with store.writing()`.")
        line = json.dumps([table, row], ensure_ascii=False, separators=(",", ":"), default=str) + "\n"
        data = line.encode()
        try:
            written = os.write(self._log, data)
            if written != len(data):  # a full disk takes a part; take it back, so that the log stays whole
                os.ftruncate(self._log, os.fstat(self._log).st_size - written)
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise StoreError(f"{self.log_path}: cannot be written ({error.strerror}). Make room and run again; nothing is lost.") from error
        self._pending.setdefault(table, []).append(row)

    @property
    def pending(self) -> int:
        """Rows that are in the log and not yet in DuckDB."""
        return sum(map(len, self._pending.values()))

    def flush(self, wait_s: float | None = None) -> bool:
        """Move what is pending into DuckDB in one transaction; False when a reader held the file for `wait_s` (all stays in the log)."""
        if not self.pending or self._log is None:
            return True
        try:
            with self._connect(read_only=False, wait_s=wait_s) as con:
                con.execute("BEGIN")
                for table, rows in self._pending.items():
                    _insert(con, table, rows)
                con.execute("COMMIT")
        except StoreError:
            if wait_s is None:
                raise
            return False
        os.ftruncate(self._log, 0)
        self._pending.clear()
        return True

    def add_call(self, request: Request, response: Response) -> None:
        """Journal an answered call. On disk when this returns."""
        row = {
            **request.model_dump(exclude={"item_id"}), **response.model_dump(exclude={"request_id"}),
            "id": response.request_id, "item_id": request.item_id, "run_id": self.run_id, "created_at": _now(),
        }  # fmt: skip
        self._append("calls", row)

    def add_failure(self, request: Request, error: str, message: str) -> None:
        """Journal an attempt that got no answer."""
        row = {
            "request_id": request.id, "item_id": request.item_id, "prompt": request.prompt, "role": request.role,
            "model": request.model, "error": error, "message": message[:2000], "run_id": self.run_id, "created_at": _now(),
        }  # fmt: skip
        self._append("failures", row)

    def add_item(self, item: PlanItem, status: str, examples: Sequence[Example] = (), error: str | None = None) -> None:
        """Journal how an item ended, with the examples that it now stands for."""
        for example in examples:
            self._append("examples", {**example.model_dump(mode="json"), "run_id": self.run_id})
        row = {
            "id": item.id, "topic": item.topic, "generator": item.generator, "count": item.count, "plan": item.model_dump(mode="json"),
            "status": status, "error": error, "example_ids": [example.id for example in examples], "planned": True,
            "run_id": self.run_id,
        }  # fmt: skip
        self._append("items", row)

    def add_examples(self, examples: Iterable[Example]) -> None:
        """Journal examples that belong to no item's end: a person's edits."""
        with self.writing():
            for example in examples:
                self._append("examples", {**example.model_dump(mode="json"), "run_id": self.run_id})

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Journal people's verdicts; the latest of a person on an example counts."""
        with self.writing():
            for verdict in verdicts:
                self._append("verdicts", _verdict_row(verdict, _now()))

    def replace_filter_verdicts(self, verdicts: Sequence[Verdict], groups: Mapping[str, str]) -> None:
        """Put new filter verdicts and groups in the place of the old ones, in one transaction."""
        with self.writing():
            self.flush()
            now = _now()
            with self._connect(read_only=False) as con:
                con.execute("BEGIN")
                con.execute("DELETE FROM verdicts WHERE decided_by LIKE 'filter:%'")
                con.execute("DELETE FROM groups")
                _insert(con, "verdicts", [_verdict_row(verdict, now) for verdict in verdicts])
                _insert(con, "groups", [{"example_id": e, "group_id": g} for e, g in sorted(groups.items())])
                con.execute("COMMIT")

    def set_plan(self, items: Sequence[PlanItem]) -> None:
        """Say which items the present plan has: examples of others are no longer current."""
        with self.writing():
            self.flush()
            with self._connect(read_only=False) as con:
                con.execute("BEGIN")
                con.execute(
                    "UPDATE items SET planned = (id IN (SELECT unnest(from_json(?, '[\"VARCHAR\"]'))))",
                    [json.dumps([item.id for item in items])],
                )
                con.execute("COMMIT")

    def set_settings(self, settings: Mapping[str, str]) -> None:
        """Store values that the views read."""
        with self.writing(), self._connect(read_only=False) as con:
            con.execute("BEGIN")
            self._set(con, settings)
            con.execute("COMMIT")

    @staticmethod
    def _set(con: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> None:
        for name, value in settings.items():
            con.execute("DELETE FROM settings WHERE name = ?", [name])
            con.execute("INSERT INTO settings VALUES (?, ?)", [name, value])

    def start_run(
        self, run_id: str, command: str, recipe: Mapping[str, Any], versions: Mapping[str, str], terms: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Journal that a run began; `terms` says how those of its teachers stood."""
        self.run_id = run_id
        self._append(
            "runs",
            {
                "id": run_id,
                "command": command,
                "started": _now(),
                "finished": None,
                "status": "running",
                "recipe": recipe,
                "versions": versions,
                "terms": list(terms) or None,
            },
        )

    def end_run(self, status: str) -> None:
        """Journal how the run ended."""
        self.flush()
        with self._connect(read_only=False) as con:
            con.execute("UPDATE runs SET finished = ?, status = ? WHERE id = ?", [_now(), status, self.run_id])


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row]) -> None:
    """Rows into a table; replaying the same rows changes nothing."""
    if not rows:
        return
    columns = _COLUMNS[table]
    names = ", ".join(columns)
    source = "(SELECT unnest(from_json(?, ?)) AS r)"
    structure = json.dumps([columns])
    if table in _PLAIN:
        con.execute(
            f"INSERT INTO {table} ({names}) SELECT {', '.join('r.' + c for c in columns)} FROM {source}",
            [json.dumps(rows, default=str), structure],
        )
        return
    latest = {row["id"]: row for row in rows}
    if table not in _UPSERTED:
        latest = {row["id"]: row for row in reversed(rows)}
    text = json.dumps(list(latest.values()), ensure_ascii=False, default=str)
    if table in _UPSERTED:
        con.execute(f"DELETE FROM {table} WHERE id IN (SELECT unnest(from_json(?, '[\"VARCHAR\"]')))", [json.dumps(list(latest))])
    con.execute(
        f"INSERT INTO {table} ({names}) SELECT {', '.join('r.' + c for c in columns)} FROM {source} "
        f"WHERE r.id NOT IN (SELECT id FROM {table})",
        [text, structure],
    )


def _verdict_row(verdict: Verdict, created_at: str) -> Row:
    # "by" is a reserved word of SQL: people should not need to quote a column
    return {**verdict.model_dump(exclude={"by"}), "decided_by": verdict.by, "created_at": created_at}


def _views_hash() -> str:
    return hashlib.sha256(_VIEWS.encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
