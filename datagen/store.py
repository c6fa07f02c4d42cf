"""The store: one DuckDB file for people to query, and an append-only log beside it that takes every answer at once.

A record is written to `NAME.log` the moment it exists (one JSON line, one write) and kept in memory; DuckDB takes what has gathered
in one transaction every few seconds. The file is never held open, so that people can query while a run goes on. A log
that is found at start is replayed: nothing that was answered is lost by a crash.
A call that costs money is written down before it is sent: one that a killed process left unanswered may have been billed, and stays
counted at its worst case.
Several processes may work for one store: each writes a log of its own (`WorkerLog`), which the one that holds the store takes in.
DuckDB is imported here alone; others ask through `query` and the views.
"""

import fcntl
import glob
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import duckdb
import numpy as np
import orjson
from numpy.typing import NDArray

from datagen.errors import StoreError
from datagen.ledger import Ledger, may_be_billed
from datagen.records import Batch, EvaluationSet, Example, PlanItem, Request, Response, Vectors, Verdict, canonical_json, content_hash

_SCHEMA = Path(__file__).with_name("schema.sql")
_TABLES, _VIEWS = _SCHEMA.read_text(encoding="utf-8").split("-- VIEWS\n")

Row = dict[str, Any]


class _Line(NamedTuple):
    """A row on its way to the log. `encoded`: columns that were made JSON already, with it."""

    table: str
    row: Row
    encoded: Mapping[str, str] = {}


# A row on its way to DuckDB: its columns as texts, of which `_typed` makes what they are
_Texts = tuple[str | None, ...]

# The columns of each table, with from_json's structure of those that are nested.
_CHAT = [{"role": "VARCHAR", "content": "VARCHAR"}]
_COLUMNS: dict[str, dict[str, Any]] = {
    "runs": {
        "id": "VARCHAR", "command": "VARCHAR", "started": "TIMESTAMP", "finished": "TIMESTAMP", "status": "VARCHAR",
        "recipe": "JSON", "versions": "JSON", "terms": "JSON", "forecast": "JSON",
    },
    "calls": {
        "id": "VARCHAR", "item_id": "VARCHAR", "prompt": "VARCHAR", "role": "VARCHAR", "model": "VARCHAR", "messages": _CHAT,
        "params": "JSON", "sample": "VARCHAR", "schema_id": "VARCHAR",
        "text": "VARCHAR", "reasoning": "VARCHAR", "finish_reason": "VARCHAR",
        "prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "cached_tokens": "BIGINT", "cost_usd": "DOUBLE",
        "latency_s": "DOUBLE", "attempts": "INTEGER", "run_id": "VARCHAR", "created_at": "TIMESTAMP",
    },
    "failures": {
        "request_id": "VARCHAR", "item_id": "VARCHAR", "prompt": "VARCHAR", "role": "VARCHAR", "model": "VARCHAR",
        "error": "VARCHAR", "message": "VARCHAR", "billed": "VARCHAR", "worst_usd": "DOUBLE", "run_id": "VARCHAR",
        "created_at": "TIMESTAMP",
    },
    "sent": {
        "id": "VARCHAR", "item_id": "VARCHAR", "prompt": "VARCHAR", "role": "VARCHAR", "model": "VARCHAR", "usd": "DOUBLE",
        "lasting": "BOOLEAN", "run_id": "VARCHAR", "created_at": "TIMESTAMP",
    },
    "items": {
        "id": "VARCHAR", "topic": "VARCHAR", "generator": "VARCHAR", "count": "INTEGER", "plan": "JSON", "status": "VARCHAR",
        "error": "VARCHAR", "example_ids": ["VARCHAR"], "planned": "BOOLEAN", "run_id": "VARCHAR", "stale": "BOOLEAN",
        "problems": [{"inputs": "INTEGER", "reason": "VARCHAR", "message": "VARCHAR", "cost_usd": "DOUBLE"}],
    },
    "examples": {
        "id": "VARCHAR", "item_id": "VARCHAR", "topic": "VARCHAR", "generator": "VARCHAR", "prompt": _CHAT,
        "completion": "VARCHAR", "rejected": "VARCHAR", "reasoning": "VARCHAR", "answer": "JSON", "label": "VARCHAR",
        "kind": "VARCHAR", "dimensions": "JSON", "scores": "JSON", "calls": ["VARCHAR"], "parent": "VARCHAR",
        "family": "VARCHAR", "grounding": "JSON", "run_id": "VARCHAR",
    },
    "verdicts": {
        "example_id": "VARCHAR", "decided_by": "VARCHAR", "keep": "BOOLEAN", "reason": "VARCHAR", "score": "DOUBLE",
        "created_at": "TIMESTAMP",
    },
    "groups": {"example_id": "VARCHAR", "group_id": "VARCHAR"},
    "schemas": {"id": "VARCHAR", "schema": "JSON"},
    "batches": {
        "id": "VARCHAR", "provider": "VARCHAR", "model": "VARCHAR", "api_base": "VARCHAR", "requests": "INTEGER",
        "tokens": "BIGINT", "worst_usd": "DOUBLE", "status": "VARCHAR", "provider_id": "VARCHAR", "error": "VARCHAR",
        "submitted_at": "TIMESTAMP", "run_id": "VARCHAR",
    },
    "embeddings": {"id": "VARCHAR", "space": "VARCHAR", "model": "VARCHAR", "vector": ["FLOAT"]},
    "batch_requests": {"id": "VARCHAR", "batch_id": "VARCHAR", "request_id": "VARCHAR", "request": "JSON"},
}  # fmt: skip
# a role that the recipe fills, by another model
_NOT_OF = "json_extract_string($models, c.role) IS NOT NULL AND json_extract_string($models, c.role) <> c.model"
# The newest line of an id is its state (an example that was judged again has new scores); a call's first line stays.
_UPSERTED = ("items", "runs", "examples", "batches")
# Rows without an id of their own, and the columns that tell one from another when a log is replayed that was taken in already
_KEYS = {
    "verdicts": ("example_id", "decided_by", "created_at"),
    "groups": ("example_id", "group_id"),
    "failures": ("request_id", "created_at"),
}
# Each column, and whether a text in it is the value itself rather than JSON
_PLAINLY = {table: [(name, kind != "JSON") for name, kind in columns.items()] for table, columns in _COLUMNS.items()}


def _m001_tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(_TABLES)


def _m002_terms_of_runs(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE runs ADD COLUMN IF NOT EXISTS terms JSON")
    con.execute("COMMENT ON COLUMN runs.terms IS 'How the terms of each teacher stood when the run asked them.'")


def _m003_money(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE failures ADD COLUMN IF NOT EXISTS billed VARCHAR")
    con.execute("ALTER TABLE failures ADD COLUMN IF NOT EXISTS worst_usd DOUBLE")
    con.execute(
        "UPDATE failures SET billed = CASE WHEN error IN ('Timeout', 'APIConnectionError') THEN 'maybe' ELSE 'no' END, worst_usd = 0"
    )
    con.execute("COMMENT ON TABLE failures IS 'Attempts that got no answer: rate limits, timeouts, lost connections, killed processes.'")
    con.execute(
        "COMMENT ON COLUMN failures.billed IS 'no | maybe (counts as worst_usd against the budget) | released (looked up by a person)'"
    )
    con.execute(
        "CREATE TABLE IF NOT EXISTS sent (id VARCHAR, item_id VARCHAR, prompt VARCHAR, role VARCHAR, model VARCHAR, usd DOUBLE, "
        "lasting BOOLEAN, run_id VARCHAR, created_at TIMESTAMP)"
    )
    con.execute(
        "COMMENT ON TABLE sent IS 'Calls in flight, with the most that each can cost; what a killed process left moves to failures.'"
    )
    con.execute("ALTER TABLE items ADD COLUMN IF NOT EXISTS stale BOOLEAN")
    con.execute(
        "ALTER TABLE items ADD COLUMN IF NOT EXISTS problems STRUCT(inputs INTEGER, reason VARCHAR, message VARCHAR, cost_usd DOUBLE)[]"
    )
    con.execute("COMMENT ON COLUMN items.stale IS 'Its examples were made by models that the present recipe does not use.'")
    con.execute("COMMENT ON COLUMN items.problems IS 'Inputs that were asked for and not made; the view missing unrolls it.'")
    con.execute("ALTER TABLE runs ADD COLUMN IF NOT EXISTS forecast JSON")
    con.execute("COMMENT ON COLUMN runs.forecast IS 'What was said before the run that it would take: calls, tokens, dollars, minutes.'")
    con.execute("CREATE TABLE IF NOT EXISTS schemas (id VARCHAR, schema JSON)")
    con.execute("COMMENT ON TABLE schemas IS 'JSON schemas that providers were asked to hold answers to; calls.schema_id names them.'")
    con.execute("ALTER TABLE calls ADD COLUMN IF NOT EXISTS schema_id VARCHAR")
    con.execute("COMMENT ON COLUMN calls.schema_id IS 'The JSON schema that the provider was asked to hold the answer to, in schemas.'")


def _m004_seen_texts(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "CREATE TABLE IF NOT EXISTS seen_texts (number UINTEGER, example_id VARCHAR, pair BOOLEAN, "
        "text VARCHAR USING COMPRESSION uncompressed)"  # read one by one, and half the cost of a checkpoint
    )
    con.execute("COMMENT ON TABLE seen_texts IS 'Prompts that curate kept, numbered as they came: what new ones are compared with.'")
    con.execute("CREATE TABLE IF NOT EXISTS seen_bands (key UINTEGER, place UINTEGER)")
    con.execute("COMMENT ON TABLE seen_bands IS 'MinHash band keys of seen_texts; place = 2 * number, + 1 for shingles of characters.'")


def _m005_batches(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "CREATE TABLE IF NOT EXISTS batches (id VARCHAR, provider VARCHAR, model VARCHAR, api_base VARCHAR, requests INTEGER, "
        "tokens BIGINT, worst_usd DOUBLE, status VARCHAR, provider_id VARCHAR, error VARCHAR, submitted_at TIMESTAMP, run_id VARCHAR)"
    )
    con.execute(
        "COMMENT ON TABLE batches IS 'Batches at a provider: submitting (may have arrived or not), open, collected, cancelled, failed or "
        "lost.'"
    )
    con.execute("COMMENT ON COLUMN batches.worst_usd IS 'The most that the batch can cost; reserved in sent until it is collected.'")
    con.execute("CREATE TABLE IF NOT EXISTS batch_requests (id VARCHAR, batch_id VARCHAR, request_id VARCHAR, request JSON)")
    con.execute("COMMENT ON TABLE batch_requests IS 'What each batch asks. An answer becomes a row of calls, a refusal one of failures.'")


def _m006_truth(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE verdicts ADD COLUMN IF NOT EXISTS score DOUBLE")
    con.execute("COMMENT ON COLUMN verdicts.score IS 'What the filter measured, where it measures; kept rows have it too.'")
    con.execute(
        "CREATE TABLE IF NOT EXISTS evaluation_sets (name VARCHAR, sha256 VARCHAR, path VARCHAR, texts VARCHAR[], threshold DOUBLE, "
        "ngram INTEGER, checked_at TIMESTAMP)"
    )
    con.execute("CREATE TABLE IF NOT EXISTS embeddings (id VARCHAR, space VARCHAR, model VARCHAR, vector FLOAT[])")
    con.execute("COMMENT ON TABLE embeddings IS 'Vectors of prompts, by a hash of the text and of the model with its parameters.'")
    con.execute("COMMENT ON TABLE evaluation_sets IS 'Every evaluation set that data was ever checked against here, with its texts.'")


def _m007_grounding(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE examples ADD COLUMN IF NOT EXISTS family VARCHAR")
    con.execute("COMMENT ON COLUMN examples.family IS 'Turns of one conversation, or questions about one shown passage: never parted.'")
    con.execute("ALTER TABLE examples ADD COLUMN IF NOT EXISTS grounding JSON")
    con.execute("COMMENT ON COLUMN examples.grounding IS 'The passage that an answer rests on, and a quotation: see the view grounding.'")
    if con.execute("SELECT 1 FROM information_schema.columns WHERE table_name = 'seen_texts' AND column_name = 'pair'").fetchone():
        con.execute("ALTER TABLE seen_texts RENAME pair TO among")
        con.execute("ALTER TABLE seen_texts ALTER among TYPE BIGINT")
    con.execute(
        "COMMENT ON COLUMN seen_texts.among IS 'What it is compared among: 0 plain prompts, 1 preference pairs, else those of as many "
        "turns or of one passage.'"
    )


def _m008_targets(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE TABLE IF NOT EXISTS targets (topic VARCHAR, generator VARCHAR, rows BIGINT)")
    con.execute("COMMENT ON TABLE targets IS 'Accepted rows that the present plan wants of each cell; empty for a recipe without a quota.'")
    con.execute("CREATE TABLE IF NOT EXISTS earlier (example_id VARCHAR, data_set VARCHAR)")
    con.execute("COMMENT ON TABLE earlier IS 'Rows that other data sets of this store kept: with a quota, new ones must not repeat them.'")
    con.execute("COMMENT ON COLUMN earlier.data_set IS 'The name and the seed of the recipe that kept the row.'")


# Each entry takes a store from version n to n + 1. Paid data is migrated, never cleared.
MIGRATIONS: list[Callable[[duckdb.DuckDBPyConnection], None]] = [
    _m001_tables,
    _m002_terms_of_runs,
    _m003_money,
    _m004_seen_texts,
    _m005_batches,
    _m006_truth,
    _m007_grounding,
    _m008_targets,
]


_WORKER = "worker-"  # how the reservation and the log of a worker are named


class _State(NamedTuple):
    """What a store's file holds when it is opened: whether it is of this version, calls in flight, money."""

    ready: bool
    sent: dict[str, Row]
    spent_usd: float
    unknown_usd: float


class Outcome(NamedTuple):
    """How an item ended: the scores and the calls of each of its examples by id."""

    status: str
    error: str | None
    examples: dict[str, tuple[dict[str, float], list[str]]]


class TakenIn(NamedTuple):
    """What a worker's log said: where its next line begins, what it spent or may have spent, its answers and the items that ended."""

    offset: int
    usd: float
    calls: int
    items: list[Row]


class Arrived(NamedTuple):
    """What came since all were judged.

    examples    current ones that were not judged, by id
    judged      how many current ones were, and a checksum of them
    everything  the same of all current ones
    mark        the setting that was asked for
    people      how many verdicts people gave, and when the last one
    """

    examples: list[Example]
    judged: str
    everything: str
    mark: str | None
    people: str


class SeenText(NamedTuple):
    """A prompt that was kept, with the group that its example is in."""

    example_id: str
    among: int
    text: str
    group_id: str


class SeenTexts:
    """Prompts that were kept, found by the band keys that they share with new ones. Made by `Store.seen_texts`."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        ((self._count,),) = con.execute("SELECT coalesce(max(number) + 1, 0) FROM seen_texts").fetchall()

    def __len__(self) -> int:
        return int(self._count)

    def agreeing(self, keys: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of `keys`, and numbers of seen texts, that share two keys or more: one scan of all keys, whatever the batch."""
        if not len(self) or not keys.size:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        asked = {"key": np.ascontiguousarray(keys).ravel(), "asker": np.repeat(np.arange(len(keys), dtype=np.uint32), keys.shape[1])}
        with _table(self._con, asked) as name:
            found = self._con.execute(
                f"SELECT asker::BIGINT AS asker, (place // 2)::BIGINT AS number FROM seen_bands JOIN {name} USING (key) "
                "GROUP BY asker, place HAVING count(*) >= 2 ORDER BY ALL"
            ).fetchnumpy()
        return found["asker"], found["number"]

    def at(self, numbers: NDArray[np.int64]) -> list[SeenText]:
        """The seen texts of ascending numbers."""
        if not len(numbers):
            return []
        with _table(self._con, {"number": numbers.astype(np.uint32)}) as name:
            rows = self._con.execute(
                "SELECT example_id, among, text, coalesce(group_id, example_id) FROM "
                f"(SELECT * FROM seen_texts WHERE number IN (SELECT number FROM {name})) "
                "LEFT JOIN groups USING (example_id) ORDER BY number"
            ).fetchall()
        return [SeenText(*row) for row in rows]

    def add(
        self,
        texts: Sequence[tuple[str, int, str] | tuple[str, int, str, str | None]],
        keys: NDArray[np.uint32],
        owners: NDArray[np.int64],
        chars: NDArray[np.bool_],
        verdicts: Sequence[Verdict] = (),
        groups: Mapping[str, str] | None = None,
        merged: Mapping[str, str] | None = None,
    ) -> None:
        """Add texts that were kept, with all that was decided along with them, in one transaction.

        texts      (example id, what it is compared among, prompt), and whatever else the caller keeps
        keys       band keys, shape (rows, bands); owners: whose they are, a position in `texts`; chars: those of characters
        groups     example id -> group, of new examples
        merged     group -> the group that it has become a part of
        """
        con, first = self._con, len(self)
        con.execute("SET threads = 1")  # Python's strings are read under its lock: two threads take twice the time
        con.execute("BEGIN")
        try:
            if texts:
                ids, among, prompts = zip(*(text[:3] for text in texts), strict=True)
                columns: dict[str, NDArray[Any]] = {
                    "number": np.arange(first, first + len(texts), dtype=np.uint32), "example_id": _objects(ids),
                    "among": np.array(among, dtype=np.int64), "text": _objects(prompts),
                }  # fmt: skip
                _append_columns(con, "seen_texts", columns)
            if keys.size:
                places = ((owners + first) * 2 + chars).astype(np.uint32)
                _append_columns(con, "seen_bands", {"key": keys.ravel(), "place": np.repeat(places, keys.shape[1])})
            _append_verdicts(con, verdicts)
            if merged:
                # a group is named after one of its members, which has no row as long as it is alone
                with _table(con, {"was": _objects(merged), "now": _objects(merged.values())}) as name:
                    con.execute(f"UPDATE groups SET group_id = now FROM {name} WHERE group_id = was")
                    con.execute(f"INSERT INTO groups SELECT was, now FROM {name} WHERE was NOT IN (SELECT example_id FROM groups)")
            if groups:
                _append_columns(con, "groups", {"example_id": _objects(groups), "group_id": _objects(groups.values())})
            con.execute("COMMIT")
        except BaseException:
            con.execute("ROLLBACK")
            raise
        finally:
            con.execute("RESET threads")
        self._count = first + len(texts)

    def groups_of(self, families: Iterable[str]) -> dict[str, str]:
        """The group of each family that has an example with one."""
        rows = self._con.execute(
            "SELECT family, min(group_id) FROM examples e JOIN groups g ON g.example_id = e.id "
            "WHERE family IN (SELECT unnest(?)) GROUP BY family",
            [sorted(families)],
        ).fetchall()
        return dict(rows)

    def set(self, name: str, value: str) -> None:
        """Store a value, as `Store.set_settings` does."""
        Store._set(self._con, {name: value})

    def clear(self) -> None:
        """Forget all: a full `curate` says anew what is kept."""
        self._con.execute("TRUNCATE seen_bands")
        self._con.execute("TRUNCATE seen_texts")
        self._count = 0


class Store:
    """One recipe's store. Opening it makes or migrates the file and replays a log that a crash left."""

    def __init__(self, path: Path, *, lock_wait_s: float = 60.0) -> None:
        self._begin(path, path.with_suffix(".log"), lock_wait_s)
        if path.suffix == ".log":
            raise StoreError(f"{path}: .log is the ending of the log beside a store. Name the store itself by --store, as a.duckdb.")
        if path.is_dir():
            raise StoreError(f"{path}: is a folder. Name a file in it by --store, as {path / 'shop.duckdb'}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent}: cannot be made ({error.strerror}). Choose another place by --store.") from error
        state = self._look()
        if not state.ready:
            with self.writing():
                pass
        elif self._has_log() and self._lock():  # a log that another process is writing now is its own affair
            self._unlock()
            with self.writing():
                pass
        else:
            self._set_ledger(state)

    def _begin(self, path: Path, log_path: Path, lock_wait_s: float) -> None:
        self.path = path
        self.log_path = log_path
        self.run_id = ""
        self._lock_wait_s = lock_wait_s
        self._pending: dict[str, list[_Texts]] = {}
        self._sent: dict[str, Row] = {}
        self._log: int | None = None
        self._schemas: dict[str, str] = {}
        self.ledger = Ledger()
        self.failures: Counter[str] = Counter()

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
                con.execute("SET pandas_analyze_sample = 0")  # arrays of texts hold texts, also where the first thousand are None
            yield con
        except (RuntimeError, duckdb.InterruptException) as error:
            if "interrupted" not in str(error).lower():
                raise
            raise KeyboardInterrupt from error  # which DuckDB makes an error of its own
        except duckdb.OutOfMemoryException as error:
            raise StoreError(f"{self.path}: DuckDB ran out of memory or disk: {error}. Make room and run again.") from error
        except (duckdb.IOException, duckdb.TransactionException) as error:
            raise StoreError(f"{self.path}: {error}. Make room on the disk and run again; nothing is lost.") from error
        finally:
            con.close()

    def _require_duckdb(self) -> None:
        """Raise StoreError for a file of another kind; DuckDB would fetch from the network what it takes to read some of them."""
        try:
            with self.path.open("rb") as file:
                head = file.read(12)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read ({error.strerror}). Choose another place by --store.") from error
        if head[8:] != b"DUCK":  # after a checksum (duckdb.org/docs/stable/internals/storage)
            what = "is not a DuckDB file" if head else "is empty, and no store"
            raise StoreError(f"{self.path}: {what}. Name another file by --store, or move this one away.")

    def _version(self, con: duckdb.DuckDBPyConnection) -> int:
        try:
            found = con.execute("SELECT max(TRY_CAST(value AS INTEGER)) FROM settings WHERE name = 'version'").fetchone()
        except (duckdb.CatalogException, duckdb.BinderException):  # to ask the catalogue first would cost every start 15 ms
            if not con.execute("SELECT 1 FROM information_schema.tables LIMIT 1").fetchall():
                return 0
            found = None
        if found is None or found[0] is None:
            raise StoreError(f"{self.path}: is a DuckDB file, but not a store of this program. Name another by --store.")
        return int(found[0])

    def _look(self) -> _State:
        """What the file holds that this process must know; a new file holds nothing."""
        if not self.path.exists():
            return _State(False, {}, 0.0, 0.0)
        self._require_duckdb()
        with self._connect(read_only=True) as con:
            version = self._version(con)
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path}: has version {version}; this program knows up to {len(MIGRATIONS)}. "
                    "Install a newer version of the program; the file was not touched."
                )
            views = con.execute("SELECT value FROM settings WHERE name = 'views'").fetchone() if version else None
            if version < len(MIGRATIONS) or views is None or views[0] != _views_hash():
                return _State(False, {}, 0.0, 0.0)
            sent = con.execute(f"SELECT {', '.join(_COLUMNS['sent'])} FROM sent").fetchall()
            (spent,) = con.execute("SELECT coalesce(sum(cost_usd), 0) FROM calls").fetchone() or (0.0,)
            (unknown,) = con.execute("SELECT coalesce(sum(worst_usd), 0) FROM failures WHERE billed = 'maybe'").fetchone() or (0.0,)
            return _State(True, {row[0]: dict(zip(_COLUMNS["sent"], row, strict=True)) for row in sent}, float(spent), float(unknown))

    def _upgrade(self) -> None:
        with self._connect(read_only=False) as con:
            version = self._version(con)
            con.execute("BEGIN")
            for number in range(version, len(MIGRATIONS)):
                MIGRATIONS[number](con)
            con.execute(_VIEWS)
            self._set(con, {"version": str(len(MIGRATIONS)), "views": _views_hash()})
            con.execute("COMMIT")

    # -- reading

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of a read-only query, as dicts. Raises StoreError with DuckDB's own words for SQL that is wrong."""
        with self._connect(read_only=True) as con:
            try:
                return _rows(con.execute(sql, params))
            except (duckdb.IOException, duckdb.InterruptException):
                raise
            except duckdb.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

    def answers(self, item_ids: Sequence[str] | None = None) -> dict[str, Response]:
        """Every stored answer by request id, or those of some items: what a rerun does not ask again."""
        rows = self.query(
            "SELECT id AS request_id, text, reasoning, finish_reason, prompt_tokens, completion_tokens, cached_tokens, "
            f"cost_usd, latency_s, attempts FROM calls{'' if item_ids is None else ' WHERE item_id IN (SELECT unnest(?))'}",
            None if item_ids is None else [list(item_ids)],
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
            "ORDER BY list_position(['teacher', 'weak', 'judge', 'second'], role), model, api_base"
        )

    def terms_of_runs(self) -> list[list[Row]]:
        """How the teachers' terms stood in each run that noted it, the newest first."""
        rows = self.query("SELECT terms FROM runs WHERE terms IS NOT NULL ORDER BY started DESC")
        return [json.loads(row["terms"]) for row in rows]

    def outcomes(self) -> dict[str, Outcome]:
        """How each planned item ended, unless its examples are of another model's making."""
        made = {
            row["id"]: (json.loads(row["scores"]), row["calls"])
            for row in self.query("SELECT id, scores, calls FROM current_examples WHERE parent IS NULL")
        }
        return {
            row["id"]: Outcome(row["status"], row["error"], {id: made[id] for id in row["example_ids"] if id in made})
            for row in self.query("SELECT id, status, error, example_ids FROM items WHERE planned AND NOT coalesce(stale, false)")
        }

    def run_totals(self) -> Row:
        """What the run that wrote last took: calls, tokens, dollars, and the most that its lost calls can have cost."""
        (row,) = self.query(
            "SELECT count(*) AS calls, coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens, "
            "coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens, coalesce(sum(cost_usd), 0) AS cost_usd, "
            "(SELECT coalesce(sum(worst_usd), 0) FROM failures WHERE run_id = $run AND billed = 'maybe') AS unknown_usd "
            "FROM calls WHERE run_id = $run",
            {"run": self.run_id},
        )
        return row

    def item_costs(self, prompts: Sequence[str], models: Mapping[str, str]) -> list[Row]:
        """What each ended item took, all tries counted, as far as these prompts and models (role -> model) made it."""
        return self.query(
            "SELECT i.generator, i.count, count(*) AS calls, sum(c.prompt_tokens)::BIGINT AS prompt_tokens, "
            "sum(c.completion_tokens)::BIGINT AS completion_tokens, sum(c.cost_usd) AS cost_usd, avg(c.latency_s) AS latency_s "
            f"FROM items i JOIN calls c ON c.item_id = i.id WHERE i.status <> 'empty' AND NOT ({_NOT_OF}) "
            "AND split_part(c.prompt, '+', 1) IN (SELECT unnest($prompts)) GROUP BY i.id, i.generator, i.count ORDER BY i.id",
            {"prompts": list(prompts), "models": json.dumps(models)},
        )

    def batches(self, *statuses: str) -> list[Batch]:
        """The batches of these statuses, oldest first."""
        rows = self.query(
            f"SELECT {', '.join(Batch.model_fields)} FROM batches WHERE list_contains(?, status) ORDER BY submitted_at, id",
            [list(statuses)],
        )
        return [Batch(**{**row, "submitted_at": row["submitted_at"].replace(tzinfo=UTC)}) for row in rows]

    def provider_ids(self) -> list[str]:
        """The providers' names of all batches that were ever made here."""
        return [row["provider_id"] for row in self.query("SELECT provider_id FROM batches WHERE provider_id IS NOT NULL")]

    def batch_requests(self, batch_id: str) -> dict[str, Request]:
        """What a batch asks, by request id."""
        rows = self.query("SELECT request_id, request FROM batch_requests WHERE batch_id = ? ORDER BY id", [batch_id])
        return {row["request_id"]: Request.model_validate_json(row["request"]) for row in rows}

    def answered_of_batch(self, batch_id: str) -> frozenset[str]:
        """The ids of a batch's requests that have an answer here, whoever gave it."""
        rows = self.query("SELECT request_id FROM batch_requests WHERE batch_id = ? AND request_id IN (SELECT id FROM calls)", [batch_id])
        return frozenset(row["request_id"] for row in rows)

    def unanswered_in_batches(self) -> dict[str, str]:
        """Requests that were sent in a batch and have no answer: id to `waiting`, or `settled` when the batch was collected."""
        rows = self.query(
            "SELECT request_id, bool_or(status IN ('submitting', 'open')) AS waiting FROM batch_requests r JOIN batches b "
            "ON b.id = r.batch_id WHERE status IN ('submitting', 'open', 'collected') AND request_id NOT IN (SELECT id FROM calls) "
            "GROUP BY request_id"
        )
        return {row["request_id"]: "waiting" if row["waiting"] else "settled" for row in rows}

    def last_failures(self, error: str) -> dict[str, str]:
        """The message of the last failure of this kind, by request id."""
        rows = self.query("SELECT request_id, arg_max(message, created_at) AS message FROM failures WHERE error = ? GROUP BY ALL", [error])
        return {row["request_id"]: row["message"] for row in rows}

    def current_examples(self) -> list[Example]:
        """The examples that the present plan stands for, by id."""
        return self._examples("current_examples")

    def arrivals(self, mark: str) -> Arrived:
        """What came since all were judged, in one look: current examples that no `curate` has put into a group, by id."""
        with self._connect(read_only=True) as con:
            # what an id does not cover and filters read: an example that was judged again has its id and other scores
            ((current, new, judged, everything),) = con.execute(
                "SELECT count(*), list(e.id) FILTER (g.example_id IS NULL), bit_xor(state) FILTER (g.example_id IS NOT NULL), "
                "bit_xor(state) "
                "FROM (SELECT id, hash(id, label, kind, scores::VARCHAR, grounding::VARCHAR) AS state FROM current_examples) e "
                "LEFT JOIN groups g ON g.example_id = e.id"
            ).fetchall()
            new = new or []
            rows = _rows(con.execute("SELECT * FROM examples WHERE id IN (SELECT unnest(?)) ORDER BY id", [new])) if new else []
            ((marks, words, last),) = con.execute(
                "SELECT (SELECT max(value) FROM settings WHERE name = ?), count(*), max(created_at)::VARCHAR FROM verdicts "
                "WHERE starts_with(decided_by, 'human:')",
                [mark],
            ).fetchall()
        return Arrived(
            [_example(row) for row in rows], f"{current - len(new)}/{judged}", f"{current}/{everything}", marks, f"{words}/{last}"
        )

    def examples_of(self, item_ids: Sequence[str]) -> list[Example]:
        """The examples that these items stand for, by id."""
        rows = self.query(
            "SELECT * FROM examples WHERE id IN (SELECT unnest(example_ids) FROM items WHERE id IN (SELECT unnest(?))) ORDER BY id",
            [list(item_ids)],
        )
        return [_example(row) for row in rows]

    def targets(self) -> dict[tuple[str, str], int]:
        """The rows that are wanted of each cell (topic, generator); empty for a recipe without a quota."""
        return {(row["topic"], row["generator"]): row["rows"] for row in self.query("SELECT topic, generator, rows FROM targets")}

    def accepted_by_cell(self) -> dict[tuple[str, str], int]:
        """How many rows of each cell the last word keeps."""
        rows = self.query(
            "SELECT topic, generator, count(*) AS n FROM current_examples JOIN decisions ON example_id = id WHERE keep GROUP BY ALL"
        )
        return {(row["topic"], row["generator"]): row["n"] for row in rows}

    def earlier_rows(self) -> list[tuple[str, bool, str]]:
        """Example id, whether of a pair, and prompt of each row that another data set of this store kept."""
        rows = self.query(
            "SELECT id, rejected IS NOT NULL AS pair, array_to_string([m.content FOR m IN prompt IF m.role <> 'system'], '\n') AS text "
            "FROM examples WHERE id IN (SELECT example_id FROM earlier WHERE data_set NOT IN "
            "(SELECT value FROM settings WHERE name = 'data_set')) ORDER BY id"
        )
        return [(row["id"], row["pair"], row["text"]) for row in rows]

    def words_of_people(self) -> dict[str, bool]:
        """Each example that a person decided on: whether it, or what it was edited into, is kept."""
        rows = self.query(
            "SELECT example_id, arg_max(keep, created_at) OR example_id IN (SELECT parent FROM examples WHERE parent IS NOT NULL) AS keep "
            "FROM verdicts WHERE starts_with(decided_by, 'human:') GROUP BY example_id"
        )
        return {row["example_id"]: row["keep"] for row in rows}

    def short_cells(self) -> list[Row]:
        """The cells that have fewer accepted rows than their target; none without a quota."""
        return self.query(
            "SELECT topic, generator, target, asked::BIGINT AS asked, accepted FROM coverage WHERE accepted < target "
            "AND (topic, generator) IN (SELECT (topic, generator) FROM targets) ORDER BY topic, generator"
        )

    def reasons_of_short_cells(self) -> list[Row]:
        """Why inputs of short cells gave no row: kinds of verdicts, and of what is missing, with counts, the largest first."""
        return self.query(
            "SELECT topic, generator, reason, sum(n)::BIGINT AS inputs FROM ("
            "SELECT topic, generator, coalesce(nullif(split_part(reason, ':', 1), ''), decided_by) AS reason, 1 AS n FROM rejected "
            "UNION ALL SELECT topic, generator, reason, inputs FROM missing) "
            "SEMI JOIN (SELECT topic, generator FROM coverage WHERE accepted < target) USING (topic, generator) "
            "GROUP BY ALL ORDER BY topic, generator, inputs DESC, reason"
        )

    def accepted_by_value(self, dimension: str) -> list[Row]:
        """For each value of a dimension: how many items have 1, 2, ... accepted rows of it."""
        return self.query(
            "SELECT value, rows, count(*) AS items FROM (SELECT dimensions->>$path AS value, count(*) AS rows FROM accepted "
            "WHERE dimensions->>$path IS NOT NULL GROUP BY item_id, value) GROUP BY ALL ORDER BY ALL",
            {"path": f'$."{dimension}"'},
        )

    def seeds_of_items(self) -> dict[str, str]:
        """The seed that each item of the present plan grows, by item id."""
        rows = self.query("SELECT id, plan->>'seed' AS seed FROM items WHERE planned AND generator = 'seed' AND plan->>'seed' IS NOT NULL")
        return {row["id"]: row["seed"] for row in rows}

    def accepted_examples(self) -> list[Example]:
        """The examples that are fit for training, by id."""
        return self._examples("accepted")

    def _examples(self, view: Literal["current_examples", "accepted"]) -> list[Example]:
        return [_example(row) for row in self.query(f"SELECT * FROM {view} ORDER BY id")]

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
                'SELECT example_id, decided_by AS "by", keep, reason, score FROM verdicts ORDER BY created_at, example_id, decided_by'
            )
        ]

    def embedded(self, space: str) -> frozenset[str]:
        """The ids of the texts that have an embedding in a space (records.embedding_space)."""
        return frozenset(row["id"] for row in self.query("SELECT id FROM embeddings WHERE space = ?", [space]))

    def vectors(self, space: str) -> Vectors:
        """All embeddings of a space. Raises StoreError where they differ in length: one model gave them under one name."""
        with self._connect(read_only=True) as con:
            ids = con.execute("SELECT id, len(vector) AS size FROM embeddings WHERE space = ? ORDER BY id", [space]).fetchall()
            sizes = sorted({size for _, size in ids})
            if len(sizes) > 1:
                raise StoreError(
                    f"{self.path}: embeddings of one model have {' and '.join(map(str, sizes))} numbers. Name the model anew in the recipe."
                )
            numbers = con.execute(
                "SELECT unnest(vector) AS number FROM (SELECT vector FROM embeddings WHERE space = ? ORDER BY id)", [space]
            ).fetchnumpy()["number"]
        matrix = np.asarray(numbers, dtype=np.float32).reshape(len(ids), sizes[0] if sizes else 0)
        return Vectors({id: row for row, (id, _) in enumerate(ids)}, matrix)

    def exams(self, named: Sequence[EvaluationSet], retired: Iterable[str] = ()) -> tuple[EvaluationSet, ...]:
        """What data must be kept clear of, by name: the sets that are named, and all that it was ever checked against here.

        A set that was checked once stays an exam when it is no longer named, unless its name is `retired`. An earlier version
        of a named set has a name of its own: name@sha256[:8].
        """
        names, current = {found.name for found in named}, {(found.name, found.sha256) for found in named}
        earlier = [
            EvaluationSet(**{**row, "labels": (None,) * len(row["texts"])})
            for row in self.query("SELECT name, sha256, path, texts, threshold, ngram FROM evaluation_sets ORDER BY name, checked_at DESC")
            if row["name"] not in set(retired) and (row["name"], row["sha256"]) not in current
        ]
        kept = list(named)
        for found in earlier:
            name = f"{found.name}@{found.sha256[:8]}" if found.name in names else found.name
            names.add(found.name)
            kept.append(found.model_copy(update={"name": name}))
        return tuple(sorted(kept, key=lambda found: found.name))

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
        if not self._lock():
            raise StoreError(f"{self.path}: another run is writing to it. Wait until it ends, or stop it; nothing is lost.")
        try:
            state = self._look()
            if not state.ready:
                self._upgrade()
                state = self._look()
            self._sent = state.sent
            if self._has_log() or any(not row["lasting"] or id.startswith(_WORKER) for id, row in state.sent.items()):
                self._replay()
                state = self._look()
            self._set_ledger(state)
            try:
                yield self
            finally:
                self._lose("ended", "the run ended before its answer came")
                self.flush()
        finally:
            self._unlock()

    def _lock(self, create: int = os.O_CREAT) -> bool:
        """Open the log and take its lock; False while another process has it."""
        try:
            log = os.open(self.log_path, os.O_RDWR | os.O_APPEND | create, 0o644)
        except OSError as error:
            raise StoreError(f"{self.log_path}: cannot be written ({error.strerror}). Choose another place by --store.") from error
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(log)
            return False
        self._log = log
        return True

    def _unlock(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _has_log(self) -> bool:
        return (self.log_path.exists() and self.log_path.stat().st_size > 0) or bool(self._worker_logs())

    def _worker_logs(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.{_WORKER}*.log"))

    def _replay(self) -> None:
        """Take the lines that a killed process left; a torn last line was never acknowledged and is dropped.

        Calls that it had sent and that have no answer may have been billed: they become failures at their worst case.
        """
        self._replay_own()
        workers = self._worker_logs()
        for log in workers:
            self.close_worker(log)
            self.take_in(log)
        # their logs have said what they spent; what is left of their shares is free
        self._sent = {id: row for id, row in self._sent.items() if not id.startswith(_WORKER)}
        self.flush()
        for log in workers:
            log.unlink()

    def _replay_own(self) -> None:
        data = self.log_path.read_bytes()
        for table, row in _lines(self.log_path, data):
            self._replay_row(table, row)
        if data and not data.endswith(b"\n"):
            os.ftruncate(self._require_log(), data.rfind(b"\n") + 1)
        self._lose("killed", "the process ended before its answer came")

    # -- workers

    def open_worker(self, number: int, share_usd: float | None) -> Path:
        """A new log for a worker to write, and its share of the budget set aside until `close_worker`. Returns the log's path."""
        log = self.path.with_name(f"{self.path.stem}.{_WORKER}{number}.log")
        log.touch()
        self.share_of(log, share_usd or 0.0)
        return log

    def share_of(self, log: Path, usd: float) -> None:
        """Hold `usd` for what a worker has yet to spend, in the place of what was held."""
        key = log.suffixes[-2].removeprefix(".")
        self.unsent(key)
        left = self.ledger.left_usd
        self.reserve(key, usd if left is None else min(usd, left), lasting=True)

    def close_worker(self, log: Path) -> None:
        """End the books of a worker that is no more: what it sent and never got an answer to may have been billed. Its own log says so,
        so that taking it in twice counts nothing twice. Raises StoreError while the worker is alive."""
        with WorkerLog(log, run_id=self.run_id).writing():
            pass

    def take_in(self, log: Path, offset: int = 0) -> "TakenIn":
        """Take over the whole lines of a worker's log from `offset` on, for the next flush; the account counts them at once."""
        with log.open("rb") as file:
            file.seek(offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        usd, calls, items = 0.0, 0, []
        for table, row in _lines(log, data):
            if table in ("sent", "unsent"):
                continue
            if table == "calls":
                calls += 1
                self.ledger.spent_usd += row["cost_usd"]
                usd += row["cost_usd"]
            elif table == "failures":
                self.failures[row["error"]] += 1
                self.ledger.unknown_usd += row["worst_usd"]
                usd += row["worst_usd"]
            elif table == "items":
                items.append(row)
            self._pending.setdefault(table, []).append(_texts(table, row))
        return TakenIn(offset + len(data), usd, calls, items)

    def _replay_row(self, table: str, row: Row) -> None:
        if table == "sent":
            self._sent[row["id"]] = row
        elif table == "unsent":
            self._sent.pop(row["id"], None)
        else:
            if table == "calls" or (table == "failures" and row.get("billed") == "maybe"):
                self._sent.pop(row["id" if table == "calls" else "request_id"], None)
            self._pending.setdefault(table, []).append(_texts(table, row))

    def _lose(self, error: str, message: str) -> None:
        """What is still reserved was sent and never answered: it may have been billed."""
        for row in list(self._sent.values()):
            if not row["lasting"]:
                self._fail(row, error, message, billed=True)

    def _set_ledger(self, state: _State) -> None:
        """The account as it is on disk: another process may have written since this one looked."""
        self.ledger.reset(state.spent_usd, state.unknown_usd, {row["id"]: row["usd"] for row in state.sent.values()})

    def _require_log(self) -> int:
        if self._log is None:
            raise StoreError(f"{self.path}: nothing can be written outside `with store.writing()`.")
        return self._log

    def _append(self, table: str, row: Row) -> None:
        """One line into the log, at once, and the same row into what DuckDB takes next."""
        self._append_lines([_Line(table, row)])

    def _append_lines(self, lines: Sequence[_Line]) -> None:
        """The same for several rows, in one write."""
        log = self._require_log()
        data = b"".join([_log_line(line) for line in lines])
        try:
            written = os.write(log, data)
            if written != len(data):  # a full disk takes a part; take it back, so that the log stays whole
                os.ftruncate(log, os.fstat(log).st_size - written)
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise StoreError(f"{self.log_path}: cannot be written ({error.strerror}). Make room and run again; nothing is lost.") from error
        for line in lines:
            if line.table not in ("sent", "unsent"):
                self._pending.setdefault(line.table, []).append(_texts(*line))

    @property
    def pending(self) -> int:
        """Rows that are in the log and not yet in DuckDB."""
        return sum(map(len, self._pending.values()))

    def flush(self, wait_s: float | None = None) -> bool:
        """Move what is pending into DuckDB in one transaction; False when a reader held the file for `wait_s` (all stays in the log)."""
        if self._log is None or not (self.pending or os.fstat(self._log).st_size):
            return True
        try:
            with self._connect(read_only=False, wait_s=wait_s) as con:
                con.execute("SET checkpoint_threshold = '0B'")  # straight into the file: the log is the write-ahead log
                con.execute("BEGIN")
                for table, rows in self._pending.items():
                    _insert(con, table, rows)
                con.execute("DELETE FROM sent")
                _insert(con, "sent", [_texts("sent", row) for row in self._sent.values()])
                con.execute("COMMIT")
        except StoreError:
            if wait_s is None:
                raise
            return False
        os.ftruncate(self._log, 0)
        self._pending.clear()
        return True

    def reserve(
        self, request_id: str, usd: float, *, item_id: str = "", prompt: str = "", role: str = "", model: str = "", lasting: bool = False
    ) -> None:
        """Set aside the most that a call can cost, on disk, before it is sent. Raises BudgetError where it does not fit.

        `add_call` settles it, `unsent` gives it back; what neither settles when the process ends, or is killed, may have been billed
        and stays counted. A `lasting` one (a job at the provider, a share of another process) stays reserved beyond this process.
        """
        if usd <= 0:
            return
        self.ledger.reserve(request_id, usd)
        row = {
            "id": request_id, "item_id": item_id, "prompt": prompt, "role": role, "model": model, "usd": usd, "lasting": lasting,
            "run_id": self.run_id, "created_at": _now(),
        }  # fmt: skip
        self._append("sent", row)
        self._sent[request_id] = row

    def unsent(self, request_id: str) -> None:
        """Give back what was reserved for a call that was not billed."""
        if self.ledger.release(request_id):
            self._sent.pop(request_id, None)
            self._append("unsent", {"id": request_id})

    def add_call(self, request: Request, response: Response) -> None:
        """Journal an answered call. On disk when this returns."""
        row = {
            "id": response.request_id, "item_id": request.item_id, "prompt": request.prompt, "role": request.role, "model": request.model,
            "sample": request.sample, "params": request.params, "text": response.text, "reasoning": response.reasoning,
            "finish_reason": response.finish_reason, "prompt_tokens": response.prompt_tokens,
            "completion_tokens": response.completion_tokens, "cached_tokens": response.cached_tokens, "cost_usd": response.cost_usd,
            "latency_s": response.latency_s, "attempts": response.attempts, "schema_id": self._schema_id(request.response_schema),
            "run_id": self.run_id, "created_at": _now(),
        }  # fmt: skip
        # messages are long, and were made JSON for the id already
        self._append_lines([_Line("calls", row, {"messages": request.messages_json})])
        self.ledger.settle(response.request_id, response.cost_usd)
        self._sent.pop(response.request_id, None)

    def add_embeddings(self, space: str, model: str, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Journal the embeddings of texts, one row of `vectors` for each id. On disk when this returns."""
        lines = []
        for id, vector in zip(ids, vectors.tolist(), strict=True):
            numbers = ",".join(f"{number:.9g}" for number in vector)  # nine digits hold a 32-bit number whole
            lines.append(_Line("embeddings", {"id": id, "space": space, "model": model}, {"vector": f"[{numbers}]"}))
        self._append_lines(lines)

    def _schema_id(self, schema: Mapping[str, Any] | None) -> str | None:
        """The id of a schema, which is stored once for all calls that carry it."""
        if schema is None:
            return None
        text = canonical_json(schema)
        if text not in self._schemas:
            self._schemas[text] = content_hash(schema)[:16]
            self._append("schemas", {"id": self._schemas[text], "schema": schema})
        return self._schemas[text]

    def add_failure(self, request: Request, error: str, message: str, *, billed: bool | None = None, worst_usd: float = 0.0) -> None:
        """Journal an attempt that got no answer. `billed`: whether the provider may charge for it; told from the error when not given.
        `worst_usd`: the most that it can have cost, where nothing is reserved for the request by itself.

        What may have been billed stays counted at its worst case, and as much is reserved anew for the next try. Raises
        BudgetError when that does not fit any more.
        """
        self.failures[error] += 1
        known = self._sent.get(request.id)
        row = known or {
            "id": request.id, "item_id": request.item_id, "prompt": request.prompt, "role": request.role, "model": request.model,
            "usd": worst_usd,
        }  # fmt: skip
        lost = may_be_billed(error, message) if billed is None else billed
        self._fail(row, error, message, billed=lost)
        if known is not None and lost:
            self.reserve(
                request.id, known["usd"], item_id=known["item_id"], prompt=known["prompt"], role=known["role"], model=known["model"]
            )

    def lose(self, request_id: str, error: str, message: str) -> None:
        """Nobody waits any more for a call that was sent: it may have been billed, and stays counted at its worst case."""
        if request_id in self._sent:
            self._fail(self._sent[request_id], error, message, billed=True)

    def _fail(self, sent: Row, error: str, message: str, *, billed: bool) -> None:
        worst = sent.get("usd", 0.0) if billed else 0.0
        row = {
            "request_id": sent["id"], "item_id": sent["item_id"], "prompt": sent["prompt"], "role": sent["role"], "model": sent["model"],
            "error": error, "message": message[:2000], "billed": "maybe" if billed else "no", "worst_usd": worst,
            "run_id": self.run_id, "created_at": _now(),
        }  # fmt: skip
        self._append("failures", row)
        if billed:
            self.ledger.lose(sent["id"], worst)
            self._sent.pop(sent["id"], None)

    def release_unknown(self) -> float:
        """Take what may have been billed off the account: a person has looked it up at the provider. Returns how much it was."""
        with self.writing():
            self.flush()
            with self._connect(read_only=False) as con:
                con.execute("UPDATE failures SET billed = 'released' WHERE billed = 'maybe'")
            freed, self.ledger.unknown_usd = self.ledger.unknown_usd, 0.0
        return freed

    def add_batch(self, batch: Batch, requests: Iterable[Request]) -> None:
        """Journal a batch with all that it asks, then reserve the most that it can cost; both before it is submitted.

        In this order, a crash between the two leaves a batch that never arrived, and no money kept for nothing. Raises BudgetError.
        """
        for request in requests:
            row = {
                "id": f"{batch.id}/{request.id}",
                "batch_id": batch.id,
                "request_id": request.id,
                "request": request.model_dump(mode="json"),
            }
            self._append("batch_requests", row)
        self.set_batch(batch)
        self.reserve(batch.id, batch.worst_usd, model=batch.model, lasting=True)

    def set_batch(self, batch: Batch) -> None:
        """Journal what a batch is now. It can be queried when this returns."""
        self._append("batches", {**batch.model_dump(), "submitted_at": _stamp(batch.submitted_at), "run_id": self.run_id})
        self.flush()

    def add_item(
        self, item: PlanItem, status: str, examples: Sequence[Example] = (), error: str | None = None, problems: Sequence[Row] = ()
    ) -> None:
        """Journal how an item ended, with the examples that it now stands for and the inputs that are missing."""
        row = {
            "id": item.id, "topic": item.topic, "generator": item.generator, "count": item.count,
            "status": status, "error": error, "example_ids": [example.id for example in examples], "planned": True,
            "run_id": self.run_id, "stale": False, "problems": list(problems),
        }  # fmt: skip
        ended = _Line("items", row, {"plan": item.model_dump_json()})
        self._append_lines([*(self._example_line(example) for example in examples), ended])

    def _example_line(self, example: Example) -> _Line:
        return _Line("examples", {**example.model_dump(), "run_id": self.run_id})

    def add_examples(self, examples: Iterable[Example]) -> None:
        """Journal examples that belong to no item's end: a person's edits."""
        with self.writing():
            for example in examples:
                self._append_lines([self._example_line(example)])

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Journal people's verdicts; the latest of a person on an example counts."""
        with self.writing():
            for verdict in verdicts:
                self._append("verdicts", _verdict_row(verdict, _now()))

    def replace_filter_verdicts(self, verdicts: Sequence[Verdict], groups: Mapping[str, str]) -> None:
        """Put new filter verdicts and groups in the place of the old ones, in one transaction."""
        with self.writing():
            self.flush()
            with self._connect(read_only=False) as con:
                con.execute("BEGIN")
                con.execute("DELETE FROM verdicts WHERE decided_by LIKE 'filter:%'")
                con.execute("DELETE FROM groups")
                _append_verdicts(con, verdicts)
                _append_columns(
                    con, "groups", {"example_id": _objects(sorted(groups)), "group_id": _objects(groups[e] for e in sorted(groups))}
                )
                con.execute("COMMIT")

    def remember_exams(self, sets: Sequence[EvaluationSet]) -> None:
        """Keep evaluation sets with their texts, so that data is kept clear of them for ever."""
        if not sets:
            return
        columns = {
            "name": _objects(found.name for found in sets), "sha256": _objects(found.sha256 for found in sets),
            "path": _objects(found.path for found in sets),
            "threshold": np.array([found.threshold for found in sets], dtype=np.float64),
            "ngram": np.array([found.ngram for found in sets], dtype=np.int32),
        }  # fmt: skip
        with self.writing(), self._connect(read_only=False) as con:
            con.execute("BEGIN")
            with _table(con, columns) as name:
                con.execute(f"DELETE FROM evaluation_sets WHERE (name, sha256) IN (SELECT (name, sha256) FROM {name})")
                con.execute(
                    f"INSERT INTO evaluation_sets SELECT name, sha256, path, NULL, threshold, ngram, ? FROM {name}",
                    [_now()],
                )
            for found in sets:
                con.execute(
                    "UPDATE evaluation_sets SET texts = from_json(?, '[\"VARCHAR\"]') WHERE name = ? AND sha256 = ?",
                    [json.dumps(found.texts), found.name, found.sha256],
                )
            con.execute("COMMIT")

    @contextmanager
    def seen_texts(self) -> Iterator[SeenTexts]:
        """The prompts that were kept so far, for one piece of work: the file is held open until it ends."""
        with self.writing():
            self.flush()
            with self._connect(read_only=False) as con:
                yield SeenTexts(con)

    def set_plan(self, items: Sequence[PlanItem], models: Mapping[str, str]) -> None:
        """Say which items the present plan has, and the model of each role: examples of others are no longer current."""
        with self.writing():
            self.flush()
            with self._connect(read_only=False) as con:
                con.execute("BEGIN")
                con.execute(
                    "UPDATE items SET planned = (id IN (SELECT unnest(from_json(?, '[\"VARCHAR\"]'))))",
                    [json.dumps([item.id for item in items])],
                )
                con.execute(
                    "UPDATE items SET stale = id IN (SELECT e.item_id FROM (SELECT item_id, unnest(calls) AS call_id FROM examples "
                    "WHERE id IN (SELECT unnest(example_ids) FROM items)) e JOIN calls c ON c.id = e.call_id "
                    f"WHERE {_NOT_OF})",
                    {"models": json.dumps(models)},
                )
                con.execute("COMMIT")

    def begin_data_set(self, data_set: str, targets: Mapping[tuple[str, str], int]) -> None:
        """Say which data set is made from now on, and how many accepted rows each cell shall have (none without a quota).

        What was kept for another data set is remembered as its rows.
        """
        with self.writing():
            self.flush()
            with self._connect(read_only=False) as con:
                con.execute("BEGIN")
                before = con.execute("SELECT value FROM settings WHERE name = 'data_set' AND value <> ?", [data_set]).fetchone()
                if before:
                    con.execute(
                        "INSERT INTO earlier SELECT example_id, $before FROM decisions WHERE keep AND example_id NOT IN "
                        "(SELECT example_id FROM earlier WHERE data_set = $before)",
                        {"before": before[0]},
                    )
                self._set(con, {"data_set": data_set})
                con.execute("DELETE FROM targets")
                if targets:
                    topics, generators = zip(*targets, strict=True)
                    columns: dict[str, NDArray[Any]] = {"topic": _objects(topics), "generator": _objects(generators)}
                    columns["rows"] = np.array(list(targets.values()), dtype=np.int64)
                    _append_columns(con, "targets", columns)
                con.execute("COMMIT")

    def answers_of_others(self, items: Sequence[PlanItem], models: Mapping[str, str]) -> list[Row]:
        """Stored answers for `items` by models that are not in `models` (role -> model): role, model, calls, items."""
        return self.query(
            "SELECT role, model, count(*) AS calls, count(DISTINCT item_id) AS items FROM calls c "
            f"WHERE {_NOT_OF} AND item_id IN (SELECT unnest(from_json($items, '[\"VARCHAR\"]'))) GROUP BY ALL ORDER BY ALL",
            {"models": json.dumps(models), "items": json.dumps([item.id for item in items])},
        )

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
        self,
        run_id: str,
        command: str,
        recipe: Mapping[str, Any],
        versions: Mapping[str, str],
        terms: Sequence[Mapping[str, Any]] = (),
        forecast: Mapping[str, Any] | None = None,
    ) -> None:
        """Journal that a run began: how the terms of its teachers stood, and what was said beforehand that it would take."""
        self.run_id = run_id
        row = {
            "id": run_id, "command": command, "started": _now(), "finished": None, "status": "running", "recipe": recipe,
            "versions": versions, "terms": list(terms) or None, "forecast": forecast,
        }  # fmt: skip
        self._append("runs", row)

    def end_run(self, status: str) -> None:
        """Journal how the run ended."""
        self.flush()
        with self._connect(read_only=False) as con:
            con.execute("UPDATE runs SET finished = ?, status = ? WHERE id = ?", [_now(), status, self.run_id])


class WorkerLog(Store):
    """The log of one of several processes that work for a store, which alone takes it into DuckDB (`Store.take_in`).

    It is written as the store's own log is, an answer before it counts. What the store knows is handed over: `answers` and `outcomes`
    of the worker's items, and `spent_usd`, what of the budget is not the worker's to spend.
    """

    def __init__(
        self,
        log_path: Path,
        *,
        run_id: str = "",
        answers: Mapping[str, Response] | None = None,
        outcomes: Mapping[str, Outcome] | None = None,
        spent_usd: float = 0.0,
        wait_s: float = 30.0,
    ) -> None:
        self._begin(log_path, log_path, wait_s)
        self.run_id = run_id
        self._answers, self._outcomes = dict(answers or {}), dict(outcomes or {})
        self.ledger.reset(spent_usd, 0.0, {})

    def answers(self, item_ids: Sequence[str] | None = None) -> dict[str, Response]:
        """The answers that were handed over."""
        return self._answers

    def outcomes(self) -> dict[str, Outcome]:
        """How the worker's items ended in earlier runs."""
        return self._outcomes

    def set_plan(self, items: Sequence[PlanItem], models: Mapping[str, str]) -> None:
        """Nothing: the store knows the plan."""

    @contextmanager
    def writing(self) -> Iterator[Self]:
        """The right to write this log. Raises StoreError while another process has it, and when the store took the log away."""
        deadline = time.monotonic() + self._lock_wait_s
        while not self._lock(create=0):  # one that the store took away must not come back
            if time.monotonic() >= deadline:
                raise StoreError(f"{self.log_path}: a worker of an earlier run is still writing it. End that process and run again.")
            time.sleep(0.05)
        try:
            if not os.fstat(self._require_log()).st_nlink:
                raise StoreError(f"{self.log_path}: was taken in by another run while this worker began. Run again; nothing is lost.")
            self._replay_own()
            self._pending.clear()
            try:
                yield self
            finally:
                self._lose("ended", "the run ended before its answer came")
        finally:
            self._unlock()

    def flush(self, wait_s: float | None = None) -> bool:
        """Forget what is on disk already: the store takes it from there."""
        self._pending.clear()
        return True


def _json(value: object) -> bytes:
    """`value` as JSON; by the slower encoder where a text or a number is of a kind that the fast one refuses."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode()


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file. Raises StoreError for a file that is none."""
    try:
        with duckdb.connect() as con:
            return _rows(con.execute("SELECT * FROM read_parquet(?)", [str(path)]))
    except duckdb.Error as error:
        raise StoreError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}). Give another file.") from error


def _lines(path: Path, data: bytes) -> Iterator[tuple[str, Row]]:
    """Table and row of each line of a log; a torn last line was never acknowledged. Raises StoreError for one that is damaged."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            table, row = json.loads(line)
            known = isinstance(row, dict) and (table == "unsent" or table in _COLUMNS)
        except (ValueError, TypeError):
            known = False
        if known:
            yield table, row
        elif number <= data.count(b"\n"):
            raise StoreError(f"{path}:{number}: is damaged (not a torn last line). Move the line elsewhere and run again.")


def _log_line(line: _Line) -> bytes:
    encoded = b"".join([b',"%b":%b' % (name.encode(), text.encode()) for name, text in line.encoded.items()])
    return b'["%b",%b%b}]\n' % (line.table.encode(), _json(line.row)[:-1], encoded)


def _texts(table: str, row: Row, encoded: Mapping[str, str] = {}) -> _Texts:
    texts = []
    for name, plain in _PLAINLY[table]:
        value = encoded.get(name) or row.get(name)
        if isinstance(value, datetime):  # of a row that DuckDB gave
            value = value.isoformat(" ")
        texts.append(value if value is None or name in encoded or (plain and type(value) is str) else _json(value).decode())
    return tuple(texts)


def _typed(column: str, kind: Any) -> str:
    """SQL for a column's value, from its text in the table `g`."""
    if isinstance(kind, str):
        return f"g.{column}" if kind in ("VARCHAR", "JSON") else f"CAST(g.{column} AS {kind})"
    return f"from_json(g.{column}, '{json.dumps(kind)}')"


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[_Texts]) -> None:
    """Rows into a table; replaying the same rows changes nothing."""
    if not rows:
        return
    columns, key = _COLUMNS[table], _KEYS.get(table)
    if key is None:
        at = list(columns).index("id")
        rows = list({row[at]: row for row in (rows if table in _UPSERTED else reversed(rows))}.values())
        new = f"g.id NOT IN (SELECT id FROM {table})"
    else:
        new = f"NOT EXISTS (SELECT 1 FROM {table} t WHERE {' AND '.join(f't.{name} = {_typed(name, columns[name])}' for name in key)})"
    values = ", ".join(_typed(name, kind) for name, kind in columns.items())
    # measured: arrays of texts are taken in three times as fast as rows of JSON
    with _table(con, {name: _objects(texts) for name, texts in zip(columns, zip(*rows, strict=True), strict=True)}) as given:
        if table in _UPSERTED:
            con.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM {given})")
        con.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {given} g WHERE {new}")


def _rows(result: duckdb.DuckDBPyConnection) -> list[Row]:
    columns = [column[0] for column in result.description or []]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def _example(row: Row) -> Example:
    for name in ("answer", "dimensions", "scores", "grounding"):
        row[name] = json.loads(row[name]) if row[name] else None
    row["dimensions"], row["scores"] = row["dimensions"] or {}, row["scores"] or {}
    return Example.from_row(row)


@contextmanager
def _table(con: duckdb.DuckDBPyConnection, columns: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Arrays as a table that a query can read by the name given: measured ten times as fast as a parameter."""
    con.register("given_columns", dict(columns))
    try:
        yield "given_columns"
    finally:
        with suppress(duckdb.TransactionException):  # after an error in the query, which is what is to be told
            con.unregister("given_columns")


def _append_columns(con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Rows without an id of their own, as one array per column."""
    with _table(con, columns) as name:
        con.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {name}")


def _append_verdicts(con: duckdb.DuckDBPyConnection, verdicts: Sequence[Verdict]) -> None:
    if verdicts:
        columns = {
            "example_id": _objects([v.example_id for v in verdicts]), "decided_by": _objects([v.by for v in verdicts]),
            "keep": np.array([v.keep for v in verdicts], dtype=bool), "reason": _objects([v.reason for v in verdicts]),
            "score": np.array([v.score for v in verdicts], dtype=np.float64),
            "created_at": np.full(len(verdicts), np.datetime64(_now(), "us")),
        }  # fmt: skip
        _append_columns(con, "verdicts", columns)


def _objects(values: Iterable[str | None]) -> NDArray[np.object_]:
    return np.array(list(values), dtype=object)


def _verdict_row(verdict: Verdict, created_at: str) -> Row:
    # "by" is a reserved word of SQL: people should not need to quote a column
    return {
        "example_id": verdict.example_id, "decided_by": verdict.by, "keep": verdict.keep, "reason": verdict.reason, "score": verdict.score,
        "created_at": created_at,
    }  # fmt: skip


def _views_hash() -> str:
    return hashlib.sha256(_VIEWS.encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(" ", "microseconds")[: -len("+00:00")]


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
