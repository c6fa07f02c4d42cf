"""The rule engine: facts read from words, conditions, first rule wins per field."""

import pytest

from datagen.policy import Fact, Rule, decide, holds, parse_days, parse_number, read_facts


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("3 days ago", 3), ("two weeks ago", 14), ("yesterday", 1), ("this morning", 0), ("a couple of days", 2), ("10 minutes", 0),
        ("a month ago", 30), ("last week", 7), ("a fortnight ago", 14), ("the day before yesterday", 2), ("recently", None), ("", None),
        ("sixty (60) days", 60), ("10 business days", 10), ("2 years", 730), ("twenty-four months", None),
    ],
)  # fmt: skip
def test_days_are_read_from_words(text: str, days: float | None) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize(("text", "number"), [("£1,200.50", 1200.5), ("40 euros", 40), ("some money", None)])
def test_numbers_are_read_from_sums(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("missing", None, True), ("missing", 1, False), ("known", 1, True), (">= 5", 5.0, True), ("< 5", 5.0, False),
        ("<= 5", 5.0, True), ("> 5", 6.0, True), ("== 5", 5.0, True), (">= 5", None, False), (["a", "b"], "b", True),
        (["a"], "b", False), ("a", "a", True), ("a", None, False),
    ],
)  # fmt: skip
def test_conditions_hold_as_written(condition: object, value: object, expected: bool) -> None:
    assert holds(condition, value) is expected


def test_the_first_rule_that_sets_a_field_wins() -> None:
    rules = (
        Rule(id="R1", when={"intent": "a"}, then={"urgency": "high"}),
        Rule(id="R2", when={"intent": "a"}, then={"urgency": "low", "decision": "wait"}),
        Rule(id="R3", when={"intent": "a"}, then={"urgency": "low"}),
    )
    assert decide(rules, {"intent": "a"}) == ({"urgency": "high", "decision": "wait"}, ["R1", "R2"])


def test_facts_that_are_not_stated_are_absent() -> None:
    facts = {"days": Fact(entity="when", parse="days"), "amount": Fact(entity="amount"), "who": Fact(entity="who", parse="text")}
    assert read_facts({"when": "2 days ago", "amount": "a lot", "who": "Ana"}, facts) == {"days": 2.0, "who": "Ana"}
