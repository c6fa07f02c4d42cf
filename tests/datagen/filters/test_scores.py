"""The judge filter: one test per reason, one that passes."""

from dataclasses import replace

from datagen.filters.scores import judge
from datagen.records import Criterion, Rubric


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


RUBRIC = Rubric(criteria={"accuracy": Criterion(description="true", weight=3), "tone": Criterion(description="warm")})


def judged(bank_example, accuracy, tone):
    return bank_example(scores={"judge_accuracy": accuracy, "judge_tone": tone})


def test_judge_holds_each_criterion_of_a_rubric_to_its_bound(bank_example, bank_context):
    context = replace(bank_context, rubric=RUBRIC, settings={"judge": {"min": 4, "min_tone": 2}})
    assert judge(judged(bank_example, 5, 2), context) is None
    assert judge(judged(bank_example, 5, 1), context) == "judge_tone: scored 1, at least 2"
    assert judge(judged(bank_example, 3, 5), context) == "judge_accuracy: scored 3, at least 4"


def test_judge_weighs_the_mean_of_a_rubric(bank_example, bank_context):
    context = replace(bank_context, rubric=RUBRIC, settings={"judge": {"min": 1, "min_mean": 4}})
    assert judge(judged(bank_example, 5, 1), context) is None
    assert judge(judged(bank_example, 4, 3), context) == "judge_mean: scored 3.75 on average, at least 4"


def test_judge_says_when_scores_are_an_earlier_rubrics(bank_example, bank_context):
    context = replace(bank_context, rubric=RUBRIC)
    assert judge(bank_example(scores={"judge_answer": 5}), context).startswith("judge_missing: no score for accuracy, tone")
    assert judge(bank_example(scores={"chosen_margin": 1}), context) is None
