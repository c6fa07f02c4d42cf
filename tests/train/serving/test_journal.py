"""Lines are on disk at once, reach DuckDB once, and survive a crash, a busy file and a torn line."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from train.errors import ServingError
from train.serving.journal import COLUMNS, Journal, _read, read_arms, read_rated


def answer(id: str, **values: Any) -> dict[str, Any]:
    row = {"id": id, "created": "2026-01-02T03:04:05.5", "served": "retort", "arm": "a", "fingerprint": "a@1", "finish": "stop"}
    return {**row, "prompt": [{"role": "user", "content": "Grüße\u2028!"}], "latency_s": 0.5, **values}


def ids(path: Path) -> list[str]:
    return [row["id"] for row in _read(path, "SELECT id FROM answers ORDER BY id")]


def copied(path: Path, to: Path) -> Path:
    """The files as a crash at this moment leaves them."""
    shutil.copytree(path.parent, to)
    return to / path.name


def test_a_line_is_on_disk_when_write_returns_and_a_crash_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "live/a.duckdb"
    journal = Journal(path)
    journal.write("answers", answer("1"))
    journal.flush()
    for id in ("2", "3"):
        journal.write("answers", answer(id))
    journal.write("feedback", {"id": "f", "answer_id": "2", "created": "2026-01-02T04:00:00", "score": 1.0})
    crashed = copied(path, tmp_path / "crashed")
    assert ids(crashed) == ["1", "2", "3"]  # reading takes in what a stopped server left
    assert [row["score"] for row in read_rated(crashed)] == [1.0]
    assert journal.knows("1") and journal.knows("3") and not journal.knows("4")
    journal.close()
    assert ids(path) == ["1", "2", "3"]
    assert _read(path, "SELECT prompt FROM answers WHERE id = '1'")[0]["prompt"][0]["content"] == "Grüße\u2028!"


def test_a_log_that_was_taken_in_and_not_removed_is_not_taken_twice(tmp_path: Path) -> None:
    path = tmp_path / "live/a.duckdb"
    journal = Journal(path)
    journal.write("answers", answer("1"))
    crashed = copied(path, tmp_path / "crashed")
    (crashed.parent / "a.duckdb.log").rename(crashed.parent / "a.duckdb.log.taking")
    line = (crashed.parent / "a.duckdb.log.taking").read_bytes()
    for _ in range(2):
        (crashed.parent / "a.duckdb.log.taking").write_bytes(line)
        Journal(crashed).close()
    assert ids(crashed) == ["1"]
    journal.close()


def test_a_torn_line_is_left_out_and_the_next_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    Journal(path).close()
    whole = json.dumps({"table": "answers", **answer("1")})
    (tmp_path / "a.duckdb.log").write_text(f"{whole}\n{whole[:40]}")
    journal = Journal(path)
    journal.write("answers", answer("2"))
    journal.close()
    assert ids(path) == ["1", "2"]


def test_a_person_who_queries_delays_a_flush_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    journal = Journal(path)
    journal.write("answers", answer("1"))
    person = duckdb.connect(str(path), read_only=True)
    journal.flush()
    journal.write("answers", answer("2"))
    assert journal.knows("1") and journal.knows("2")
    person.close()
    journal.close()
    assert ids(path) == ["1", "2"]


def test_one_server_writes_a_log_and_another_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.duckdb")
    with pytest.raises(ServingError, match="another server writes this log"):
        Journal(tmp_path / "a.duckdb")
    assert read_arms(tmp_path / "a.duckdb") == []
    journal.close()
    Journal(tmp_path / "a.duckdb").close()


def test_the_salt_stays_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    salts = []
    for _ in range(2):
        journal = Journal(tmp_path / "a.duckdb")
        salts.append(journal.salt)
        journal.close()
    assert salts[0] == salts[1] and len(salts[0]) == 32
    assert (tmp_path / "a.duckdb.salt").stat().st_mode & 0o077 == 0


def test_files_that_are_no_log_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.duckdb"
    with duckdb.connect(str(other)) as con:
        con.execute("CREATE TABLE mine (a INT)")
    with pytest.raises(ServingError, match="not a log of answers"):
        Journal(other)
    with pytest.raises(ServingError, match="there is no log of answers"):
        read_arms(tmp_path / "none.duckdb")
    newer = tmp_path / "newer.duckdb"
    Journal(newer).close()
    with duckdb.connect(str(newer)) as con:
        con.execute("UPDATE settings SET value = '9' WHERE name = 'answers_version'")
    with pytest.raises(ServingError, match="has version 9, this program writes 1"):
        Journal(newer)
    (tmp_path / "file").write_text("")
    with pytest.raises(ServingError, match="cannot be written"):
        Journal(tmp_path / "file/a.duckdb")


def test_the_columns_that_are_written_are_those_of_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    Journal(path).close()
    for table, columns in COLUMNS.items():
        found = _read(path, f"SELECT column_name AS name FROM information_schema.columns WHERE table_name = '{table}'")
        assert [row["name"] for row in found] == list(columns)
