"""Filters on form: one test per reason, one that passes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.filters import EXAMPLE_FILTERS, FilterContext
from datagen.filters.language import language
from datagen.filters.privacy import pii
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


def test_language_sees_another_script(bank_example, bank_context):
    assert language(bank_example("我的卡还没有到"), bank_context) == "language: the input has 0% of its letters in the script of en"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Meine Karte ist noch nicht da und ich habe lange gewartet", "German"),
        ("Je ne peux pas payer avec ma carte dans les magasins de Paris", "French"),
        ("Mi tarjeta no ha llegado y no puedo pagar en la tienda", "Spanish"),
    ],
)
def test_language_names_another_language_of_the_latin_script(text, named, bank_example, bank_context):
    assert named in language(bank_example(text), bank_context)


def test_language_sees_text_without_english_words(bank_example, bank_context):
    reason = language(bank_example("Kortet mitt kom aldri fram, selv etter fire uker"), bank_context)
    assert reason == "language: the input has 0 common English words among 9"


@pytest.mark.parametrize("text", ["hi", "...", "😀", "ou est ma carte", "CARD NOT HERE YET!!! where iss it 😡😡 pls check for me now"])
def test_language_passes_short_noisy_and_wordless_english(text, bank_example, bank_context):
    assert language(bank_example(text), bank_context) is None


def test_language_checks_other_languages_by_script_and_free_text_by_completion(bank_example, text_task):
    russian = FilterContext(task=text_task.model_copy(update={"language": "ru"}))
    assert language(bank_example("Где моя карта?", completion="Она в пути."), russian) is None
    assert language(bank_example("Где моя карта?", completion="It is on its way."), russian).startswith("language: the completion")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("My card is 4111 1111 1111 1111, help", "card number"),
        ("card 5500-0000-0000-0004 was stolen", "card number"),
        ("it's 378282246310005", "card number"),
        ("send it to GB82 WEST 1234 5698 7654 32 please", "IBAN"),
        ("my iban is DE89370400440532013000.", "IBAN"),
        ("write to jo.blogs+x@mail.example.org", "e-mail address"),
        ("call me on +44 (0)20 7946 0958", "telephone number"),
        ("ring 07700 900123 today", "telephone number"),
        ("ring 555-010-9999", "telephone number"),
    ],
)
def test_pii_names_the_kind_and_never_the_value(text, kind, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) == f"pii: {kind} in the input"


@pytest.mark.parametrize(
    "text",
    [
        "I paid £1,200,500.00 on 2026-11-24 10:30 and 3000000 on 24/11/2026",
        "order 12345678 has not come",
        "4111 1111 1111 1112 is no card: its check digit is wrong",
        "it was £40 at Tesco, 3 days ago @ noon",
    ],
)
def test_pii_passes_sums_dates_and_numbers_that_are_nobodys(text, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) is None


def test_pii_looks_at_every_text_that_a_student_could_learn(bank_example, bank_context):
    for name in ("completion", "rejected", "reasoning"):
        assert pii(bank_example(**{name: "ask a@b.org"}), bank_context) == f"pii: e-mail address in the {name}"


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
@pytest.mark.parametrize("name", ["length", "refusal", "language", "pii"])
def test_form_filters_raise_no_false_alarm_on_real_messages(name, bank_example, bank_context):
    path = Path(os.environ["REAL_DATA"]) / "banking77_train_sample.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    alarms = [text for text in texts if EXAMPLE_FILTERS[name](bank_example(text), bank_context)]
    assert not alarms


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
def test_pii_finds_every_card_iban_and_address_of_a_public_set(bank_example, bank_context):
    path = Path(os.environ["REAL_DATA"]) / "presidio_pii_150.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = {"CREDIT_CARD", "IBAN_CODE", "EMAIL_ADDRESS"}
    rows = [row for row in rows if wanted & {span["entity_type"] for span in row["spans"]}]
    assert len(rows) > 15
    assert all(pii(bank_example(row["full_text"]), bank_context) for row in rows)
