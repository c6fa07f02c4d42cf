"""Set filters against repetition, and groups."""

import random
from dataclasses import replace

import pytest

from datagen.filters.dedup import duplicate, group_ids, near_duplicate
from datagen.records import Message

LONG = "I ordered a new debit card two weeks ago and it has still not come to my house in Leeds"
OTHER = "Can you tell me which exchange rate you use when I pay in euros on a Sunday evening abroad"


def by_id(examples):
    return sorted(examples, key=lambda example: example.id)


def test_duplicate_keeps_the_lowest_id_and_names_it(bank_example, bank_context):
    same = by_id([bank_example("Where is my card?", item_id=f"a:b:{i}") for i in range(3)])
    verdicts = duplicate(same, bank_context)
    assert [v.keep for v in verdicts] == [True, False, False]
    assert verdicts[2].reason == f"duplicate: same prompt as {same[0].id}"


def test_duplicate_forgets_case_and_punctuation_but_not_words(bank_example, bank_context):
    texts = ("Where is my card?", "where is my card", "Where is the card?")
    verdicts = duplicate(by_id([bank_example(text) for text in texts]), bank_context)
    assert sum(v.keep for v in verdicts) == 2


def test_duplicate_compares_whole_conversations(bank_example, bank_context):
    def talk(first):
        turns = (("user", first), ("assistant", "Did you look in the post?"), ("user", "yes"))
        return bank_example(prompt=tuple(Message(role=role, content=content) for role, content in turns))

    verdicts = duplicate(by_id([talk(LONG), talk(OTHER)]), bank_context)
    assert all(v.keep for v in verdicts)


def test_a_pair_and_a_plain_example_of_one_prompt_are_no_duplicates(bank_example, bank_context):
    both = by_id([bank_example(LONG), bank_example(LONG, rejected="{}")])
    assert all(v.keep for v in duplicate(both, bank_context) + near_duplicate(both, bank_context))


def test_near_duplicate_names_its_twin_and_the_exact_similarity(bank_example, bank_context):
    examples = by_id([bank_example(LONG), bank_example(LONG + " yet"), bank_example(OTHER)])
    verdicts = near_duplicate(examples, bank_context)
    twin, dropped = [e for e in examples if e.input != OTHER]
    assert [v.example_id for v in verdicts if not v.keep] == [dropped.id]
    assert [v.reason for v in verdicts if not v.keep] == [f"near_duplicate: 0.95 like {twin.id}"]


def test_near_duplicate_passes_texts_below_the_threshold(bank_example, bank_context):
    examples = by_id([bank_example(LONG), bank_example(LONG + " yet")])
    strict = replace(bank_context, settings={"near_duplicate": {"threshold": 0.95}})
    assert all(v.keep for v in near_duplicate(examples, strict))


def test_short_messages_have_near_duplicates_too(bank_example, bank_context):
    texts = ("my card is lost, help me", "My card is lost, help me pls", "change my pin")
    examples = by_id([bank_example(text) for text in texts])
    assert [v.keep for v in near_duplicate(examples, bank_context)].count(False) == 1


def test_what_a_person_accepted_survives_its_lower_twin(bank_example, bank_context):
    low, high = by_id([bank_example(LONG), bank_example(LONG + " yet")])
    verdicts = near_duplicate([low, high], replace(bank_context, pinned=frozenset({high.id})))
    assert [(v.example_id, v.keep) for v in verdicts] == [(low.id, False), (high.id, True)]


def test_a_twin_of_a_dropped_example_stays_when_it_is_far_from_all_that_were_kept(bank_example, bank_context):
    base = LONG.split()
    chain = [bank_example(" ".join(base[i : i + 14])) for i in range(4)]
    verdicts = near_duplicate(by_id(chain), bank_context)
    kept = {v.example_id for v in verdicts if v.keep}
    assert kept
    for verdict in verdicts:
        assert verdict.keep or verdict.reason.rsplit(" ", 1)[1] in kept


def test_the_order_of_arrival_changes_nothing(bank_example, bank_context):
    rng = random.Random(3)
    stock = (LONG + " " + OTHER).split()
    examples = [bank_example(" ".join(stock[i : i + 12 + i % 3])) for i in range(20)]
    first = (duplicate(examples, bank_context), near_duplicate(examples, bank_context), group_ids(examples))
    for _ in range(3):
        rng.shuffle(examples)
        assert (duplicate(examples, bank_context), near_duplicate(examples, bank_context), group_ids(examples)) == first


def test_groups_join_equal_prompts_near_ones_and_chains_of_them(bank_example):
    chain = [LONG, LONG + " yet it", LONG + " yet it seems so"]
    examples = [bank_example(text) for text in chain]
    pair = bank_example(LONG, rejected="{}")
    alone = bank_example(OTHER)
    groups = group_ids([*examples, pair, alone])
    family = {e.id for e in [*examples, pair]}
    assert {groups[id] for id in family} == {min(family)}
    assert groups[alone.id] == alone.id


@pytest.mark.parametrize("count", [0, 1])
def test_set_filters_take_empty_and_single_sets(count, bank_example, bank_context):
    examples = [bank_example()] * count
    assert len(duplicate(examples, bank_context)) == len(near_duplicate(examples, bank_context)) == len(group_ids(examples)) == count
