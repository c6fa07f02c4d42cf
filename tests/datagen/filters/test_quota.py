"""Filters of a data set with targets: another data set's rows, inputs near their seed, rows beyond the target."""

from collections.abc import Callable
from dataclasses import replace

from datagen.filters import FilterContext
from datagen.filters.context import EarlierRow
from datagen.filters.quota import earlier, quota, too_near_seed
from datagen.records import Example

Make = Callable[..., Example]
LONG = "My new card was posted two weeks ago and it has not arrived at my house yet, where is it now and what do I do?"
NEAR = LONG.replace("My new", "Our new")


def kept(verdicts: list, example: Example) -> bool:
    return all(verdict.keep for verdict in verdicts if verdict.example_id == example.id)


def test_what_another_data_set_kept_is_not_repeated(bank_example: Make, bank_context: FilterContext) -> None:
    same, near, other = bank_example(LONG.upper()), bank_example(NEAR), bank_example("How do I change the limit of my savings account?")
    context = replace(bank_context, earlier=[EarlierRow("old", False, LONG)])
    verdicts = earlier([same, near, other], context)
    assert [kept(verdicts, example) for example in (same, near, other)] == [False, False, True]
    reasons = {verdict.example_id: verdict.reason for verdict in verdicts}
    assert reasons[same.id] == "earlier: same prompt as old of another data set"
    assert str(reasons[near.id]).startswith("earlier: 0.92 like old")


def test_a_pair_and_a_plain_example_of_another_data_set_are_no_twins(bank_example: Make, bank_context: FilterContext) -> None:
    context = replace(bank_context, earlier=[EarlierRow("old", True, LONG)])
    assert earlier([bank_example(LONG)], context) == []
    assert not kept(earlier([bank_example(LONG, rejected="no")], context), bank_example(LONG, rejected="no"))


def test_a_copy_of_the_seed_and_a_copy_of_a_sibling_are_dropped(bank_example: Make, bank_context: FilterContext) -> None:
    items = [f"cards/arrival:seed:{number}" for number in range(4)]
    seeds = dict.fromkeys(items[:3], LONG) | {items[3]: "another seed"}
    context = replace(bank_context, seeds=seeds, settings={"too_near_seed": {"seed": 0.7, "sibling": 0.7}})
    text = "I ordered a card for my son, it was due on Friday, and nobody can tell me in which depot it is lying at the moment."
    copy = bank_example(NEAR, item_id=items[0], generator="seed")
    one, two = (
        bank_example(text.replace("son", who), item_id=item, generator="seed") for who, item in (("son", items[1]), ("wife", items[2]))
    )
    cousin = bank_example(text.replace("son", "aunt"), item_id=items[3], generator="seed")
    verdicts = too_near_seed([copy, one, two, cousin], context)
    assert not kept(verdicts, copy)
    assert kept(verdicts, one) != kept(verdicts, two)
    assert kept(verdicts, cousin)
    assert {str(verdict.reason).partition(":")[0] for verdict in verdicts if not verdict.keep} == {"too_near_seed"}


def test_without_bounds_or_targets_nothing_is_said(bank_example: Make, bank_context: FilterContext) -> None:
    example = bank_example(LONG)
    context = replace(bank_context, seeds={example.item_id: LONG})
    assert too_near_seed([example], context) == quota([example], context) == earlier([example], context) == []


def test_rows_beyond_the_target_are_dropped_the_latest_items_first(bank_example: Make, bank_context: FilterContext) -> None:
    examples = [bank_example(f"{LONG} {number}", item_id=f"cards/arrival:topic:{number}") for number in (0, 2, 10)]
    context = replace(bank_context, targets={("cards/arrival", "topic"): 2})
    assert [kept(quota(examples, context), example) for example in examples] == [True, True, False]
    assert {verdict.reason for verdict in quota(examples, context) if not verdict.keep} == {"quota: the cell has its 2 rows"}


def test_a_row_that_a_person_accepted_goes_before_the_others(bank_example: Make, bank_context: FilterContext) -> None:
    examples = [bank_example(f"{LONG} {number}", item_id=f"cards/arrival:topic:{number}") for number in (0, 1)]
    context = replace(bank_context, targets={("cards/arrival", "topic"): 1}, pinned=frozenset([examples[1].id]))
    assert [kept(quota(examples, context), example) for example in examples] == [False, True]
