"""Verifiers: what each says, and that somebody's code which raises, hangs or dies costs one row."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from datagen.curate import mark
from datagen.filters import FilterContext
from datagen.filters.checks import ABSENT, read_number, value_at
from datagen.filters.sql import Database, SqlError, differ
from datagen.filters.verify import verify
from datagen.records import Example, Message, Task, Verifier

SHOP = """
CREATE TABLE orders(id INTEGER, customer VARCHAR, total DOUBLE);
INSERT INTO orders VALUES (1, 'ann', 10.0), (2, 'ann', 5.5), (3, 'bob', 7.25);
"""


def parsed(*verifiers: dict[str, Any]) -> tuple[Verifier, ...]:
    return tuple(TypeAdapter(Verifier).validate_python(verifier) for verifier in verifiers)


def example(answer: Any, text: str = "How many?", **fields: Any) -> Example:
    completion = answer if isinstance(answer, str) else json.dumps(answer)
    prompt = (Message(role="user", content=text),)
    fields.setdefault("item_id", "a:topic:0")
    return Example(topic="a", generator="topic", prompt=prompt, completion=completion, **fields)


def context(*verifiers: dict[str, Any], data: bool = False) -> FilterContext:
    task = Task(
        type="generation", system="s", input="i", instructions="x", output_schema={"type": "object"} if data else None,
        verify=parsed(*verifiers),
    )  # fmt: skip
    return FilterContext(task=task)


def said(answer: Any, *verifiers: dict[str, Any], **fields: Any) -> str | None:
    (verdict,) = verify([example(answer, **fields)], context(*verifiers, data=not isinstance(answer, str)))
    assert verdict.keep == (verdict.reason is None or verdict.reason.startswith("verified: "))
    return verdict.reason


KNOWN = {"known": {"how many": 1200.5}}


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("GBP 1,200.50", None, 1200.5), ("first 3, then 4", None, 4.0), ("weighs 3 kg, costs 4 EUR", "kg", 3.0),
        ("$5 or 6", "$", 5.0), ("5 kgs", "kg", None), ("none", None, None), ("\u22125", None, -5.0), ("9" * 400, None, None), (".5", None, 0.5),
        (7, "kg", 7.0), (True, None, None), (None, None, None), (10**400, None, None), (float("inf"), None, None), ("1e3", None, 1000.0),
    ],
)  # fmt: skip
def test_a_number_is_read_from_data_and_text(text: Any, unit: str | None, number: float | None) -> None:
    assert read_number(text, unit) == number


@pytest.mark.parametrize(
    ("answer", "verifier", "reason"),
    [
        ("It is 1,200.50.", {"truth": KNOWN}, "verified: numeric"),
        ("It is 1200.", {"truth": KNOWN}, "numeric: 1200, the truth is 1200.5"),
        ("It is 1200.", {"truth": KNOWN, "tolerance": 0.5}, "verified: numeric"),
        ("It is 1199.", {"truth": KNOWN, "relative": 0.01}, "verified: numeric"),
        ("It is 5 kg", {"unit": "g"}, "numeric: no number of g in 'It is 5 kg'"),
        ("It is 5 kg", {"max": 4}, "numeric: 5, at most 4"),
        ("It is 5 kg", {"min": 6}, "numeric: 5, at least 6"),
        ("None", {}, "numeric: no number in 'None'"),
        ("5", {"truth": {"known": {"how many": "lots"}}}, "numeric: 5, where the known answer 'lots' is no number"),
        ({"total": 1200.5}, {"field": "total", "truth": KNOWN}, "verified: numeric"),
        ({"sum": {"total": 2}}, {"field": "sum.total", "truth": KNOWN}, "numeric: sum.total: 2, the truth is 1200.5"),
        ({"other": 2}, {"field": "total", "truth": KNOWN}, "numeric: total: is absent, the truth is 1200.5"),
        ({"other": 2}, {"field": "total"}, None),
    ],
)
def test_numeric(answer: Any, verifier: dict[str, Any], reason: str | None) -> None:
    assert said(answer, {"check": "numeric", **verifier}) == reason


@pytest.mark.parametrize(
    ("answer", "verifier", "reason"),
    [
        ("Red, blue", {"check": "set", "truth": {"known": {"how many": ["blue", "red"]}}}, "verified: set"),
        ("red, 1,red", {"check": "set", "truth": {"known": {"how many": "blue, 1.0"}}}, 'set: lacks ["blue"] and adds ["red"]'),
        ("red, blue", {"check": "list", "truth": {"known": {"how many": ["blue", "red"]}}}, 'list: ["red", "blue"], the truth is ["blue", "red"]'),
        ({"x": ["a", {"b": 1}]}, {"check": "list", "field": "x", "truth": {"known": {"how many": ["A", {"b": 1}]}}}, "verified: list"),
        ({"x": 3}, {"check": "set", "field": "x"}, "set: x: 3 is no set"),
        ("a; d", {"check": "set", "separator": ";", "allowed": ["a", "b"]}, "set: d is none of those allowed"),
        ("a; b", {"check": "set", "separator": ";", "allowed": ["a", "b"]}, "verified: set"),
    ],
)  # fmt: skip
def test_sets_and_lists(answer: Any, verifier: dict[str, Any], reason: str | None) -> None:
    assert said(answer, verifier) == reason


@pytest.mark.parametrize(
    ("answer", "truth", "match", "reason"),
    [
        ("The Hague!", "the hague", "normalised", "verified: equal"),
        ("The Hague!", "the hague", "exact", "equal: 'The Hague!', the truth is 'the hague'"),
        ({"a": ["X", 1]}, {"a": ["x", 1.0]}, "normalised", "verified: equal"),
        ({"a": True}, {"a": 1}, "normalised", 'equal: {"a": true}, the truth is {"a": 1}'),
        ({"a": 5}, {"a": "5"}, "normalised", "verified: equal"),
        ({"a": 5}, {"a": "5"}, "exact", 'equal: {"a": 5}, the truth is {"a": "5"}'),
    ],
)
def test_known_answers(answer: Any, truth: Any, match: str, reason: str | None) -> None:
    assert said(answer, {"check": "equal", "match": match, "truth": {"known": {"How many?": truth}}}) == reason


def test_an_input_whose_answer_nobody_knows_passes_unverified() -> None:
    assert said("5", {"check": "equal", "truth": {"known": {"another": 1}}}) is None
    assert said("5", {"check": "equal", "truth": {"known": {"how many": 1}, "match": "exact"}}) is None


def test_a_regex_must_match_or_must_not() -> None:
    assert said("AB-12", {"check": "regex", "pattern": r"^[A-Z]{2}-\d+$"}) == "verified: regex"
    assert said("ab", {"check": "regex", "pattern": r"^[A-Z]"}) == "regex: 'ab' does not match"
    assert said("see http://x", {"check": "regex", "pattern": "https?://", "absent": True}) == "regex: 'http://' must not occur"
    assert said({"a": {"b": 1}}, {"check": "regex", "field": "a", "pattern": '^{"b": 1}$'}) == "verified: regex"


def test_a_json_schema_says_where_it_is_broken() -> None:
    schema = {"check": "json_schema", "json_schema": {"properties": {"n": {"type": "integer"}}}}
    assert said({"n": "x"}, schema) == 'json_schema: n: "x" is not of type "integer"'
    assert said({"n": 1}, schema) == "verified: json_schema"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT customer, sum(total) FROM orders GROUP BY 1 ORDER BY 2", "verified: sql"),
        ("SELECT customer, sum(total)::DECIMAL(9,2) AS x FROM orders GROUP BY ALL", "verified: sql"),
        ("SELECT customer, sum(total), 1 FROM orders GROUP BY 1", "sql: 3 columns, the reference has 2"),
        ("SELECT customer, total FROM orders", "sql: 3 rows, the reference has 2"),
        ("SELECT customer, max(total) FROM orders GROUP BY 1", "sql: row 'text ann, 10', which the reference does not have so"),
        ("SELECT nothing FROM orders", 'sql: Binder Error: Referenced column "nothing" not found in FROM clause!'),
        ("DROP TABLE orders", "sql: is not one SELECT but DROP"),
        ("SELECT 1; DROP TABLE orders", "sql: is not one SELECT but SELECT, DROP"),
        ("", "sql: is not one SELECT but nothing"),
        ("SELECT * FROM read_text('/etc/hostname')", "sql: Permission Error"),
        ("COPY orders TO '/tmp/never.csv'", "sql: is not one SELECT but COPY"),
        ("SELECT * FROM range(20000)", "sql: returns more than 10,000 rows"),
        ("SELECT [x FROM", "sql: Parser Error"),
    ],
)
def test_sql_is_run_and_its_rows_are_compared(query: str, reason: str) -> None:
    truth = {"known": {"how many": "SELECT customer, sum(total) AS spent FROM orders GROUP BY customer"}}
    found = said(query, {"check": "sql", "setup": SHOP, "truth": truth})
    assert found is not None
    assert found == reason or (reason[-1].isalpha() and found.startswith(reason))


def test_a_query_can_neither_read_a_file_nor_change_a_setting_nor_see_a_variable() -> None:
    secret = {"a": [1]}
    database = Database(SHOP)
    for query in ("FROM secret", "FROM '/etc/passwd'", "SELECT * FROM glob('/*')", "SELECT * FROM read_csv('https://example.org/x.csv')"):
        with pytest.raises(SqlError):
            database.rows(query)
    assert secret
    with pytest.raises(SqlError, match="not one SELECT but SET"):
        database.rows("SET enable_external_access = true")


def test_the_order_of_rows_counts_where_it_is_asked() -> None:
    one, other = [(1, None), (2, "a")], [(2, "a"), (1, None)]
    assert differ(one, other, ordered=False) is None
    assert differ(one, other, ordered=True) == "the reference's rows in another order"
    assert differ([(True,)], [(1,)], ordered=False) is not None


def test_tables_follow_a_dimension_and_others_are_passed_over() -> None:
    verifier = {"check": "sql", "dimension": "domain", "setup": {"shop": SHOP, "none": ""}}
    assert said("SELECT id FROM orders", verifier, dimensions={"domain": "shop"}) == "verified: sql"
    assert "orders does not exist" in str(said("SELECT id FROM orders", verifier, dimensions={"domain": "none"}))
    assert said("SELECT id FROM orders", verifier, dimensions={"domain": "zoo"}) is None


FUNCTIONS = """
import os, sys, time
print("noise")

def check(example):
    word = example["value"]
    if word == "hang":
        time.sleep(60)
    if word == "raise":
        raise KeyError("oops")
    if word == "exit":
        sys.exit(3)
    if word == "die":
        os._exit(1)
    if word == "eat":
        return str(len(bytearray(8 << 30)))
    if word == "odd":
        return 7
    if word == "no":
        return False
    if word == "why":
        return f"{word} to {example['input']}"
    return None
"""


@pytest.fixture
def function(tmp_path):
    path = tmp_path / "checks.py"
    path.write_text(FUNCTIONS)
    return {"check": "python", "python": f"{path}:check", "seconds": 0.5}


def test_a_function_that_raises_hangs_or_dies_costs_its_row_alone(function) -> None:
    words = ["fine", "raise", "hang", "no", "exit", "die", "eat", "odd", "why", "fine"]
    examples = [example(word, item_id=f"a:topic:{n}") for n, word in enumerate(words)]
    assert [verdict.reason for verdict in verify(examples, context(function))] == [
        "verified: python checks.py:check",
        "verifier_failed: python checks.py:check: raised KeyError: 'oops'",
        "verifier_failed: python checks.py:check: took longer than 0.5 s",
        "python: python checks.py:check: says no",
        "verifier_failed: python checks.py:check: raised SystemExit: 3",
        "verifier_failed: python checks.py:check: ended its process",
        "verifier_failed: python checks.py:check: raised MemoryError: ",
        "verifier_failed: python checks.py:check: raised TypeError: it returned 7; return True or None for right, False or a text for wrong",
        "python: python checks.py:check: why to How many?",
        "verified: python checks.py:check",
    ]


def test_a_verifier_that_keeps_hanging_is_given_up_and_every_row_has_its_verdict(function) -> None:
    examples = [example("hang", item_id=f"a:topic:{n}") for n in range(30)]
    verdicts = verify(examples, context({**function, "seconds": 0.02}))
    assert len(verdicts) == 30
    assert [verdict.reason for verdict in verdicts[-20:]] == [
        "verifier_failed: python checks.py:check: was not run, because it had hung or died 10 times"
    ] * 20


def test_a_pattern_without_end_is_ended() -> None:
    started = time.monotonic()
    found = said("a" * 40 + "!", {"check": "regex", "pattern": "^(a+)+$", "seconds": 0.5})
    assert found == "verifier_failed: regex: took longer than 0.5 s"
    assert time.monotonic() - started < 20


def test_a_module_that_cannot_be_loaded_is_said_of_every_row(tmp_path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\ndef check(example): return True\n")
    found = said("x", {"check": "python", "python": f"{tmp_path / 'broken.py'}:check"})
    assert found is not None
    assert found.startswith("verifier_failed: python broken.py:check: cannot be loaded: raised ModuleNotFoundError")


def test_a_rejected_answer_that_is_right_is_no_answer_to_reject() -> None:
    verifier = {"check": "numeric", "truth": KNOWN}
    assert said("1200.5", verifier, rejected="1,200.5 exactly") == "rejected_right: the rejected answer is right by what is known"
    assert said("1200.5", verifier, rejected="7") == "verified: numeric"
    assert said("1200.5", {"check": "numeric", "min": 1}, rejected="7") == "verified: numeric"


def test_an_answer_that_cannot_be_read_is_the_schema_filters_matter(bank_context, bank_example) -> None:
    verifying = replace(bank_context, task=bank_context.task.model_copy(update={"verify": parsed({"check": "numeric"})}))
    assert verify([bank_example("Hello", completion="{")], verifying)[0].keep


def test_without_verifiers_there_is_no_verdict(bank_context, bank_example) -> None:
    assert verify([bank_example("Hello")], bank_context) == []


def test_a_field_is_found_by_its_path() -> None:
    assert value_at({"a": [{"b": 1}]}, "a.0.b") == 1
    assert value_at({"a": [1]}, "a.7") is value_at({"a": 1}, "a.b") is value_at("x", "a") is ABSENT
    assert value_at({"a": 1}, None) == {"a": 1}


def test_an_edited_function_changes_the_ground_of_what_was_decided(function, tmp_path) -> None:
    before = mark(context(function), "", "")
    assert mark(context(function), "", "") == before
    (tmp_path / "checks.py").write_text("def check(example): return False\n")
    assert mark(context(function), "", "") != before
