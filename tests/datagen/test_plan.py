"""The plan: by the seed alone, every topic filled, quotas met."""

from collections import Counter

import pytest

from datagen.errors import ConfigError
from datagen.plan import apportion, count_calls, make_plan
from datagen.records import PlanItem
from datagen.taxonomy import Taxonomy

MIX = {"seed": 10, "topic": 30, "adversarial": 12, "reasoning": 6, "preference": 20}


def _plan(shop: Taxonomy, mix: dict[str, int] | None = None, seed: int = 1) -> list[PlanItem]:
    return make_plan(shop, mix or MIX, per_call=4, seed=seed, seeds={}, replace_seeds=False)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(shop: Taxonomy) -> None:
    assert _plan(shop) == _plan(shop)
    assert _plan(shop) != _plan(shop, seed=2)


def test_every_generator_gets_what_the_mix_says(shop: Taxonomy) -> None:
    counts: Counter[str] = Counter()
    for item in _plan(shop):
        counts[item.generator] += item.count
    assert counts == MIX


def test_every_topic_is_filled(shop: Taxonomy) -> None:
    assert {item.topic for item in _plan(shop, {"topic": 3})} == {topic.path for topic in shop.leaves()}


def test_a_longer_plan_begins_with_the_shorter_ones_items(shop: Taxonomy) -> None:
    longer = {item.id: item for item in _plan(shop, {"topic": 120})}
    full = [item for item in _plan(shop, {"topic": 60}) if item.count == 4]
    assert full
    assert all(longer[item.id] == item for item in full)


def test_an_adversarial_kind_says_what_a_right_answer_has(shop: Taxonomy) -> None:
    expected = {"noise": {"late", "broken"}, "off_topic": {"other"}, "unclear": {None}}
    items = list(_plan(shop, {"adversarial": 200}))
    assert {item.kind for item in items} == set(expected)
    assert all(item.label in expected[str(item.kind)] for item in items)


def test_seeds_are_used_evenly(shop: Taxonomy) -> None:
    used = Counter(item.seed for item in _plan(shop, {"seed": 120}) if item.topic == "parcels/late")
    assert max(used.values()) - min(used.values()) <= 1


def test_own_seeds_join_or_replace_the_taxonomys(shop: Taxonomy) -> None:
    def seeds_of(replace: bool) -> set[str | None]:
        return {i.seed for i in make_plan(shop, {"seed": 80}, per_call=4, seed=1, seeds={"late": ("mine",)}, replace_seeds=replace)}

    assert seeds_of(True) == {"mine"}
    assert {"mine", "Where is my parcel?"} <= seeds_of(False)


def test_reasoning_items_state_facts(shop: Taxonomy) -> None:
    assert {item.facts["days"] for item in _plan(shop, {"reasoning": 40})} == {"2 days", "3 weeks"}


def test_a_generator_without_material_is_refused(shop: Taxonomy) -> None:
    bare = shop.model_copy(update={"adversarial": {}})
    with pytest.raises(ConfigError, match=r"mix\.adversarial is 4"):
        _plan(bare, {"adversarial": 4})


@pytest.mark.parametrize(("total", "weights"), [(10, [1, 2, 7]), (3, [1, 1, 1, 1]), (7, [0.1, 100]), (100, [3])])
def test_shares_add_up_and_leave_nobody_out_while_they_can(total: int, weights: list[float]) -> None:
    shares = apportion(total, weights)
    assert sum(shares) == total
    assert min(shares) >= (1 if total >= len(weights) else 0)


def test_the_forecast_counts_writing_answering_and_judging(shop: Taxonomy) -> None:
    items = make_plan(shop, {"topic": 4}, per_call=4, seed=1, seeds={}, replace_seeds=False)
    assert count_calls(items, judge=True) == len(items) + 4 * 2
