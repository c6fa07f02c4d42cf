"""Filters on form: one test per reason, one that passes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.filters import EXAMPLE_FILTERS, FilterContext
from datagen.filters.text import length, refusal, schema

GOOD = '{"intent":"card_arrival","urgency":"normal","entities":{}}'


@pytest.mark.parametrize("name", EXAMPLE_FILTERS)
def test_every_example_filter_passes_a_good_example(name, bank_example, bank_context):
    assert EXAMPLE_FILTERS[name](bank_example(), bank_context) is None


@pytest.mark.parametrize(
    ("completion", "kind", "value"),
    [
        ('{"intent":"card_arrival"', "invalid_json", '{"intent":"card_arrival"'),
        ("Sure! " + GOOD, "invalid_json", "Sure!"),
        (GOOD + GOOD, "invalid_json", "Extra data"),
        ("[1]", "invalid_json", "a list"),
        ('{"a": NaN}', "invalid_json", "NaN"),
        ('{"intent":"a","intent":"b"}', "invalid_json", "twice"),
        ("[" * 100_000, "invalid_json", "recursion"),
        ('{"intent":"mortgage","urgency":"normal","entities":{}}', "schema", "mortgage"),
        ('{"intent":"card_arrival","urgency":"normal"}', "schema", "entities"),
        ('{"intent":"card_arrival","urgency":"normal","entities":{"amount":3}}', "schema", "entities.amount"),
    ],
)
def test_schema_says_how_a_completion_breaks_it(completion, kind, value, bank_example, bank_context):
    reason = schema(bank_example(completion=completion), bank_context)
    assert reason is not None
    assert reason.startswith(f"{kind}: ")
    assert value in reason


def test_schema_refuses_an_empty_text_and_passes_any_other(bank_example, text_task):
    context = FilterContext(task=text_task)
    assert schema(bank_example(completion=" \n"), context) == "empty: the completion is empty"
    assert schema(bank_example(completion="Yes."), context) is None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"min_input_chars": 100}, "input_short: 41 characters, at least 100"),
        ({"max_input_chars": 10}, "input_long: 41 characters, at most 10"),
        ({"max_completion_chars": 20}, "completion_long: 58 characters, at most 20"),
    ],
)
def test_length_keeps_the_recipes_bounds(settings, reason, bank_example, bank_context):
    assert length(bank_example(), replace(bank_context, settings={"length": settings})) == reason


def test_length_counts_the_words_of_free_text(bank_example, text_task):
    context = FilterContext(task=text_task, settings={"length": {"min_completion_words": 2, "max_completion_words": 3}})
    assert length(bank_example(completion="Yes."), context) == "completion_short: 1 words, at least 2"
    assert length(bank_example(completion="a b c d"), context) == "completion_long: 4 words, at most 3"
    assert length(bank_example(completion="a b c"), context) is None


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not have a card.",
        "As an AI, I cannot do that.",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "Sorry, I cannot help with this.",
        "I cannot fulfil this request.",
        "I am unable to provide that.",
        "Unfortunately, I can't answer.",
        "I'm just an AI and have no opinion.",
        "I apologise, but as an AI I cannot comply with this request.",
        "My apologies, but I can't help.",
        "I regret that I cannot assist.",
    ],
)
def test_refusal_knows_how_models_refuse(text, bank_example, bank_context):
    assert refusal(bank_example(completion=text), bank_context).startswith("refusal: the completion begins with ")


@pytest.mark.parametrize(
    "text", ["As an AI language model, I cannot write such messages.", "I'm sorry, but I can't help with that.", "I cannot create this."]
)
def test_refusal_sees_an_input_that_is_a_teachers_refusal(text, bank_example, bank_context):
    assert refusal(bank_example(text), bank_context).startswith("refusal: the input begins with ")


@pytest.mark.parametrize(
    "text",
    [
        "I can't withdraw cash.",
        "I cannot find my card",
        "Sorry, I can't get my card to work",
        "I'm afraid I can't remember my PIN",
        "Sorry for asking, I can't help it",
    ],
)
def test_refusal_leaves_customers_who_cannot_do_something(text, bank_example, bank_context):
    assert refusal(bank_example(text), bank_context) is None


def test_refusal_passes_where_abstaining_in_words_is_right(bank_example, text_task):
    context = FilterContext(task=text_task.model_copy(update={"abstain_label": "unsafe"}))
    example = bank_example(completion="I cannot help with that.", label="unsafe")
    assert refusal(example, context) is None
    assert refusal(example.model_copy(update={"label": None}), context) is not None


@pytest.mark.parametrize(
    "text",
    [
        "Here is a poem. As an AI language model, I cannot feel love.",
        "The rate is 3 %. However, as an AI, I do not have real-time data.",
        "Sure!\nI'm just an AI assistant, so please ask the bank.",
        "It depends. I don't have personal opinions on cards.",
        "The answer is no, since I cannot assist with that request.",
        "That goes against my programming. I don't have access to real-time rates.",
        "作为一个人工智能助手，我没有身体。",
        "Als KI kann ich das nicht beantworten.",
        "En tant qu'IA, je ne peux pas répondre.",
        "Como modelo de lenguaje, no puedo ayudar.",
    ],
)
def test_refusal_sees_a_model_that_speaks_of_itself_further_on(text, bank_example, text_task):
    assert refusal(bank_example(completion=text), FilterContext(task=text_task)).startswith("refusal: the completion ")


@pytest.mark.parametrize(
    "text",
    [
        "As an AI researcher, I would say that models learn from data.",
        "He wrote a play. As a super genius AI, the hero saves the day.",
        "I am an AI engineer at a bank.",
        "I'm here for you. I'm afraid I can't help with the parcel, but the post office can.",
        "We assist with this every day, and your request is in good hands.",
        "An AI model is trained on data, and a language model is one of them.",
    ],
)
def test_refusal_passes_people_and_talk_about_models(text, bank_example, text_task):
    assert refusal(bank_example(completion=text), FilterContext(task=text_task)) is None


def test_refusal_reads_the_strings_of_an_answer_that_is_data(bank_example, bank_context):
    answer = {"intent": "card_arrival", "urgency": "normal", "entities": {}, "reason": "I cannot tell. As an AI, I have no access."}
    assert refusal(bank_example(answer=answer), bank_context) == "refusal: the completion's reason says '. As an AI'"


def test_refusal_sees_an_input_that_turns_into_one(bank_example, bank_context):
    text = "Where is my card. As an AI language model, I cannot help with that."
    assert refusal(bank_example(text), bank_context) == "refusal: the input says '. As an AI language model'"


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
@pytest.mark.parametrize("name", [name for name in EXAMPLE_FILTERS if name not in ("schema", "truth", "preference", "judge")])
def test_form_filters_raise_no_false_alarm_on_real_messages(name, bank_example, bank_context):
    path = Path(os.environ["REAL_DATA"]) / "banking77_train_sample.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    alarms = [text for text in texts if EXAMPLE_FILTERS[name](bank_example(text), bank_context)]
    assert not alarms
