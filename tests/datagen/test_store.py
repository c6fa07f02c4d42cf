"""The store: what is written stays, replays change nothing, people read while a run goes on, damage is told."""

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from datagen import store as store_module
from datagen.errors import StoreError
from datagen.records import Batch, Example, Message, PlanItem, Request, Response, Verdict
from datagen.store import MIGRATIONS, Store


def make_request(n: int, text: str = "hello") -> Request:
    return Request(
        item_id=f"a/b:topic:{n}", prompt="answer@1", role="teacher", model="m", messages=(Message(role="user", content=text),),
        params={"temperature": 1.0}, sample=f"a/b:topic:{n}/0/0",
    )  # fmt: skip


def make_response(request: Request, cost_usd: float = 0.5) -> Response:
    return Response(request_id=request.id, text='say "é"\n', prompt_tokens=10, completion_tokens=4, cost_usd=cost_usd)


def make_example(n: int, *, calls: tuple[str, ...] = (), rejected: str | None = None, text: str | None = None) -> Example:
    return Example(
        item_id=f"a/b:topic:{n}", topic="a/b", generator="topic",
        prompt=(Message(role="system", content="s"), Message(role="user", content=text or f"message {n}")),
        completion='{"intent":"late"}', answer={"intent": "late"}, label="late", calls=calls, rejected=rejected,
        dimensions={"tone": "calm"}, scores={"judge_answer": 5.0},
    )  # fmt: skip


def item_of(example: Example) -> PlanItem:
    return PlanItem(topic="a/b", generator="topic", index=int(example.item_id.rsplit(":", 1)[1]), count=1)


def fill(store: Store, count: int = 10) -> list[Example]:
    """`count` items with one call and one example each, every third with a rejected answer."""
    examples = []
    with store.writing():
        for n in range(count):
            request = make_request(n)
            store.add_call(request, make_response(request))
            example = make_example(n, calls=(request.id,), rejected="bad" if n % 3 == 0 else None)
            store.add_item(item_of(example), "done", [example])
            examples.append(example)
    return sorted(examples, key=lambda e: e.id)


def test_what_goes_in_comes_out(store: Store) -> None:
    assert store_module.Store(store.path).current_examples() == []
    examples = fill(store)
    assert store.current_examples() == examples


def test_an_answer_is_in_the_log_before_it_is_in_the_database(store: Store) -> None:
    with store.writing():
        request = make_request(1)
        store.add_call(request, make_response(request))
        assert store.query("SELECT count(*) AS n FROM calls") == [{"n": 0}]
        assert json.loads(store.log_path.read_text())[1]["id"] == request.id
    assert store.answers()[request.id].text == 'say "é"\n'
    assert store.log_path.read_text() == ""


def test_a_log_that_a_crash_left_is_replayed_at_start(store: Store) -> None:
    with store.writing():
        request = make_request(1)
        store.add_call(request, make_response(request))
        line = store.log_path.read_text()
    store.log_path.write_text(line + line[: len(line) // 2])  # the same answer again, and a torn line
    again = Store(store.path)
    assert list(again.answers()) == [request.id]
    assert again.query("SELECT count(*) AS n FROM calls") == [{"n": 1}]


def test_a_log_that_is_damaged_in_the_middle_is_told_with_its_line(store: Store) -> None:
    store.log_path.write_text('["calls", {broken\n["calls", {}]\n')
    with pytest.raises(StoreError, match=r"shop\.log:1: is damaged"):
        Store(store.path)


def test_ids_that_look_like_numbers_stay_text(store: Store) -> None:
    example = make_example(1).model_copy(update={"label": "000123", "calls": ("0017",)})
    with store.writing():
        store.add_item(item_of(example), "done", [example])
    assert store.current_examples()[0].label == "000123"
    assert store.current_examples()[0].calls == ("0017",)


def test_an_item_that_runs_again_stands_for_its_new_examples_and_keeps_the_old(store: Store) -> None:
    old, new = make_example(1), make_example(1, text="another")
    with store.writing():
        store.add_item(item_of(old), "done", [old])
        store.flush()
        store.add_item(item_of(new), "done", [new])
    assert store.current_examples() == [new]
    assert store.query("SELECT count(*) AS n FROM examples") == [{"n": 2}]


def test_examples_of_items_outside_the_plan_are_not_current(store: Store) -> None:
    examples = fill(store, 3)
    store.set_plan([item_of(examples[0])], {})
    assert store.current_examples() == [examples[0]]


def test_filter_verdicts_are_replaced_and_peoples_stay(store: Store) -> None:
    first = fill(store, 2)[0]
    store.add_verdicts([Verdict(example_id=first.id, by="human:ana", keep=False, reason="odd")])
    for _ in range(2):
        store.replace_filter_verdicts([Verdict(example_id=first.id, by="filter:length", keep=True)], {first.id: first.id})
    assert [(v.by, v.keep, v.reason) for v in store.verdicts()] == [("human:ana", False, "odd"), ("filter:length", True, None)]


def test_a_persons_latest_word_is_the_last(store: Store) -> None:
    a, b = fill(store, 2)
    keep = [Verdict(example_id=e.id, by="filter:x", keep=e is a, reason=None if e is a else "length: 3") for e in (a, b)]
    store.replace_filter_verdicts(keep, {})
    assert [e.id for e in store.accepted_examples()] == [a.id]
    store.add_verdicts([Verdict(example_id=a.id, by="human:ana", keep=False, reason="odd")])
    store.add_verdicts([Verdict(example_id=b.id, by="human:ana", keep=False, reason="odd")])
    store.add_verdicts([Verdict(example_id=b.id, by="human:ben", keep=True)])
    assert [e.id for e in store.accepted_examples()] == [b.id]
    assert store.query("SELECT decided_by, reason FROM rejected") == [{"decided_by": "human:ana", "reason": "odd"}]


def test_an_example_that_nobody_curated_is_not_accepted(store: Store) -> None:
    fill(store, 1)
    assert store.accepted_examples() == []


def test_lineage_gives_every_training_row_its_call_tokens_and_cost(store: Store) -> None:
    examples = fill(store, 6)
    store.replace_filter_verdicts([Verdict(example_id=e.id, by="filter:x", keep=True) for e in examples], {})
    rows = store.query("FROM lineage")
    assert len(rows) == 6
    for row in rows:
        assert row["teacher"] == "m"
        assert row["prompt_hash"] == "answer@1"
        assert row["rendered_prompt"] == [{"role": "user", "content": "hello"}]
        assert (row["prompt_tokens"], row["completion_tokens"], row["cost_usd"]) == (10, 4, 0.5)
        assert row["verdicts"] == [{"by": "filter:x", "keep": True, "reason": None}]


def test_a_call_that_made_two_examples_is_shared_between_them(store: Store) -> None:
    request = make_request(1)
    pair = [make_example(n, calls=(request.id,)) for n in (1, 2)]
    with store.writing():
        store.add_call(request, make_response(request))
        for example in pair:
            store.add_item(item_of(example), "done", [example])
    store.replace_filter_verdicts([Verdict(example_id=e.id, by="filter:x", keep=True) for e in pair], {})
    assert [row["cost_usd"] for row in store.query("FROM lineage")] == [0.25, 0.25]


def test_the_split_follows_the_group_and_the_settings(store: Store) -> None:
    examples = fill(store, 60)
    groups = {e.id: examples[i // 2 * 2].id for i, e in enumerate(examples)}
    store.replace_filter_verdicts([Verdict(example_id=e.id, by="filter:x", keep=True) for e in examples], groups)
    store.set_settings({"seed": "7", "split.test": "0.3", "split.validation": "0.2"})
    rows = store.query("SELECT group_id, list(DISTINCT split) AS splits FROM sft GROUP BY ALL")
    assert all(len(row["splits"]) == 1 for row in rows)
    counts = {row["split"]: row["n"] for row in store.query("SELECT split, count(*) AS n FROM sft GROUP BY ALL")}
    assert set(counts) == {"train", "validation", "test"}
    before = store.query("SELECT id, split FROM sft ORDER BY id")
    store.set_settings({"seed": "8"})
    assert store.query("SELECT id, split FROM sft ORDER BY id") != before


def test_preference_rows_have_trls_columns(store: Store) -> None:
    examples = fill(store, 3)
    store.replace_filter_verdicts([Verdict(example_id=e.id, by="filter:x", keep=True) for e in examples], {})
    (row,) = store.query("SELECT prompt, chosen, rejected FROM preference")
    assert row["prompt"][0] == {"role": "system", "content": "s"}
    assert row["chosen"] == [{"role": "assistant", "content": '{"intent":"late"}'}]
    assert row["rejected"] == [{"role": "assistant", "content": "bad"}]


@pytest.mark.parametrize("view", ["sft", "preference", "accepted", "rejected", "coverage", "costs", "spending", "missing", "lineage"])
def test_every_view_has_a_comment(store: Store, view: str) -> None:
    (row,) = store.query("SELECT comment FROM duckdb_views() WHERE view_name = ?", [view])
    assert row["comment"]


def test_every_table_has_a_comment(store: Store) -> None:
    assert store.query("SELECT table_name FROM duckdb_tables() WHERE comment IS NULL") == []


def test_people_can_query_while_a_run_writes(store: Store) -> None:
    reader = Store(store.path)
    with store.writing():
        for n in range(20):
            example = make_example(n)
            store.add_item(item_of(example), "done", [example])
            store.flush()
            assert reader.query("SELECT count(*) AS n FROM examples") == [{"n": n + 1}]


def test_a_reader_that_holds_the_file_delays_the_database_and_not_the_log(store: Store, tmp_path: Path) -> None:
    import subprocess
    import sys

    hold = "import duckdb,sys,time; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        reader.stdout.readline()
        with store.writing():
            example = make_example(1)
            store.add_item(item_of(example), "done", [example])
            assert store.flush(wait_s=0.1) is False
            assert store.pending == 2
            threading.Timer(0.3, reader.stdin.close).start()
        assert store.current_examples() == [example]


def test_a_second_writer_is_refused(store: Store) -> None:
    with store.writing(), pytest.raises(StoreError, match="another run is writing"), Store(store.path).writing():
        pass


def test_writing_outside_of_a_run_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="outside"):
        store.add_failure(make_request(1), "RateLimitError", "slow down")


def test_a_store_from_before_kept_texts_were_remembered_gains_their_tables_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(store_module._TABLES)
        con.execute("INSERT INTO settings VALUES ('version', '1')")
        con.execute("INSERT INTO examples (id, item_id, topic, generator, completion) VALUES ('e', 'a:b:0', 'a', 'b', '{}')")
    store = Store(path)
    assert store.query("SELECT id FROM examples") == [{"id": "e"}]
    with store.seen_texts() as seen:
        assert len(seen) == 0


def test_a_store_of_a_newer_version_is_refused_untouched(store: Store) -> None:
    with duckdb.connect(str(store.path)) as con:
        con.execute("UPDATE settings SET value = '99' WHERE name = 'version'")
    before = store.path.read_bytes()
    with pytest.raises(StoreError, match=f"has version 99; this program knows up to {len(MIGRATIONS)}"):
        Store(store.path)
    assert store.path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    path.write_text("hello, I am a text file, and a rather long one, too" * 100)
    with pytest.raises(StoreError, match=r"x\.duckdb"):
        Store(path)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE t (a INT)")
    with pytest.raises(StoreError, match="not a store of this program"):
        Store(path)


def test_changed_views_are_made_anew_and_data_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = fill(store, 2)
    monkeypatch.setattr(store_module, "_VIEWS", store_module._VIEWS + "\nCREATE OR REPLACE VIEW extra AS SELECT 1 AS one;")
    again = Store(store.path)
    assert again.query("FROM extra") == [{"one": 1}]
    assert again.current_examples() == examples


def test_wrong_sql_is_told_in_duckdbs_own_words(store: Store) -> None:
    with pytest.raises(StoreError, match="nothing_here"):
        store.query("SELECT * FROM nothing_here")


def test_a_full_disk_is_one_clear_error_and_the_log_stays_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    with store.writing():
        store.add_failure(make_request(1), "Timeout", "x")
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(StoreError, match="No space left on device"):
            store.add_failure(make_request(2), "Timeout", "x")
        monkeypatch.undo()
        store.add_failure(make_request(3), "Timeout", "x")
    assert len(store.query("FROM failures")) == 2


def test_ten_thousand_rows_are_written_in_seconds(store: Store) -> None:
    started = time.monotonic()
    fill(store, 3000)
    assert time.monotonic() - started < 20


def test_a_store_from_before_terms_were_kept_gets_the_column_and_keeps_its_rows(tmp_path: Path) -> None:
    store = Store(tmp_path / "old.duckdb")
    with store.writing():
        store.start_run("r1", "generate", {"name": "old"}, {"retort": "0.1.0"})
    with store._connect(read_only=False) as con:
        con.execute("ALTER TABLE runs DROP COLUMN terms")
        con.execute("UPDATE settings SET value = '1' WHERE name = 'version'")
    store = Store(tmp_path / "old.duckdb")
    assert store.query("SELECT id, terms FROM runs") == [{"id": "r1", "terms": None}]
    assert store.terms_of_runs() == []
    with store.writing():
        store.start_run("r2", "generate", {}, {}, [{"model": "m", "settled": True}])
    assert store.terms_of_runs() == [[{"model": "m", "settled": True}]]


def test_a_store_of_the_version_before_is_migrated_with_its_log_and_pays_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, request = tmp_path / "old.duckdb", make_request(1)
    with duckdb.connect(str(path)) as con:
        con.execute(store_module._TABLES)
        con.execute("INSERT INTO settings VALUES ('version', '1')")
        con.execute("INSERT INTO calls (id, item_id, model, role, text, cost_usd) VALUES ('c0', 'a/b:topic:0', 'm', 'teacher', 'x', 0.25)")
        con.execute("INSERT INTO failures (request_id, error) VALUES ('c1', 'Timeout'), ('c2', 'RateLimitError')")
        con.execute("INSERT INTO items (id, planned, example_ids) VALUES ('a/b:topic:0', true, ['e0'])")
        con.execute("INSERT INTO examples (id, item_id, scores) VALUES ('e0', 'a/b:topic:0', '{}')")
    old = {"id": request.id, "item_id": request.item_id, "text": "kept", "cost_usd": 0.5, "params": {}, "messages": []}
    path.with_suffix(".log").write_text(json.dumps(["calls", old]) + "\n")
    store = Store(path)
    assert {id: answer.text for id, answer in store.answers().items()} == {"c0": "x", request.id: "kept"}
    assert store.ledger.spent_usd == 0.75
    assert store.query("SELECT error, billed FROM failures ORDER BY 1") == [
        {"error": "RateLimitError", "billed": "no"}, {"error": "Timeout", "billed": "maybe"},
    ]  # fmt: skip
    assert store.query("SELECT id FROM current_examples") == [{"id": "e0"}]
    assert store.query("SELECT value FROM settings WHERE name = 'version'") == [{"value": str(len(MIGRATIONS))}]
    assert store.query("FROM missing") == []


def test_a_store_from_before_quotas_gets_their_tables_and_keeps_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    before = [migration.__name__ for migration in MIGRATIONS].index("_m008_targets")
    with duckdb.connect(str(path)) as con:
        for migration in MIGRATIONS[:before]:
            migration(con)
        con.execute("INSERT INTO settings VALUES ('version', ?)", [str(before)])
        con.execute("INSERT INTO calls (id, item_id, model, role, text, cost_usd) VALUES ('c0', 'a/b:topic:0', 'm', 'teacher', 'x', 0.25)")
        con.execute("INSERT INTO items (id, topic, generator, count, planned) VALUES ('a/b:topic:0', 'a/b', 'topic', 4, true)")
    store = Store(path)
    assert set(store.answers()) == {"c0"}
    assert (store.targets(), store.earlier_rows()) == ({}, [])
    assert [(row["target"], row["asked"]) for row in store.query("FROM coverage")] == [(4, 4)]


def test_a_log_that_was_taken_in_before_the_crash_is_not_taken_in_twice(store: Store) -> None:
    with store.writing():
        store.add_failure(make_request(1), "Timeout", "x", billed=True)
        data = store.log_path.read_bytes()
    store.log_path.write_bytes(data)  # killed between the commit and the emptying of the log
    assert len(Store(store.path).query("FROM failures")) == 1


def test_a_store_from_before_batches_gets_room_for_batches_and_keeps_its_rows(store: Store) -> None:
    examples = fill(store, 2)
    with duckdb.connect(str(store.path)) as con:
        con.execute("DROP TABLE batches")
        con.execute("DROP TABLE batch_requests")
        con.execute("UPDATE settings SET value = '3' WHERE name = 'version'")
    again = Store(store.path)
    assert [example.id for example in again.current_examples()] == [example.id for example in examples]
    assert again.batches("open") == []
    batch = Batch(id="b", provider="openai", model="m", requests=1, tokens=1, worst_usd=0.5, submitted_at=datetime.now(UTC))
    with again.writing():
        again.add_batch(batch, [make_request(99)])
    assert again.batches("submitting") == [batch]
    assert again.batch_requests("b") == {make_request(99).id: make_request(99)}
    assert again.unanswered_in_batches() == {make_request(99).id: "waiting"}
    assert (again.ledger.open_usd, Store(store.path).ledger.open_usd) == (0.5, 0.5)  # beyond the process
    with again.writing():
        again.unsent("b")
    assert Store(store.path).ledger.open_usd == 0


def test_a_store_from_before_exams_were_remembered_gains_the_table_and_keeps_its_verdicts(store: Store) -> None:
    examples = fill(store, 2)
    store.replace_filter_verdicts([Verdict(example_id=examples[0].id, by="filter:length", keep=True)], {})
    with duckdb.connect(str(store.path)) as con:
        con.execute("DROP TABLE evaluation_sets")
        con.execute("ALTER TABLE verdicts DROP COLUMN score")
        con.execute("UPDATE settings SET value = '5' WHERE name = 'version'")
    again = Store(store.path)
    assert again.verdicts() == [Verdict(example_id=examples[0].id, by="filter:length", keep=True)]
    assert again.exams(()) == ()
    again.replace_filter_verdicts([Verdict(example_id=examples[0].id, by="filter:x", keep=True, score=0.5)], {})
    assert [verdict.score for verdict in again.verdicts()] == [0.5]
