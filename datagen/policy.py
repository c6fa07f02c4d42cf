"""Ground truth by rules: which fields an answer must have, given its label and the facts that it states.

A taxonomy's `policy` is a list of rules read from the top. A rule whose `when` holds sets the fields of its `then`,
except those that an earlier rule has set already. Conditions: a value or a list of values for a field of the answer;
for a fact, a comparison ("< 10", ">= 500"), "known" or "missing". Facts are read from the answer's entities.
"""

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from datagen.records import Record

_COMPARISON = re.compile(r"^(<=|>=|<|>|==)\s*(-?\d+(?:\.\d+)?)$")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WORD_NUMBERS = {
    word: n
    for n, words in enumerate(
        [
            ["zero"], ["a", "an", "one"], ["two", "couple"], ["three"], ["four"], ["five"], ["six"], ["seven"],
            ["eight"], ["nine"], ["ten"], ["eleven"], ["twelve"], ["thirteen"], ["fourteen"],
        ]
    )
    for word in words
}  # fmt: skip
_DAY_WORDS = {
    "day before yesterday": 2.0, "yesterday": 1.0, "last night": 1.0, "today": 0.0, "tonight": 0.0, "this morning": 0.0,
    "this afternoon": 0.0, "this evening": 0.0, "just now": 0.0, "last week": 7.0, "last month": 30.0,
}  # fmt: skip
_DAYS_PER_UNIT = {"minute": 0.0, "hour": 0.0, "day": 1.0, "week": 7.0, "fortnight": 14.0, "month": 30.0, "year": 365.0}
# not the "four" of "twenty-four"; the "60" of "sixty (60) days"
_SPAN = re.compile(
    r"(?<![\w-])(\d+|"
    + "|".join(_WORD_NUMBERS)
    + r")\)?(?:\s+of)?\s+(?:business\s+|working\s+|calendar\s+)?("
    + "|".join(_DAYS_PER_UNIT)
    + r")s?\b",
    re.IGNORECASE,
)


class Rule(Record):
    """One row of the policy table."""

    id: str
    when: Mapping[str, Any]
    then: Mapping[str, Any]


class Fact(Record):
    """How a fact is read from an answer: the entity that states it, and how its text becomes a number."""

    entity: str
    parse: str = "number"  # number | days | text


def parse_number(text: str) -> float | None:
    """The first number in `text`: "£1,200.50" -> 1200.5."""
    found = _NUMBER.search(text)
    return float(found.group().replace(",", "")) if found else None


def parse_days(text: str) -> float | None:
    """How many days ago: "two weeks ago" -> 14, "yesterday" -> 1, "3 hours" -> 0. None where the text does not say."""
    lowered = text.lower()
    for words, days in _DAY_WORDS.items():
        if words in lowered:
            return days
    found = _SPAN.search(lowered)
    if not found:
        return None
    count = _WORD_NUMBERS.get(found.group(1))
    return (count if count is not None else int(found.group(1))) * _DAYS_PER_UNIT[found.group(2)]


def read_facts(entities: Mapping[str, str], facts: Mapping[str, Fact]) -> dict[str, float | str]:
    """The facts that `entities` state; a fact that is not stated or cannot be read is absent."""
    read: dict[str, float | str] = {}
    for name, fact in facts.items():
        text = entities.get(fact.entity)
        if not text:
            continue
        value = {"days": parse_days, "number": parse_number}.get(fact.parse, str)(text)
        if value is not None:
            read[name] = value
    return read


def holds(condition: Any, value: Any) -> bool:
    """Whether one condition of a rule holds for a value (None = not stated)."""
    if condition == "missing":
        return value is None
    if condition == "known":
        return value is not None
    if isinstance(condition, (list, tuple)):
        return value in condition
    comparison = _COMPARISON.match(str(condition))
    if comparison:
        if not isinstance(value, (int, float)):
            return False
        operator, bound = comparison.group(1), float(comparison.group(2))
        return {
            "<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound, "==": value == bound,
        }[operator]  # fmt: skip
    return bool(value == condition)


def decide(rules: tuple[Rule, ...], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields that the policy demands for `values` (label field and facts), and the ids of the rules that set them."""
    fields: dict[str, Any] = {}
    used: list[str] = []
    for rule in rules:
        if all(holds(condition, values.get(name)) for name, condition in rule.when.items()):
            new = {field: value for field, value in rule.then.items() if field not in fields}
            if new:
                fields.update(new)
                used.append(rule.id)
    return fields, used


def bearing(rules: tuple[Rule, ...], values: Mapping[str, Any], label_field: str | None) -> list[str]:
    """The ids of the rules with a condition on a fact that hold for `values`: of several, the first decides and the others give way."""
    return [
        rule.id
        for rule in rules
        if rule.when.keys() - {label_field} and all(holds(condition, values.get(name)) for name, condition in rule.when.items())
    ]


def meeting(rules: tuple[Rule, ...], label_field: str | None, label: str | None) -> list[tuple[Rule, Rule]]:
    """Pairs of rules that one input of a label can bring to bear at once, because their conditions are on different facts."""
    near = [rule for rule in rules if label_field is None or label_field not in rule.when or holds(rule.when[label_field], label)]
    facts = {rule.id: rule.when.keys() - {label_field} for rule in near}
    return [
        (one, other) for one, other in combinations(near, 2) if facts[one.id] and facts[other.id] and not facts[one.id] & facts[other.id]
    ]
