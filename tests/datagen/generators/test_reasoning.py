"""Sampled reasoning: the majority or the verified sample is taken, what it costs is counted, one unreadable sample costs no other."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.config import load_recipe
from datagen.curate import judge_all
from datagen.errors import ConfigError
from datagen.filters import FilterContext
from datagen.generate import run_item
from datagen.generators.reasoning import said
from datagen.plan import calls_of, make_plan
from datagen.records import Draw, Example, PlanItem, Request, Several, Task
from datagen.taxonomy import Taxonomy

Make = Callable[..., Asker]
RIGHT = {"intent": "late", "entities": {}, "decision": "wait"}  # R2: no days are named


def item_of(shop: Taxonomy, samples: int, take: str) -> PlanItem:
    several = {"reasoning": Several(draws=(Draw(prompt="reason", role="teacher"),) * samples, take=take)}
    return make_plan(shop, {"reasoning": 1}, per_call=1, seed=1, seeds={}, replace_seeds=False, several=several)[0]


def answering(*answers: Any) -> Callable[[Request], str]:
    """Sample n is answered with the nth answer; a string is the whole text."""

    def script(request: Request) -> str:
        if request.prompt.startswith("write_inputs"):
            return '["my parcel is late"]'
        number = int(request.sample.rpartition("sample ")[2]) - 1 if "sample" in request.sample else 0
        answer = answers[number]
        return (
            answer if isinstance(answer, str) else json.dumps({"steps": [f"Step of sample {number}: late.", "R2: wait."], "answer": answer})
        )

    return script


def one(item: PlanItem, asker: Asker) -> Example:
    with asker.store.writing():
        outcome = asyncio.run(run_item(item, asker, judged=False))
    assert len(outcome.examples) == 1, outcome.error
    return outcome.examples[0]


def test_the_majoritys_first_sample_is_taken_with_its_share(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    teacher = scripted(answering({"intent": "broken"}, RIGHT, {**RIGHT, "entities": {"note": "parcel"}}))
    item = item_of(shop, 3, "agree")
    example = one(item, make_asker(teacher))
    assert example.reasoning == "Step of sample 1: late.\nR2: wait."
    assert example.scores == {"samples": 3.0, "agreement": pytest.approx(2 / 3)}
    assert len(teacher.requests) == calls_of(item, False) == 4
    assert len(set(example.calls)) == 4
    assert example.calls[-1] == teacher.requests[2].id, "the call that wrote the completion is last"


def test_without_a_majority_the_example_is_made_and_dropped(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    example = one(item_of(shop, 2, "agree"), make_asker(scripted(answering(RIGHT, {**RIGHT, "decision": "act"}))))
    context = FilterContext(task=shop.task, labels=shop.labels(), facts=shop.facts, policy=shop.policy)
    reasons = [v.reason for v in judge_all([example], {}, context) if not v.keep]
    assert reasons == ["agreement: 1 of 2 samples give this answer, more than 50% must"]


def test_the_first_sample_that_truth_does_not_contradict_is_verified(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    wrong = {**RIGHT, "decision": "act"}
    example = one(item_of(shop, 4, "verified"), make_asker(scripted(answering(wrong, wrong, RIGHT, wrong))))
    assert example.answer == RIGHT
    assert example.scores == {"samples": 4.0, "agreement": 0.25, "verified": 1.0}
    context = FilterContext(task=shop.task, labels=shop.labels(), facts=shop.facts, policy=shop.policy)
    assert not [v.reason for v in judge_all([example], {}, context) if not v.keep], "one right sample is enough"


def test_where_truth_contradicts_every_sample_the_filters_say_why(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    wrong = {**RIGHT, "decision": "act"}
    example = one(item_of(shop, 2, "verified"), make_asker(scripted(answering(wrong, wrong))))
    assert example.scores["verified"] == 0
    context = FilterContext(task=shop.task, labels=shop.labels(), facts=shop.facts, policy=shop.policy)
    reasons = [v.reason for v in judge_all([example], {}, context) if v.by == "filter:truth"]
    assert reasons == ["policy: decision is 'act', the rules say 'wait'"]


def test_an_unreadable_sample_agrees_with_nobody_and_costs_no_other(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    example = one(item_of(shop, 3, "agree"), make_asker(scripted(answering("no JSON", RIGHT, RIGHT)), attempts=1))
    assert example.scores["agreement"] == pytest.approx(2 / 3)


def test_an_input_whose_every_sample_is_unreadable_is_missing(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    asker = make_asker(scripted(answering("no JSON", "nor this")), attempts=1)
    with asker.store.writing():
        outcome = asyncio.run(run_item(item_of(shop, 2, "agree"), asker, judged=False))
    assert (outcome.status, outcome.problems[0].reason) == ("failed", "not JSON")


def test_one_sample_is_asked_as_ever_so_its_answers_are_found_again(shop: Taxonomy, make_asker: Make, scripted: Any) -> None:
    teacher = scripted(answering(RIGHT, RIGHT, RIGHT))
    plain = make_plan(shop, {"reasoning": 1}, per_call=1, seed=1, seeds={}, replace_seeds=False)[0]
    assert one(plain, make_asker(teacher)).scores == {}
    asker = make_asker(teacher)
    one(item_of(shop, 3, "agree"), asker)
    assert (asker.reused, asker.calls) == (2, 2)


@pytest.mark.parametrize(
    ("one_answer", "other", "agree"),
    [
        ("Paris.", " paris", True),
        ("1,200", "$1200.0", True),
        ("Paris", "Lyon", False),
        ({"intent": "late", "entities": {"a": "x"}}, {"intent": "late", "entities": {}}, True),
        ({"intent": "late", "decision": "act"}, {"intent": "late", "decision": "wait"}, False),
    ],
)
def test_two_answers_agree_in_what_decides(one_answer: Any, other: Any, agree: bool, shop: Taxonomy) -> None:
    assert (said(one_answer, shop.task) == said(other, shop.task)) is agree


def test_the_taxonomy_names_the_fields_that_must_agree(shop: Taxonomy) -> None:
    task: Task = shop.task.model_copy(update={"agreement_fields": ("decision",)})
    assert said({"intent": "late", "decision": "act"}, task) == said({"intent": "broken", "decision": "act"}, task)
    bare = shop.task.model_copy(update={"label_field": None, "decision_fields": ()})
    assert said({"a": 1, "b": 2}, bare) == said({"b": 2, "a": 1}, bare) != said({"a": 1}, bare)


RECIPE = "name: shop\ntaxonomy: shop.yaml\nmix: {reasoning: 8}\n"


def test_the_recipe_says_how_many_samples_and_which_is_taken(tmp_path: Any) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE + "teachers: {teacher: {model: test/big}}\nreasoning: {samples: 3, keep: verified}\n")
    several = load_recipe(path).recipe.several()["reasoning"]
    assert (len(several.draws), several.draws[0].prompt, several.take) == (3, "reason", "verified")
    path.write_text(RECIPE + "teachers: {teacher: {model: test/big, temperature: 0}}\nreasoning: {samples: 3}\n")
    with pytest.raises(ConfigError, match="temperature is 0: all would be the same"):
        load_recipe(path)
