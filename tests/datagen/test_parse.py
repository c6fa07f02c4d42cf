"""A teacher's text to data: what is read, and what is refused."""

import pytest

from datagen.errors import ParseError
from datagen.parse import (
    canonical,
    parse_better,
    parse_json,
    parse_object,
    parse_scores,
    parse_steps,
    parse_strings,
    parse_text,
)


def test_a_code_fence_round_json_is_accepted() -> None:
    assert parse_json('```json\n{"a": 1}\n```') == {"a": 1}


@pytest.mark.parametrize("text", ['Sure! {"a": 1}', '{"a": 1', "", "{'a': 1}", '{"a": 1} {"b": 2}'])
def test_what_is_not_one_json_value_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="not JSON"):
        parse_json(text)


def test_a_list_is_not_an_object() -> None:
    with pytest.raises(ParseError, match="a JSON list where an object was asked"):
        parse_object("[1]")


@pytest.mark.parametrize("text", ["[]", '["a", 1]', '{"a": "b"}'])
def test_only_a_list_of_strings_is_a_list_of_inputs(text: str) -> None:
    with pytest.raises(ParseError, match="not a JSON list of strings"):
        parse_strings(text)


def test_inputs_lose_their_surrounding_space() -> None:
    assert parse_strings('[" a ", "b"]') == ["a", "b"]


def test_empty_text_is_refused() -> None:
    with pytest.raises(ParseError, match="empty"):
        parse_text("  \n")


def test_steps_come_apart_from_their_answer() -> None:
    assert parse_steps('{"steps": ["one"], "answer": {"a": 1}}') == (["one"], {"a": 1})


@pytest.mark.parametrize("text", ['{"steps": [], "answer": 1}', '{"steps": "one", "answer": 1}', '{"steps": ["one"]}'])
def test_steps_without_sentences_or_answer_are_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_steps(text)


@pytest.mark.parametrize(
    "text", ['{"answer": 6, "input": 1}', '{"answer": 3}', '{"answer": true, "input": 1}', '{"answer": "5", "input": 1}']
)
def test_scores_outside_one_to_five_are_refused(text: str) -> None:
    with pytest.raises(ParseError, match="not a number from 1 to 5"):
        parse_scores(text)


def test_scores_are_numbers_by_name() -> None:
    assert parse_scores('{"answer": 4, "input": 5, "reason": "fine"}') == {"answer": 4.0, "input": 5.0}


def test_a_comparison_is_a_b_or_tie() -> None:
    assert parse_better('{"better": "tie"}') == "tie"
    with pytest.raises(ParseError, match="not A, B or tie"):
        parse_better('{"better": "both"}')


def test_canonical_json_follows_the_schema_and_is_compact() -> None:
    schema = {"properties": {"b": {}, "a": {}, "absent": {}}}
    assert canonical({"a": "é", "extra": 1, "b": 2}, schema) == '{"b":2,"a":"é","extra":1}'
