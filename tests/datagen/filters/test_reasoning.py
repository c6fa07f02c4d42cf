"""The filter on reasoning: length, tags, agreement, and steps that lead to their own answer."""

from dataclasses import replace

import pytest

from datagen.filters import FilterContext
from datagen.filters.adversarial import adversarial
from datagen.filters.reasoning import reasoning
from datagen.records import AdversarialKind

STEPS = 'The message asks for refund.\n"2 weeks ago" gives days = 14.\nR3 (days >= 10): urgency high, decision escalate.'
ANSWER = {"intent": "refund", "urgency": "high", "entities": {"when": "2 weeks ago"}, "decision": "escalate", "reason": "R3"}


@pytest.fixture
def reasoned(bank_example):
    def make(steps=STEPS, answer=None, **fields):
        return bank_example("No refund since 2 weeks ago", ANSWER if answer is None else answer, label="refund", reasoning=steps, **fields)

    return make


def test_steps_that_name_the_deciding_rule_pass(reasoned, bank_context, bank_example):
    assert reasoning(reasoned(), bank_context) is None
    assert reasoning(bank_example(), bank_context) is None


def test_an_earlier_rule_may_be_named_as_not_holding(reasoned, bank_context):
    assert reasoning(reasoned("It is about a refund.\nR2 wants days missing, so it does not hold.\nR3: escalate."), bank_context) is None


def test_steps_that_end_at_another_rule_than_decides_are_dropped(reasoned, bank_context):
    steps = "The message asks for refund.\nR3 may hold.\nR4: urgency low, decision wait."
    assert reasoning(reasoned(steps), bank_context) == "rule: the steps end at R4, R3 decides"


def test_steps_that_name_no_rule_are_dropped(reasoned, bank_context):
    assert reasoning(reasoned("The refund is late, so escalate."), bank_context) == "rule: the steps name no rule, R3 decides"


def test_a_label_that_no_step_states_comes_from_nowhere(reasoned, bank_context):
    steps = "The customer waits for money.\nR3: urgency high, decision escalate."
    assert reasoning(reasoned(steps), bank_context) == "answer: no step states intent 'refund'"


def test_a_decision_that_neither_a_step_nor_its_rule_states_is_dropped(reasoned, bank_context):
    answer = {**ANSWER, "decision": "block"}
    assert reasoning(reasoned(answer=answer), bank_context) == "answer: no step states decision 'block'"


def test_numbers_of_the_answer_stand_in_the_steps(bank_example, bank_task):
    task = bank_task.model_copy(update={"decision_fields": (), "label_field": None})
    context = FilterContext(task=task)
    assert reasoning(bank_example(answer={"total": 1200, "parts": [3.5]}, reasoning="1,200 in all, 3.5 each."), context) is None
    example = bank_example(answer={"total": 1200, "sure": True}, reasoning="It is 120 or so.")
    assert reasoning(example, context) == "answer: no step states the number 1200"


def test_length_is_bounded_by_the_recipe(reasoned, bank_context):
    context = replace(bank_context, settings={"reasoning": {"max_chars": 20}})
    assert reasoning(reasoned(), context) == f"reasoning_long: {len(STEPS)} characters, at most 20"


@pytest.mark.parametrize("tag", ["<think>", "</THINK>"])
def test_a_think_tag_inside_would_break_the_rendering(tag, reasoned, bank_context):
    reason = "think_tag: a <think> tag in the text itself, which no reader could take apart again"
    assert reasoning(reasoned(f"{STEPS}\n{tag}"), bank_context) == reason


@pytest.mark.parametrize(
    ("agreement", "reason"),
    [
        (2 / 3, None),
        (1 / 3, "agreement: 1 of 3 samples give this answer, more than 50% must"),
    ],
)
def test_a_majority_of_samples_must_agree(agreement, reason, reasoned, bank_context):
    assert reasoning(reasoned(scores={"samples": 3.0, "agreement": agreement}), bank_context) == reason


def test_half_is_no_majority_and_the_recipe_may_ask_for_less(reasoned, bank_context):
    example = reasoned(scores={"samples": 2.0, "agreement": 0.5})
    assert str(reasoning(example, bank_context)).startswith("agreement: 1 of 2")
    assert reasoning(example, replace(bank_context, settings={"reasoning": {"min_agreement": 0.4}})) is None


@pytest.mark.parametrize(
    ("completion", "steps", "reason"),
    [
        ("42", "Six times seven.\nThat makes 42.", None),
        ("The answer is 1,200 pounds.", "It is 1200 in all.", None),
        ("43", "That makes 42.", "answer: the last steps do not state 43"),
        ("Paris", "The capital of France is Paris.", None),
        ("Lyon", "The capital of France is Paris.", "answer: the last steps do not state 'Lyon'"),
        ("7", "7 at first.\nThen 8.\nThen 9.\nThen 10.", "answer: the last steps do not state 7"),
        ("Ring the surgery this morning and ask for the nurse, who can see the wound and dress it again.",
         "The wound should be seen and dressed by a nurse.", None),
        ("Ring the surgery this morning and ask for the nurse, who can see the wound and dress it again.",
         "Cats like fish.", "answer: 0 of its 8 words are in the steps"),
    ],
)  # fmt: skip
def test_a_texts_answer_is_in_sight_at_the_end_of_its_steps(completion, steps, reason, bank_example, text_task):
    assert reasoning(bank_example(completion=completion, reasoning=steps), FilterContext(task=text_task)) == reason


def test_what_does_not_parse_is_left_to_the_schema_filter(reasoned, bank_context):
    assert reasoning(reasoned(completion="{"), bank_context) is None


NASTY = [
    "",
    " ",
    "\ud800",
    "{",
    "[]",
    '{"intent": {"a": []}, "n": 1e999}',
    '{"n": ' + "9" * 400 + "}",
    "1,,2 -.5 1.2.3",
    "\n\n",
    "🙂" * 50,
    "R3" * 999,
]


@pytest.mark.parametrize("completion", NASTY)
@pytest.mark.parametrize("steps", NASTY)
def test_whatever_comes_in_is_a_reason_or_none(completion, steps, bank_example, bank_context, text_task):
    for context in (bank_context, FilterContext(task=text_task)):
        example = bank_example(completion=completion, reasoning=steps)
        assert isinstance(reasoning(example, context), str | None)
        for family in ("ambiguous", "harm", "rules", "injection", "failures"):
            kinds = {"hard": AdversarialKind(description="", family=family, then={"intent": ["a"]})}
            hard = bank_example(steps, completion=completion, kind="hard")
            assert isinstance(adversarial(hard, replace(context, kinds=kinds, failures=("x",))), str | None)
