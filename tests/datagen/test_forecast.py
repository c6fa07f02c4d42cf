"""What a run will take: totals with intervals that hold, from history or from prompt lengths; and how far a run is."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from datagen import forecast as ahead
from datagen.ask import Asker
from datagen.config import Limits, ModelConfig, Price
from datagen.errors import ConfigError
from datagen.plan import count_calls, make_plan
from datagen.prices import TokenPrices
from datagen.progress import Watch, between
from datagen.records import Draw, PlanItem, Several
from datagen.store import Store
from datagen.taxonomy import Taxonomy

PRICES = dict.fromkeys(("teacher", "weak", "judge"), TokenPrices(1e-6, 5e-7, 1e-6, 1e-5))


@pytest.fixture
def items(shop: Taxonomy) -> list[PlanItem]:
    mix = {"seed": 8, "topic": 16, "adversarial": 8, "reasoning": 8, "preference": 8}
    return make_plan(shop, mix, per_call=4, seed=1, seeds={}, replace_seeds=False)


def everything(items: list[PlanItem]) -> dict[str, float]:
    return {item.id: float(item.count) for item in items}


def test_without_history_the_calls_are_the_plans_and_the_rest_is_half_to_double(
    items: list[PlanItem], make_asker: Callable[..., Asker]
) -> None:
    asker = make_asker(ahead.nobody())
    assert ahead.open_inputs(items, asker, judged=True) == everything(items)
    told = ahead.forecast(items, everything(items), asker, PRICES, judged=True, concurrency=4)
    assert told.calls.mean == pytest.approx(count_calls(items, True), rel=0.05)
    assert 0 < told.usd.low < told.usd.mean < told.usd.high
    for part in told.parts:
        assert (part.basis, part.prompt_tokens.high) == (0, pytest.approx(4 * part.prompt_tokens.low))
    assert told.batch_usd is None
    assert {part["generator"] for part in told.as_json()["generators"]} == {item.generator for item in items}


def test_several_answers_to_each_input_are_counted_to_the_call(shop: Taxonomy, make_asker: Callable[..., Asker]) -> None:
    best, weak = Draw(prompt="answer", role="teacher", temperature=0.5), Draw(prompt="student", role="weak")
    several = {
        "reasoning": Several(draws=(Draw(prompt="reason", role="teacher"),) * 5, take="agree"),
        "preference": Several(draws=(best, best, weak), take="teacher"),
    }
    mix = {"reasoning": 8, "preference": 9}
    items = make_plan(shop, mix, per_call=4, seed=1, seeds={}, replace_seeds=False, several=several)
    writing = len(items)
    assert count_calls(items, True) == writing + 8 * (5 + 1) + 9 * (3 + 6 + 1)
    told = ahead.forecast(items, everything(items), make_asker(ahead.nobody()), PRICES, judged=True, concurrency=4)
    assert told.calls.mean == pytest.approx(count_calls(items, True))
    assert ahead.worst_case_usd(items, make_asker(ahead.nobody()), make_asker(ahead.nobody())._teacher, judged=True) == 0


def test_a_t_interval_holds_what_comes_in_most_cases() -> None:
    rng, held = random.Random(1), 0
    for _ in range(200):
        per_item = [rng.lognormvariate(0, 0.4) for _ in range(8)]
        told = ahead.t_interval(per_item, 400.0, 4.0)
        actual = sum(4 * rng.lognormvariate(0, 0.4) for _ in range(100))
        held += told.low <= actual <= told.high
    assert held >= 180


def test_rate_limits_that_the_recipe_states_make_the_time_longer(
    items: list[PlanItem], make_asker: Callable[..., Asker], roles: dict[str, ModelConfig]
) -> None:
    free = ahead.forecast(items, everything(items), make_asker(ahead.nobody()), PRICES, judged=True, concurrency=4)
    for role in roles:
        roles[role] = ModelConfig(model="test/one", limits=Limits(requests_per_minute=2))
    slow = ahead.forecast(items, everything(items), make_asker(ahead.nobody()), PRICES, judged=True, concurrency=4)
    assert slow.minutes.mean == pytest.approx(slow.calls.mean / 2)
    assert free.minutes.mean < slow.minutes.mean


def test_batch_and_cache_prices_are_told_where_the_provider_has_them(
    items: list[PlanItem], make_asker: Callable[..., Asker], roles: dict[str, ModelConfig], shop: Taxonomy
) -> None:
    for role in roles:
        roles[role] = ModelConfig(model="openai/gpt-4o")
    asker = make_asker(ahead.nobody())
    asker.variables["task"] = shop.task.model_copy(update={"instructions": "Sort the message by this table. " * 200})
    told = ahead.forecast(items, everything(items), asker, PRICES, judged=True, concurrency=4)
    assert told.batch_usd == pytest.approx(told.usd.mean / 2)
    assert told.cached_usd is not None
    assert told.cached_usd < told.usd.mean


def test_prices_come_from_the_recipe_or_the_table_and_an_unknown_model_is_refused() -> None:
    given = {"teacher": ModelConfig(model="x/y", price=Price(input_per_million=1, output_per_million=2))}
    assert ahead.known_prices(given)["teacher"].output == pytest.approx(2e-6)
    assert ahead.known_prices({"teacher": ModelConfig(model="openai/gpt-4o")})["teacher"].cached == pytest.approx(1.25e-6)
    assert ahead.known_prices({"teacher": ModelConfig(model="offline/banking")})["teacher"].input == 0
    with pytest.raises(ConfigError, match=r"price is not known\. Set teachers\.teacher\.price"):
        ahead.known_prices({"teacher": ModelConfig(model="openai/gpt-nobody-knows")})


def test_a_pilot_is_spread_over_the_topics_and_takes_what_is_open_alone(items: list[PlanItem]) -> None:
    left = everything(items)
    chosen = ahead.pilot_items(items, left, 2)
    assert {item.generator for item in chosen} == {item.generator for item in items}
    assert len({item.topic for item in chosen if item.generator == "topic"}) == 2
    del left[chosen[0].id]
    assert chosen[0] not in ahead.pilot_items(items, left, 2)


def test_the_line_of_a_run_says_what_is_done_paid_and_left(
    items: list[PlanItem], make_asker: Callable[..., Asker], scripted: Any, store: Store
) -> None:
    topics = [item for item in items if item.generator == "topic"]
    asker = make_asker(scripted(lambda request: ""), budget_usd=5.0)
    watch = Watch(topics, asker, 0.0)
    assert "time left not known yet" in watch.line()
    for second, item in enumerate(topics[:-1], 1):
        watch.ended(item)
        asker.calls += 10
        asker.examples += item.count
        watch.tick(second * 2.0)
    store.ledger.spent_usd = 1.25
    store.failures["RateLimitError"] = 3
    store.failures["Timeout"] = 1
    line = watch.line()
    for words in (f"topic {len(topics) - 1}/{len(topics)}", "5.0 calls/s", "3 rate limits met", "1 errors", "$1.2500 of $5.0000", " left"):
        assert words in line
    assert watch.items_ended == len(topics) - 1
    left = watch.seconds_left()
    assert left is not None
    assert 0 < left[0] <= left[1]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(41, 54.2, "41 to 55 s"), (240, 410, "4 to 7 min"), (0, 0, "about 0 s"), (7300, 20000, "2 to 6 h"), (179, 179.5, "2 to 3 min")],
)
def test_a_range_of_time_is_told_in_the_unit_that_fits(low: float, high: float, words: str) -> None:
    assert between(low, high) == words
