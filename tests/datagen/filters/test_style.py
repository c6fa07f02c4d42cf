"""The style filter: off until it is asked for, then one test per feature, and groups that it leaves alone."""

from dataclasses import replace

import pytest

from datagen.filters import FilterContext
from datagen.filters.style import style
from datagen.records import Example

USUAL = "The card comes by post within five days. Please wait until then, and tell us when it has not come."


@pytest.fixture
def bound(text_task) -> FilterContext:
    return FilterContext(task=text_task, settings={"style": {"max_z": 6}})


@pytest.fixture
def usual(bank_example) -> list[Example]:
    return [bank_example(f"Where is my card number {number}, please?", completion=f"{USUAL} Ask for {number}.") for number in range(30)]


def reasons(examples: list[Example], context: FilterContext) -> dict[str, str | None]:
    return {verdict.example_id: verdict.reason for verdict in style(examples, context) if not verdict.keep}


def test_style_gives_no_verdict_until_a_recipe_sets_its_bound(usual, text_task):
    assert style(usual, FilterContext(task=text_task)) == []


@pytest.mark.parametrize(
    ("completion", "feature"),
    [
        (" ".join([USUAL] * 12), "completion's length is"),
        ("Yes.", "completion's length is"),
        (USUAL.replace(". ", " and ") * 1 + " and so on and on" * 4, "completion's length of sentence is"),
        ("Hey! Yeah, it's gonna come! Don't worry! It'll be cool! Ok? It's fine! You're good! Hi!", "completion's casual tone is"),
    ],
)
def test_style_names_feature_value_and_what_is_usual(completion, feature, usual, bank_example, bound):
    odd = bank_example("And where is mine, please, I ask?", completion=completion)
    (reason,) = reasons([*usual, odd], bound).values()
    assert reason.startswith(f"style: the {feature}")
    assert "is usual for topic and card_arrival (robust z " in reason


def test_style_compares_within_generator_and_label(usual, bank_example, bound):
    others = [bank_example(f"Is it {n}?", completion="Yes.", label="refund", item_id=f"other:{n}") for n in range(25)]
    assert not reasons([*usual, *others], bound)


def test_style_leaves_small_groups_alone(usual, bank_example, bound):
    odd = bank_example("And where is mine, please?", completion="Yes.")
    assert not reasons([*usual[:10], odd], bound)
    assert reasons([*usual[:10], odd], replace(bound, settings={"style": {"max_z": 6, "least": 5}}))


def test_style_reads_the_inputs_alone_where_answers_are_data(bank_example, bank_context):
    context = replace(bank_context, settings={"style": {"max_z": 6}})
    usual = [bank_example(f"Where is my card number {number}, please?") for number in range(30)]
    odd = bank_example("Where is my card? " * 20)
    assert [*reasons([*usual, odd], context)] == [odd.id]
