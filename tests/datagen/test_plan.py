"""The plan: by the seed alone, every topic filled, quotas met."""

from collections import Counter
from typing import Any

import pytest

from datagen.errors import ConfigError
from datagen.plan import Planner, apportion, count_calls, counted_mix, make_plan, share_warning
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


def _planner(shop: Taxonomy, **changes: Any) -> Planner:
    return Planner(shop, **{"seed": 1, "seeds": {}, "replace_seeds": False, **changes})


def test_a_leaf_gets_its_minimum_and_generators_keep_their_counts(shop: Taxonomy) -> None:
    mix = {"topic": 30, "adversarial": 9, "seed": 6}
    heavy = shop.model_copy(update={"topics": {**shop.topics, "rest": shop.topics["rest"].model_copy(update={"weight": 0.01})}})
    before, after = Counter[str](), Counter[str]()
    generators: Counter[str] = Counter()
    for cell in _planner(heavy).cells(mix):
        before[cell.topic] += cell.target
    for cell in _planner(heavy).cells(mix, 10):
        after[cell.topic] += cell.target
        generators[cell.generator] += cell.target
    assert before["rest"] < 10 <= min(after.values())
    assert after["rest"] == 10
    assert generators == mix


@pytest.mark.parametrize(("least", "message"), [(16, "takes 48 rows for 3 topics, but mix has 45. Lower it to 15"), (13, "can have")])
def test_a_minimum_that_cannot_be_is_refused(shop: Taxonomy, least: int, message: str) -> None:
    mix = {"topic": 3, "seed": 42} if least == 13 else {"topic": 30, "adversarial": 9, "seed": 6}
    with pytest.raises(ConfigError, match=message):
        _planner(shop).cells(mix, least)


def test_a_cells_items_do_not_depend_on_other_cells_or_on_how_many_there_are(shop: Taxonomy) -> None:
    fewer = shop.model_copy(update={"topics": {name: node for name, node in shop.topics.items() if name != "rest"}})
    one, other = _planner(shop, design="covering"), _planner(fewer, design="covering")
    _ = [one.item("rest", "topic", index, 4) for index in range(9)]
    items = [one.item("parcels/late", "topic", index, 4) for index in (5, 1)]
    assert items == [other.item("parcels/late", "topic", index, 4) for index in (5, 1)]


def test_axes_and_seeds_come_evenly(shop: Taxonomy) -> None:
    grown = _planner(shop.model_copy(update={"axes": {"style": "", "persona": "", "content": ""}}))
    items = [grown.item("parcels/late", "seed", index, 4) for index in range(12)]
    assert Counter(item.axis for item in items) == {"style": 4, "persona": 4, "content": 4}
    assert set(Counter((item.seed, item.axis) for item in items).values()) == {2}
    assert _planner(shop).item("parcels/late", "seed", 0, 4).axis is None


def test_rows_in_all_are_shared_by_the_mix() -> None:
    assert counted_mix({"topic": 6, "adversarial": 2, "seed": 0}, 400) == {"topic": 300, "adversarial": 100}
    assert counted_mix({"topic": 6}, None) == {"topic": 6}


@pytest.mark.parametrize(("adversarial", "warned"), [(0, True), (5, True), (10, False), (15, False), (30, True)])
def test_unusual_shares_of_adversarial_rows_are_warned_of(shop: Taxonomy, adversarial: int, warned: bool) -> None:
    mix = {"topic": 100 - adversarial, "adversarial": adversarial}
    assert (share_warning(mix, shop) is not None) is warned
    assert share_warning(mix, shop.model_copy(update={"adversarial": {}})) is None
