"""Filters on truth and on preference pairs: one test per reason, one that passes."""

import json
from dataclasses import replace

import pytest

from datagen.filters import FilterContext
from datagen.filters.truth import preference, truth

ARRIVAL = {"intent": "card_arrival", "urgency": "normal", "entities": {}}


def refund(entities, **fields):
    return {"intent": "refund", "entities": entities, **fields}


def test_truth_compares_the_label_with_what_was_asked(bank_example, bank_context):
    example = bank_example(answer={**ARRIVAL, "intent": "lost_card"})
    assert truth(example, bank_context) == "label: asked card_arrival, answered lost_card"


def test_truth_refuses_a_label_that_does_not_exist_even_where_none_was_asked(bank_example, bank_context):
    example = bank_example(answer={**ARRIVAL, "intent": "mortgage"}, label=None)
    assert truth(example, bank_context) == "label: answered mortgage, which is none of the labels"
    assert truth(bank_example(label=None), bank_context) is None


@pytest.mark.parametrize("value", ["Lidl", "tesco", "", 3])
def test_truth_wants_entities_that_the_input_holds_letter_by_letter(value, bank_example, bank_context):
    example = bank_example("Where is the card I used at Tesco?", {**ARRIVAL, "entities": {"merchant": value}})
    assert truth(example, bank_context) == f"entities: merchant {value!r} does not occur in the input"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            refund({"when": "2 weeks ago"}, urgency="low", decision="wait", reason="R4"),
            "policy: urgency is 'low', the rules say 'high'",
        ),
        (
            refund({"when": "2 weeks ago"}, urgency="high", decision="escalate", reason="R4"),
            "policy: reason is 'R4', the rules say 'R3'",
        ),
        (refund({"when": "2 weeks ago"}, urgency="high", reason="R3"), "policy: decision is absent, the rules say 'escalate'"),
        (
            refund({"when": "2 weeks ago"}, urgency="high", decision="escalate", reason="R3", ask="when"),
            "policy: ask is 'when', the rules say absent",
        ),
        (
            refund({}, urgency="high", decision="escalate", reason="R3"),
            "policy: urgency is 'high', the rules say 'normal'",
        ),
    ],
)
def test_truth_holds_the_policy_against_the_facts_that_the_answer_states(answer, reason, bank_example, bank_context):
    assert truth(bank_example("No refund since 2 weeks ago", answer, label="refund"), bank_context) == reason


def test_truth_refuses_a_field_that_is_present_and_null(bank_example, bank_context):
    example = bank_example(answer={**ARRIVAL, "ask": None})
    assert truth(example, bank_context) == "policy: ask is None, the rules say absent"


def test_truth_passes_an_answer_that_follows_the_policy(bank_example, bank_context):
    answer = refund({"when": "2 weeks ago"}, urgency="high", decision="escalate", reason="R3")
    assert truth(bank_example("No refund since 2 weeks ago", answer, label="refund"), bank_context) is None


def test_truth_finds_forbidden_words_in_values(bank_example, bank_context):
    example = bank_example("my pin is wrong", {**ARRIVAL, "entities": {"merchant": "pin"}})
    assert truth(example, bank_context) == "forbidden: 'PIN' in 'pin'"


def test_truth_lets_a_forbidden_word_be_part_of_another(bank_example, bank_context):
    example = bank_example("the shopping in Pinner", {**ARRIVAL, "entities": {"place": "Pinner"}})
    assert truth(example, bank_context) is None


def test_truth_leaves_what_does_not_parse_to_the_schema_filter(bank_example, bank_context):
    assert truth(bank_example(completion="{"), bank_context) is None


def test_truth_checks_free_text_for_forbidden_words_only(bank_example, text_task):
    context = FilterContext(task=text_task)
    assert truth(bank_example(completion="Tell me your pin."), context) == "forbidden: 'PIN' in 'Tell me your pin.'"
    assert truth(bank_example(completion="It is on its way."), context) is None


def pair(bank_example, rejected, margin: float | None = 1.0, **fields):
    scores = {} if margin is None else {"chosen_margin": margin}
    rejected = rejected if isinstance(rejected, str) else json.dumps(rejected)
    return bank_example(rejected=rejected, scores=scores, **fields)


def test_preference_passes_a_wrong_rejected_answer_with_a_margin_or_known_truth(bank_example, bank_context):
    wrong = {**ARRIVAL, "intent": "lost_card"}
    assert preference(pair(bank_example, wrong), bank_context) is None
    assert preference(pair(bank_example, wrong, margin=None), bank_context) is None
    assert preference(pair(bank_example, '{"intent":"card_arrival","urgency":"normal","entities":{}'), bank_context) is None
    assert preference(bank_example(), bank_context) is None


def test_preference_refuses_an_empty_rejected_answer(bank_example, bank_context):
    assert preference(pair(bank_example, "  "), bank_context) == "rejected_empty: the rejected answer is empty"


def test_preference_refuses_a_rejected_answer_that_only_differs_in_spacing(bank_example, bank_context):
    rejected = json.dumps(ARRIVAL, indent=2)
    assert preference(pair(bank_example, rejected), bank_context) == "rejected_same: the rejected answer equals the chosen one"


@pytest.mark.parametrize("margin", [0.0, -1.0])
def test_preference_refuses_ties_and_losses(margin, bank_example, bank_context):
    reason = preference(pair(bank_example, {**ARRIVAL, "intent": "lost_card"}, margin), bank_context)
    assert reason == f"margin: the judge's margin is {margin:g}, must be above 0"


def test_preference_refuses_a_rejected_answer_that_is_right_too(bank_example, bank_context):
    text = "Where is the card I used at Tesco?"
    rejected = {**ARRIVAL, "entities": {"merchant": "Tesco"}}
    reason = preference(pair(bank_example, rejected, text=text), bank_context)
    assert reason == "rejected_right: the rejected answer is also right"


def test_preference_wants_a_margin_where_nothing_is_known(bank_example, text_task, bank_context):
    reason = "margin: neither a judge nor known truth says which answer is better"
    free = FilterContext(task=text_task)
    assert preference(pair(bank_example, "No.", None, completion="Yes."), free) == reason
    assert preference(pair(bank_example, "No.", 0.5, completion="Yes."), free) is None
    assert preference(pair(bank_example, "Your PIN?", None, completion="Yes."), free) is None
    other = {**ARRIVAL, "intent": "out_of_scope"}
    assert preference(pair(bank_example, other, None, label=None), bank_context) == reason


def test_the_same_data_in_another_order_is_the_same_answer(bank_example, bank_context):
    rejected = json.dumps(dict(reversed(list(ARRIVAL.items()))))
    assert preference(pair(bank_example, rejected), bank_context) == "rejected_same: the rejected answer equals the chosen one"


def test_a_refusal_is_no_plausible_answer_unless_the_recipe_says_so(bank_example, text_task):
    refused = pair(bank_example, "I'm sorry, but I can't help with that.", completion="It is on its way.")
    assert str(preference(refused, FilterContext(task=text_task))).startswith("rejected_refusal: the rejected answer begins with")
    assert preference(refused, FilterContext(task=text_task, settings={"preference": {"rejected_refusal": 0}})) is None


def test_a_broken_rejected_answer_goes_where_the_recipe_wants_plausible_ones(bank_example, bank_context):
    strict = replace(bank_context, settings={"preference": {"rejected_valid": 1}})
    assert str(preference(pair(bank_example, '{"intent":'), strict)).startswith("rejected_broken: ")
    assert "is a required property" in str(preference(pair(bank_example, {"intent": "lost_card"}), strict))
    assert preference(pair(bank_example, {**ARRIVAL, "intent": "lost_card"}), strict) is None


def test_lengths_may_differ_as_far_as_the_recipe_says(bank_example, text_task):
    short = pair(bank_example, "No.", completion="It is on its way, and it will be with you by Friday at the latest.")
    assert preference(short, FilterContext(task=text_task)) is None
    bounded = FilterContext(task=text_task, settings={"preference": {"max_length_ratio": 3}})
    assert preference(short, bounded) == "length_ratio: 66 characters against 3, at most 3 times as many"


def test_a_weak_models_answer_is_chosen_only_where_known_truth_agrees(bank_example, bank_context, text_task):
    scores = {"chosen_margin": 1.0, "chosen_is_weak": 1.0}
    known = bank_example(rejected=json.dumps({**ARRIVAL, "intent": "lost_card"}), scores=scores)
    assert preference(known, bank_context) is None
    unknown = bank_example(completion="Yes.", rejected="No.", scores=scores)
    reason = "chosen_is_weak: the judge prefers the weak model's answer, and no known truth agrees"
    assert preference(unknown, FilterContext(task=text_task)) == reason
