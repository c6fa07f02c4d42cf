"""Filters on what a teacher's working leaves in a text: one test per reason, and what passes."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.filters import EXAMPLE_FILTERS, FilterContext
from datagen.filters.residue import leak, placeholder, repetition, truncated
from datagen.prompts import own_texts
from datagen.records import Example


@pytest.fixture
def free(text_task) -> FilterContext:
    return FilterContext(task=text_task, prompts=own_texts("the support desk of a retail bank that reads messages about cards"))


@pytest.mark.parametrize(
    "text",
    [
        "My card is lost. please help me please help me please help me please help me",
        "I like it " + "very " * 8 + "much",
        "我的卡还没有到" * 5,
        "no 1 yes 2 no 1 yes 2 no 1 yes 2 no 1 yes 2",
    ],
)
def test_repetition_sees_a_phrase_that_follows_itself(text, bank_example, bank_context):
    assert "more than 3 times in a row" in repetition(bank_example(text), bank_context)


def test_repetition_names_the_phrase_and_where_it_stands(bank_example, free):
    reason = repetition(bank_example(completion="It is here. " + "and then it stops " * 5), free)
    assert reason == "repetition: the completion says 'and then it stops' more than 3 times in a row"


def test_repetition_sees_a_line_that_comes_again_and_again(bank_example, free):
    lines = [f"{number} of the reasons for it\nThis is the same line again." for number in ("One", "Two", "Three", "Four")]
    reason = repetition(bank_example(completion="\n".join(lines)), free)
    assert reason == "repetition: the completion has the line 'This is the same line again.' 4 times, at most 3"


def test_repetition_sees_a_text_that_says_nothing_new(bank_example, free):
    text = " ".join(f"For glass {number} he has to pay two dollars and a half, which is half of five dollars." for number in range(60))
    assert repetition(bank_example(completion=text), free).startswith("repetition: the completion compresses to ")


@pytest.mark.parametrize(
    "text",
    [
        "ha ha ha ha ha",
        "no no no, I want my card back, no no no, now",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "row, row, row your boat gently down the stream, merrily, merrily, merrily, merrily",
    ],
)
def test_repetition_passes_emphasis_songs_and_tables(text, bank_example, free):
    assert repetition(bank_example(text, completion=text), free) is None


def test_repetition_bounds_come_from_the_recipe(bank_example, free):
    text = "It is here. and then it stops and then it stops and then it stops"
    assert repetition(bank_example(text), free) is None
    assert repetition(bank_example(text), replace(free, settings={"repetition": {"max_in_a_row": 2}})) is not None


@pytest.mark.parametrize(
    "found",
    [
        "[Name]", "[Your Name]", "[insert date here]", "<insert amount>", "{{ merchant }}", "{% if x %}", "${amount}", "[Company Name]",
        "<your city>", "lorem ipsum", "Lorem Ipsum", "XXXX", "[...]", "[XX]", "YOUR_API_KEY_HERE", "(insert reason)", "TODO: say more", "[TBD]",
    ],
)  # fmt: skip
def test_placeholder_names_what_waits_to_be_filled_in(found, bank_example, bank_context):
    reason = placeholder(bank_example(f"Hello, it is about {found}"), bank_context)
    assert reason is not None
    assert reason.startswith("placeholder: the input has ")


@pytest.mark.parametrize(
    "text",
    [
        "see [1] and [the name](https://example.org), [citation needed]",
        "row[name] = d[date] if x < y and y > z else [x]",
        "it ended in XXXX 1234 at Super Bowl XXX",
        "Todo bien, gracias, TODO es posible",
        "a <b>bold</b> and <name>Ana</name> in XML {a: {b: 1}}",
        "Who is here? I am here > there",
    ],
)
def test_placeholder_passes_links_code_markup_and_numerals(text, bank_example, bank_context):
    assert placeholder(bank_example(text), bank_context) is None


def test_placeholder_leaves_as_many_as_the_recipe_says(bank_example, free):
    templates = replace(free, settings={"placeholder": {"max": 2}})
    assert placeholder(bank_example(completion="Dear [Name], on [Date]."), templates) is None
    assert placeholder(bank_example(completion="Dear [Name], on [Date] in [City]."), templates) is not None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Reply with one JSON list of strings and nothing else. Where is my card?", "rewrite_input"),
        ("Number of inputs: 4", "rewrite_input"),
        ("Where is my card?\nKind of difficulty: a trap", "write_adversarial"),
        ("a desk of the support desk of a retail bank that reads messages about cards", "domain"),
    ],
)
def test_leak_names_the_prompt_whose_words_are_repeated(text, name, bank_example, free):
    reason = leak(bank_example(text), free)
    assert reason is not None
    assert reason.startswith("leak: the input ")
    assert f"prompt {name}" in reason


def test_leak_sees_the_instructions_and_the_system_message_in_a_completion(bank_example, text_task):
    task = text_task.model_copy(
        update={"instructions": 'Say in plain words what a bank can do, and end with "ask us again whenever you like to do so".'}
    )
    context = FilterContext(task=task)
    assert leak(bank_example(completion="I say in plain words what a bank can do."), context).startswith(
        "leak: the completion repeats the prompt instructions: 'say in plain words"
    )
    assert leak(bank_example(completion="Yes. Ask us again whenever you like to do so."), context) is None


def test_leak_leaves_what_the_labels_are_about(bank_example, free):
    said = "a card that was sent to the customer and has not come yet"
    instructed = replace(free, task=free.task.model_copy(update={"instructions": f"It is about {said}."}))
    assert leak(bank_example(said), instructed) is not None
    assert leak(bank_example(said), replace(instructed, labels={"card_arrival": said})) is None


def test_leak_sees_instructions_that_are_written_without_spaces(bank_example, text_task):
    context = FilterContext(task=text_task.model_copy(update={"instructions": "请用简单的话回答客户的问题。"}))
    assert leak(bank_example("请用简单的话回答客户的问题，我的卡呢"), context) is not None


def test_leak_passes_reasoning_that_names_what_it_goes_by(bank_example, free):
    assert leak(bank_example(reasoning="Reply with one JSON object and nothing else, it says."), free) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Cards come by post. They take about five days and then the", "ends in the middle of a sentence"),
        ("Cards come by post, within five days,", "ends in the middle of a sentence"),
        ("Cards come by post. They take about five days to get to you by ordinary pos", "ends without a full stop"),
        ("Cards come by post. They (and this holds for all of the coun", "ends inside '('"),
        ('Cards come by post. The clerk said "it will be there', "ends inside a quotation"),
        ("Cards come by post. “It will be there", "ends inside '“'"),
        ("Run this:\n```\nprint(1)", "ends inside a code block"),
        ("1. Wait for five days.\n2. Look into the app.\n3. Then call the num", "ends without a full stop"),
        ("In most of the towns that we serve cards come by ordinary pos", "ends without a full stop"),
        ("卡会寄到您的地址。请您耐心等待五天左右，如果还没有收", "ends without a full stop"),
        ("Cards come by post within five days. The", "ends without a full stop"),
        ("Cards come by ordinary post within five days. Ot", "ends without a full stop"),
    ],
)
def test_truncated_says_how_an_answer_was_cut(text, problem, bank_example, free):
    english = free if text.isascii() or "“" in text else replace(free, task=free.task.model_copy(update={"language": "zh"}))
    reason = truncated(bank_example(completion=text), english)
    assert reason is not None
    assert problem in reason


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "It takes five days.",
        'He said "five days".',
        "- apples\n- pears\n- plums",
        "Roses are red\nViolets are blue\nSugar is sweet\nAnd so are you",
        "The board is 5'10\" long and costs a) 3 or b) 4 dollars :(".replace(" :(", "."),
        "Source for this: the annual report. National Cancer Institute",
        "It was said by many people in this country. Centers for Disease Control and Prevention",
        "SELECT name FROM cards WHERE state = 'lost' AND owner = id",
        "def add(x, y):\n    return x + y",
        "See the page: https://example.org/help",
        "```\nprint(1)\n```",
        "#### 6",
    ],
)
def test_truncated_passes_whole_answers_lists_verse_names_and_code(text, bank_example, free):
    assert truncated(bank_example(completion=text), free) is None


def test_truncated_leaves_json_to_the_schema_filter(bank_example, bank_context):
    assert truncated(bank_example(completion='{"intent":'), bank_context) is None


@pytest.mark.parametrize("name", ["repetition", "placeholder", "leak", "truncated", "refusal", "language", "pii"])
def test_a_text_filter_gives_a_reason_or_none_whatever_comes_in(
    name: str, bank_example: Callable[..., Example], free: FilterContext
) -> None:
    rng = random.Random(7)
    pieces = [
        "a",
        "the ",
        "[",
        "]",
        "(",
        '"',
        "“",
        "\n",
        "```",
        "{{",
        "}}",
        ".",
        "我",
        "。",
        "1",
        "07700 900123",
        "@",
        " ",
        "\u200b",
        "é",
        "As an AI, I ",
        "XXXX",
        "\t",
    ]
    for _ in range(300):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        reason = EXAMPLE_FILTERS[name](bank_example(text, completion=text or "x"), free)
        assert reason is None or ": " in reason


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
def test_truncated_finds_nine_in_ten_real_answers_that_were_cut_and_one_in_a_hundred_that_were_not(bank_example, free):
    path = Path(os.environ["REAL_DATA"]) / "medquad_300.jsonl"
    answers = [json.loads(line)["answer"].rstrip() for line in path.read_text().splitlines()]
    alarms = [text for text in answers if truncated(bank_example(completion=text), free)]
    assert len(alarms) <= 0.01 * len(answers)
    rng = random.Random(3)
    cut = [text[: rng.randrange(len(text) // 3, len(text) * 95 // 100)].rstrip() for text in answers if len(text) > 120 and text[-1] == "."]
    cut = [text for text in cut if text[-1] not in ".!?"]
    found = sum(truncated(bank_example(completion=text), free) is not None for text in cut)
    assert found >= 0.9 * len(cut)
