"""The judge filter: one test per reason, one that passes."""

from dataclasses import replace

from datagen.filters.scores import judge


def test_judge_drops_an_answer_below_the_bound(bank_example, bank_context):
    assert judge(bank_example(scores={"judge_answer": 3}), bank_context) == "judge_answer: scored 3, at least 4"


def test_judge_drops_an_input_below_the_bound(bank_example, bank_context):
    assert judge(bank_example(scores={"judge_answer": 5, "judge_input": 2}), bank_context) == "judge_input: scored 2, at least 3"


def test_judge_bounds_come_from_the_recipe(bank_example, bank_context):
    strict = replace(bank_context, settings={"judge": {"min": 5}})
    assert judge(bank_example(scores={"judge_answer": 4}), strict) == "judge_answer: scored 4, at least 5"


def test_judge_passes_good_scores_and_missing_ones(bank_example, bank_context):
    assert judge(bank_example(scores={"judge_answer": 4, "judge_input": 3}), bank_context) is None
    assert judge(bank_example(), bank_context) is None
