"""What was answered and what people thought of it: a log that takes each line at once, and a DuckDB file for people.

    journal = Journal(Path("runs/serving.duckdb"))
    journal.write("answers", row)       on disk when it returns
    journal.flush()                     into DuckDB; the server does it every few seconds
    rows = read_rated(Path("runs/serving.duckdb"))

A line goes to NAME.log by one write before the answer goes out, so a crash loses none; the file is set aside (NAME.log.taking), taken into
DuckDB in one transaction, and removed. Taking it twice does no harm: ids decide. DuckDB is never held open, so that people can query while
the server runs. One server writes a log at a time. In `train`, DuckDB is imported here alone.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import duckdb

from train.errors import ServingError

Table = Literal["answers", "feedback"]
COLUMNS: dict[Table, dict[str, Any]] = {
    "answers": {
        "id": "VARCHAR", "created": "TIMESTAMP", "served": "VARCHAR", "arm": "VARCHAR", "fingerprint": "VARCHAR", "sha256": "VARCHAR",
        "user": "VARCHAR", "prompt": [{"role": "VARCHAR", "content": "VARCHAR"}], "prompt_sha256": "VARCHAR", "answer": "VARCHAR",
        "answer_sha256": "VARCHAR", "finish": "VARCHAR", "error": "VARCHAR", "prompt_tokens": "BIGINT", "completion_tokens": "BIGINT",
        "queued_s": "DOUBLE", "first_s": "DOUBLE", "latency_s": "DOUBLE", "temperature": "DOUBLE", "stream": "BOOLEAN",
    },
    "feedback": {
        "id": "VARCHAR", "answer_id": "VARCHAR", "created": "TIMESTAMP", "score": "DOUBLE", "label": "VARCHAR", "comment": "VARCHAR",
    },
}  # fmt: skip
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name VARCHAR, value VARCHAR);
CREATE TABLE IF NOT EXISTS answers (id VARCHAR, created TIMESTAMP, served VARCHAR, arm VARCHAR, fingerprint VARCHAR, sha256 VARCHAR,
  "user" VARCHAR, prompt STRUCT(role VARCHAR, content VARCHAR)[], prompt_sha256 VARCHAR, answer VARCHAR, answer_sha256 VARCHAR,
  finish VARCHAR, error VARCHAR, prompt_tokens BIGINT, completion_tokens BIGINT, queued_s DOUBLE, first_s DOUBLE, latency_s DOUBLE,
  temperature DOUBLE, stream BOOLEAN);
CREATE TABLE IF NOT EXISTS feedback (id VARCHAR, answer_id VARCHAR, created TIMESTAMP, score DOUBLE, label VARCHAR, comment VARCHAR);
COMMENT ON TABLE answers IS 'Every answer that was asked for, with the arm that gave it; cancelled and failed ones too.';
COMMENT ON COLUMN answers.served IS 'The model name that was asked for.';
COMMENT ON COLUMN answers.fingerprint IS 'Name and hash of the adapter version that answered.';
COMMENT ON COLUMN answers."user" IS 'A keyed hash of who asked; NULL where nobody said.';
COMMENT ON COLUMN answers.first_s IS 'Seconds from the request to its first text.';
COMMENT ON TABLE feedback IS 'What people said about answers, all of it; the last score of an answer counts.';
CREATE OR REPLACE VIEW rated AS
  SELECT a.*, f.score, f.label, f.comment, f.created AS rated_at FROM answers a JOIN (
    SELECT * FROM feedback WHERE score IS NOT NULL QUALIFY row_number() OVER (PARTITION BY answer_id ORDER BY created DESC, rowid DESC) = 1
  ) f ON f.answer_id = a.id;
COMMENT ON VIEW rated IS 'Answers with the last score that each was given.';
CREATE OR REPLACE VIEW arms AS
  SELECT served, fingerprint, count(*) AS answers, count(DISTINCT "user") AS users, count(*) FILTER (finish = 'error') AS failed,
    median(latency_s) AS median_s, quantile_cont(latency_s, 0.95) AS p95_s, avg(completion_tokens) AS tokens, min(created) AS since
  FROM answers GROUP BY ALL ORDER BY ALL;
COMMENT ON VIEW arms IS 'How many answers each arm gave, and how fast.';
"""
VERSION = "1"


class Journal:
    """The log of one server. Raises ServingError when another server writes it, or the place cannot be written."""

    def __init__(self, path: Path, *, wait_s: float = 10.0) -> None:
        self.path = path
        self.log_path = path.with_name(path.name + ".log")
        self.taking = path.with_name(path.name + ".log.taking")
        self._wait_s = wait_s
        self._writing = threading.Lock()
        self._flushing = threading.Lock()
        self._ids: set[str] = set()  # of answers that DuckDB has not yet
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.salt = self._read_salt()
            self._log = self._open_log()
        except BlockingIOError as error:
            os.close(self._lock)
            raise _Held(f"{path}: another server writes this log. Give this one its own by --log, or stop the other.") from error
        except OSError as error:
            raise ServingError(f"{path}: cannot be written: {error}. Set --log FILE.") from error
        try:
            self._mend()
            with _connected(path, wait_s) as con:
                self._check(con)
            self.flush()
        except BaseException:
            self._release()
            raise

    def write(self, table: Table, row: Mapping[str, Any]) -> None:
        """Append a line; it is with the operating system when this returns. Raises OSError, and leaves no half line, on a full disk."""
        line = json.dumps({"table": table, **row}, ensure_ascii=False).encode() + b"\n"
        with self._writing:
            size = os.fstat(self._log).st_size
            try:
                if os.write(self._log, line) != len(line):
                    raise OSError(28, "no space left on device")
            except OSError:
                os.ftruncate(self._log, size)
                raise
            if table == "answers":
                self._ids.add(str(row["id"]))

    def flush(self) -> None:
        """Take what was logged into DuckDB. Where another program holds the file it stays in the log, for the next time."""
        with self._flushing:
            if not self.taking.exists():
                with self._writing:
                    if not os.fstat(self._log).st_size:
                        return
                    self.log_path.rename(self.taking)
                    os.close(self._log)
                    self._log = self._open_log()
            try:
                with _connected(self.path, 0.5) as con:
                    self._ids -= _take(con, self.taking)
            except _Busy:
                return
            self.taking.unlink()

    def knows(self, answer: str) -> bool:
        """Whether this answer was given here. Raises ServingError while another program holds the file."""
        if answer in self._ids:
            return True
        with self._flushing, _connected(self.path, self._wait_s) as con:
            return bool(con.execute("SELECT 1 FROM answers WHERE id = ?", [answer]).fetchone())

    def close(self) -> None:
        """Flush and let another server have the log."""
        try:
            for _ in range(2):  # what an interrupted flush set aside, then the log
                self.flush()
        finally:
            self._release()

    def _release(self) -> None:
        os.close(self._log)
        os.close(self._lock)

    def _open_log(self) -> int:
        return os.open(self.log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def _mend(self) -> None:
        """End a line that a crash tore, so that the next one is whole."""
        size = os.fstat(self._log).st_size
        if size and os.pread(self._log, 1, size - 1) != b"\n":
            os.write(self._log, b"\n")

    def _read_salt(self) -> bytes:
        file = self.path.with_name(self.path.name + ".salt")
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, secrets.token_hex(16).encode())
            os.close(descriptor)
        return file.read_bytes()

    def _check(self, con: duckdb.DuckDBPyConnection) -> None:
        tables = {name for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        if tables and not {"settings", "answers", "feedback"} <= tables:
            raise ServingError(f"{self.path}: is a DuckDB file, but not a log of answers. Name another by --log.")
        if tables:
            found = con.execute("SELECT max(value) FROM settings WHERE name = 'answers_version'").fetchone()
            if found is None or found[0] != VERSION:
                raise ServingError(f"{self.path}: has version {found and found[0]}, this program writes {VERSION}. Name another by --log.")
        con.execute(_SCHEMA)
        if not tables:
            con.execute("INSERT INTO settings VALUES ('answers_version', ?)", [VERSION])


def read_rated(path: Path) -> list[dict[str, Any]]:
    """Rows of the view `rated`, oldest feedback first, what a stopped server left in its log included. Raises ServingError."""
    return _read(path, 'SELECT served, arm, fingerprint, "user", score, rated_at, latency_s FROM rated ORDER BY rated_at, id')


def read_arms(path: Path) -> list[dict[str, Any]]:
    """Rows of the view `arms`. Raises ServingError."""
    return _read(path, "FROM arms")


def _read(path: Path, sql: str) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ServingError(f"{path}: there is no log of answers. Serve first (`make serve-model`), or name it by --log.")
    logs = [path.with_name(path.name + end) for end in (".log", ".log.taking")]
    if any(log.is_file() and log.stat().st_size for log in logs):
        with suppress(_Held):  # a running server takes in its log by itself, every few seconds
            Journal(path).close()
    with _connected(path, 10.0, read_only=True) as con:
        result = con.execute(sql)
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


class _Held(ServingError):
    """A server that runs writes the log."""


class _Busy(ServingError):
    """Another program holds the file."""


@contextmanager
def _connected(path: Path, wait_s: float, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for one piece of work; waits while another process holds the file."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only)
            break
        except (duckdb.IOException, duckdb.ConnectionException) as error:  # the latter: this process holds it, to write
            if not any(word in str(error).lower() for word in ("lock", "different configuration")):
                raise ServingError(f"{path}: cannot be opened: {error}") from error
            if time.monotonic() >= deadline:
                raise _Busy(f"{path}: another program holds it open. Close that program; nothing is lost.") from error
            time.sleep(0.05)
        except duckdb.Error as error:
            raise ServingError(f"{path}: is not a DuckDB file that can be read ({error}). Name another by --log.") from error
    try:
        yield con
    finally:
        con.close()


def _take(con: duckdb.DuckDBPyConnection, log: Path) -> set[str]:
    """Insert a log's lines, those that are there already left out; return the answers' ids. A torn line was never answered."""
    rows: dict[Table, list[Any]] = {"answers": [], "feedback": []}
    for line in log.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
            rows[row.pop("table")].append(row)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    con.execute("BEGIN")
    for table, listed in rows.items():
        if listed:
            names = ", ".join(f'"{name}"' for name in COLUMNS[table])
            con.execute(
                f"INSERT INTO {table} BY NAME SELECT {names} FROM (SELECT unnest(from_json(?::JSON, ?), max_depth := 2)) "
                f"WHERE id NOT IN (SELECT id FROM {table})",
                [json.dumps(listed, ensure_ascii=False), json.dumps([COLUMNS[table]])],
            )
    con.execute("COMMIT")
    return {row["id"] for row in rows["answers"]}
