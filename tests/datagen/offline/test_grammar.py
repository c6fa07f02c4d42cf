import random

import pytest

from datagen.offline.grammar import compile_line, count, expand, slots_of, tidy, unwrap
from datagen.offline.knowledge import find_entities, say_when
from datagen.offline.messages import LABELS, grammar, sentence_with_facts, write, write_adversarial
from datagen.policy import parse_days


def test_a_line_makes_each_of_its_sentences():
    node = compile_line("(where|when) is <card>[ please]?")
    parts = {"card": compile_line("(my|the) card")}
    rng = random.Random(0)
    made = {expand(node, parts, rng, {}) for _ in range(300)}
    assert count(node, parts) == len(made) == 8
    assert "where is my card please?" in made


def test_a_given_slot_is_kept_from_changes():
    node = compile_line("it was {ago}")
    assert slots_of(node, {}) == {"ago"}
    text = expand(node, {}, random.Random(0), {"ago": "2 days ago"})
    assert "2 days ago" not in text
    assert unwrap(tidy(text)) == "It was 2 days ago"


@pytest.mark.parametrize("line", ["a (b", "a ) b", "[a|b", "a ] b"])
def test_an_unclosed_bracket_is_refused_with_the_line(line):
    with pytest.raises(ValueError, match="grammar line"):
        compile_line(line)


def test_every_leaf_has_lines_and_all_their_sentences_can_be_drawn():
    rng = random.Random(1)
    for leaf, lines in grammar().lines.items():
        assert len(lines) >= 30, leaf
        for line in lines:
            assert len(unwrap(tidy(expand(line.node, grammar().parts, rng, {})))) >= 5, line.text


def test_five_thousand_messages_are_distinct_and_most_are_one_short_sentence(drawn_dimensions):
    rng = random.Random(2)
    leaves = sorted(LABELS)
    messages = [write(leaves[i % len(leaves)], drawn_dimensions(rng), {}, rng) for i in range(5600)]
    assert len(set(messages)) >= 5000
    assert sum(len(text.split()) <= 14 for text in messages) / len(messages) >= 0.6


@pytest.mark.parametrize(
    ("leaf", "facts"),
    [
        ("payments/refund", {"days": "12 days ago"}),
        ("payments/cancel_transfer", {"days": "this morning"}),
        ("cash/withdrawal_not_recognised", {"amount": "£120"}),
        ("money/top_up_by_card", {"days": "2 weeks ago"}),
    ],
)
def test_stated_facts_can_be_read_back_from_the_message(leaf, facts, drawn_dimensions):
    rng = random.Random(3)
    for _ in range(200):
        found = find_entities(write(leaf, drawn_dimensions(rng) | {"complexity": "one_request"}, facts, rng))
        if "days" in facts:
            assert parse_days(found["when"]) == parse_days(facts["days"])
        else:
            assert found["amount"].strip("£ ").split()[0] == "120"


def test_facts_are_stated_even_where_no_line_has_a_place_for_them():
    rng = random.Random(4)
    for _ in range(100):
        found = find_entities(unwrap(sentence_with_facts("cards/contactless", rng, {"days": "5 days ago", "amount": "£10"})))
        assert parse_days(found["when"]) == 5
        assert found["amount"] in ("£10", "10 pounds")


def test_a_time_said_otherwise_is_the_same_number_of_days():
    rng = random.Random(5)
    for text in ("14 days ago", "a week ago", "2 days ago", "3 weeks ago", "yesterday", "today", "a month ago"):
        assert {parse_days(say_when(text, rng)) for _ in range(30)} == {parse_days(text)}


def test_entities_are_exact_substrings():
    rng = random.Random(6)
    for i in range(1000):
        leaf = sorted(LABELS)[i % len(LABELS)]
        text = write(leaf, {"channel": rng.choice(("chat", "email", "voice")), "difficulty": "typos"}, {}, rng)
        assert all(value in text for value in find_entities(text).values())


def test_the_finder_tells_sums_from_currencies():
    assert find_entities("I paid 40 euros at TESCO in madrid 3 days ago") == {
        "amount": "40 euros", "merchant": "TESCO", "when": "3 days ago", "place": "madrid",
    }  # fmt: skip
    assert find_entities("What is the rate for euros?") == {"currency": "euros"}
    assert find_entities("Where is my card?") == {}


def test_an_unknown_adversarial_kind_is_an_error():
    with pytest.raises(KeyError):
        write_adversarial("cards/pin", "riddle", {}, random.Random(0))
