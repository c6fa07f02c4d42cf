"""The judge with a rubric: asked once by its own prompt, a score for each criterion, stored with the example."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.config import Recipe
from datagen.curate import check_settings
from datagen.errors import ConfigError, ParseError
from datagen.forecast import forecast, worst_case_usd
from datagen.generate import generate
from datagen.parse import scores_of
from datagen.plan import make_plan
from datagen.prices import TokenPrices
from datagen.prompts import check_prompts, render
from datagen.records import Criterion, Request, Rubric
from datagen.store import Store
from datagen.taxonomy import Taxonomy

RUBRIC = Rubric(
    criteria={
        "accuracy": Criterion(description="what it says is true", anchors={1: "wrong", 5: "all of it is true"}, weight=2),
        "tone": Criterion(description="warm and calm"),
    }
)


@pytest.fixture
def rubric_script(script: Any) -> Callable[[Request], str]:
    def answer(request: Request) -> str:
        return '{"reasons": {}, "accuracy": 4, "tone": 3}' if request.prompt.startswith("judge_rubric") else script(request)

    return answer


def ask_all(shop: Taxonomy, asker: Asker, mix: dict[str, int]) -> None:
    items = make_plan(shop, mix, per_call=4, seed=1, seeds={}, replace_seeds=False)
    with asker.store.writing():
        asyncio.run(generate(items, asker, asker.store, judged=True, concurrency=2, progress=lambda item, status: None))


def test_every_criterion_has_its_score_and_a_rerun_asks_nothing(
    shop: Taxonomy, make_asker: Any, scripted: Any, rubric_script: Any, store: Store
) -> None:
    teacher = scripted(rubric_script)
    for _ in range(2):
        asker = make_asker(teacher)
        asker.variables["rubric"] = RUBRIC
        ask_all(shop, asker, {"topic": 4})
    assert {tuple(sorted(e.scores.items())) for e in store.current_examples()} == {(("judge_accuracy", 4.0), ("judge_tone", 3.0))}
    assert asker.calls == 0
    judged = [request for request in teacher.requests if request.role == "judge"]
    assert len(judged) == 4
    assert (
        "Criterion accuracy: what it says is true\n  5 = all of it is true\n  1 = wrong\nCriterion tone: warm and calm"
        in judged[0].messages[0].content
    )


def test_without_a_rubric_the_judge_is_asked_as_ever(shop: Taxonomy, make_asker: Any, scripted: Any, script: Any) -> None:
    teacher = scripted(script)
    ask_all(shop, make_asker(teacher), {"topic": 4})
    assert {request.prompt.split("@")[0] for request in teacher.requests if request.role == "judge"} == {"judge"}


def test_a_score_that_is_missing_or_out_of_range_is_named() -> None:
    parse = scores_of(RUBRIC.criteria)
    assert parse('{"reasons": {}, "accuracy": 5, "tone": 1}') == {"accuracy": 5.0, "tone": 1.0}
    with pytest.raises(ParseError, match="`tone` is None, not a number from 1 to 5"):
        parse('{"accuracy": 5}')
    with pytest.raises(ParseError, match="`accuracy` is 6"):
        parse('{"accuracy": 6, "tone": 1}')


@pytest.mark.parametrize(
    ("rubric", "message"),
    [
        ({"criteria": {}}, "at least 1 item"),
        ({"criteria": {"Tone": {"description": "x"}}}, "pattern"),
        ({"criteria": {"tone": {"description": "x", "anchors": {6: "y"}}}}, "less than or equal to 5"),
        ({"criteria": {"tone": {"description": "x", "weight": 0}}}, "every criterion has weight 0"),
        ({"criteria": {"mean": {"description": "x"}}}, "criteria must not be called mean"),
    ],
)
def test_a_rubric_that_cannot_be_scored_is_refused(rubric: dict[str, Any], message: str) -> None:
    recipe = {"name": "x", "taxonomy": "t.yaml", "teachers": {"teacher": {"model": "m"}}, "mix": {"topic": 1}, "rubric": rubric}
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(recipe)


def test_a_rubrics_prompt_is_checked_before_anybody_is_asked(shop: Taxonomy, make_asker: Any, scripted: Any, script: Any) -> None:
    variables = make_asker(scripted(script)).variables
    items = make_plan(shop, {"topic": 4}, per_call=4, seed=1, seeds={}, replace_seeds=False)
    check_prompts({**variables, "rubric": RUBRIC}, items)
    with pytest.raises(ConfigError, match="there is no prompt 'judge_medical'"):
        check_prompts({**variables, "rubric": RUBRIC.model_copy(update={"prompt": "medical"})}, items)


def test_a_rubrics_bounds_are_settings_of_the_judge() -> None:
    check_settings({"judge": {"min_tone": 3, "min_mean": 3.5}}, Path("recipe.yaml"), RUBRIC)
    with pytest.raises(ConfigError, match=r"filters\.judge\.min_tome is not a setting\. Did you mean 'min_tone'\?"):
        check_settings({"judge": {"min_tome": 3}}, Path("recipe.yaml"), RUBRIC)
    with pytest.raises(ConfigError, match=r"filters\.judge\.min_input is not a setting"):
        check_settings({"judge": {"min_input": 3}}, Path("recipe.yaml"), RUBRIC)


def test_a_forecast_and_a_pilots_cap_are_of_the_rubrics_prompt(shop: Taxonomy, make_asker: Any, scripted: Any, script: Any) -> None:
    items = make_plan(shop, {"topic": 4}, per_call=4, seed=1, seeds={}, replace_seeds=False)
    prices = dict.fromkeys(("teacher", "weak", "judge"), TokenPrices(1e-6, 5e-7, 1e-6, 1e-5))
    usd, worst = [], []
    for rubric in (None, RUBRIC):
        asker = make_asker(scripted(script))
        asker.variables["rubric"] = rubric
        usd.append(forecast(items, {item.id: 4.0 for item in items}, asker, prices, judged=True, concurrency=2).usd.mean)
        length = type("Length", (), {"worst_case_usd": lambda self, request: float(sum(len(m.content) for m in request.messages))})()
        worst.append(worst_case_usd(items, asker, length, judged=True))
    assert usd[1] > usd[0]
    assert worst[1] > worst[0]


def test_the_judges_prompt_of_the_demo_is_what_it_was(shop: Taxonomy) -> None:
    ref, _ = render("judge", {"task": shop.task, "labels": {}, "policy": [], "input": "x", "answer": "y"})
    assert ref == "judge@42ba35ea"
