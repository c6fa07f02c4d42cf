"""A second teacher: its agreement is a score, bought once; what it cannot answer costs no example."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from datagen.ask import Asker
from datagen.config import ModelConfig, Teachers
from datagen.filters.scores import agreement as agreement_filter
from datagen.forecast import forecast
from datagen.generate import generate
from datagen.plan import asks_of, calls_of, count_calls, make_plan
from datagen.prices import TokenPrices
from datagen.records import PlanItem, Request
from datagen.second import agreement
from datagen.store import Store
from datagen.taxonomy import Taxonomy

RIGHT = {"intent": "late", "entities": {}, "decision": "wait"}


@pytest.fixture
def items(shop: Taxonomy) -> list[PlanItem]:
    return make_plan(shop, {"topic": 8, "preference": 4}, per_call=4, seed=1, seeds={}, replace_seeds=False)


def run(items: list[PlanItem], asker: Asker) -> Any:
    with asker.store.writing():
        return asyncio.run(generate(items, asker, asker.store, judged=True, concurrency=4, progress=lambda item, status: None))


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        (RIGHT, RIGHT, 1.0),
        (RIGHT, {**RIGHT, "intent": "broken"}, 0.0),
        (RIGHT, {**RIGHT, "decision": "act"}, 2 / 3),
        (RIGHT, {"intent": "Late ", "entities": {}}, 2 / 3),
        ({}, {}, 1.0),
        ("the cat sat", "The cat, sat!", 1.0),
        ("the cat sat", "a dog", 0.0),
        ("the cat", "the dog", 0.5),
        ("?", "?", 1.0),
        ("?", "a", 0.0),
        (["a", {"B": "x"}], ["a", {"B": "x"}], 1.0),
    ],
)
def test_agreement_is_of_labels_then_fields_or_of_words(one: Any, other: Any, score: float) -> None:
    assert agreement(one, other, "intent") == pytest.approx(score)
    assert agreement({"x": [one]}, {"x": [other]}) in (0.0, 1.0)


def test_every_example_is_answered_again_and_a_rerun_asks_nothing(
    items: list[PlanItem], make_asker: Callable[..., Asker], roles: dict[str, ModelConfig], scripted: Any, script: Any, store: Store
) -> None:
    roles["second"] = ModelConfig(model="test/other")

    def answer(request: Request) -> str:
        if request.role == "second":
            return json.dumps({**RIGHT, "decision": "act"})
        return str(script(request))

    teacher = scripted(answer)
    report = run(items, make_asker(teacher))
    assert report.failed == 0
    examples = store.current_examples()
    assert {example.scores["second_agreement"] for example in examples} == {0.6667}
    seconds = [request for request in teacher.requests if request.role == "second"]
    assert len(seconds) == len(examples) == 12
    assert {request.model for request in seconds} == {"test/other"}
    assert count_calls(items, True, True) == len(teacher.requests)
    assert [example.calls[-1] for example in examples] != [example.calls[0] for example in examples]
    again = scripted(answer)
    assert run(items, make_asker(again)).calls == 0
    assert not again.requests


def test_a_second_teacher_that_cannot_be_read_costs_no_example(
    items: list[PlanItem], make_asker: Callable[..., Asker], roles: dict[str, ModelConfig], scripted: Any, script: Any, store: Store
) -> None:
    roles["second"] = ModelConfig(model="test/other")
    run(items, make_asker(scripted(lambda request: "well" if request.role == "second" else script(request))))
    assert len(store.current_examples()) == 12
    assert not any("second_agreement" in example.scores for example in store.current_examples())


def test_the_plan_and_the_forecast_count_it(
    items: list[PlanItem], make_asker: Callable[..., Asker], roles: dict[str, ModelConfig], scripted: Any, script: Any
) -> None:
    plain = count_calls(items, True)
    assert count_calls(items, True, True) == plain + 12
    assert calls_of(items[0].model_copy(update={"count": 4, "generator": "topic", "kind": None}), True, True) == 13
    assert [(ask.prompt, ask.role) for ask in asks_of(items[0], False, True)][-1] == ("answer", "second")
    roles["second"] = ModelConfig(model="test/other")
    prices = dict.fromkeys(roles, TokenPrices(1e-6, 1e-6, 1e-6, 1e-6))
    left = {item.id: float(item.count) for item in items}
    assert forecast(items, left, make_asker(scripted(script)), prices, judged=True, concurrency=1).calls.mean == pytest.approx(plain + 12)


def test_it_is_asked_where_the_recipe_names_it() -> None:
    big = ModelConfig(model="test/big")
    assert set(Teachers(teacher=big).by_role()) == {"teacher", "weak", "judge"}
    assert Teachers(teacher=big, second=ModelConfig(model="test/other")).by_role()["second"].model == "test/other"


def test_the_filter_drops_what_the_second_contradicts(bank_example: Any, bank_context: Any) -> None:
    assert agreement_filter(bank_example(), bank_context) is None
    assert agreement_filter(bank_example(scores={"second_agreement": 0.3}), bank_context) is None
    assert (
        agreement_filter(bank_example(scores={"second_agreement": 0}), bank_context) == "agreement: 0 with the second teacher, at least 0.3"
    )
    strict = replace(bank_context, settings={"agreement": {"min": 1}})
    assert (
        agreement_filter(bank_example(scores={"second_agreement": 0.75}), strict) == "agreement: 0.75 with the second teacher, at least 1"
    )
