"""Coverage: counts against shares, tested as rows came, and short cells with their reasons."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from datagen.coverage import fit, look, render
from datagen.curate import curate
from datagen.filters import FilterContext
from datagen.records import Example
from datagen.store import Store


def test_counts_as_the_shares_say_fit_and_others_do_not() -> None:
    assert fit([50, 30, 20], [5, 3, 2]).p == 1.0
    far = fit([20, 30, 50], [5, 3, 2])
    assert far.p < 1e-6
    assert far.how == "chi-square"
    assert far.off == pytest.approx(0.3)


def test_p_is_uniform_under_the_target_where_counts_are_small() -> None:
    rng = np.random.default_rng(5)
    found = [fit(rng.multinomial(12, [0.7, 0.2, 0.1]).tolist(), [0.7, 0.2, 0.1], seed=n) for n in range(60)]
    assert {test.how for test in found} == {"simulated"}
    assert 0.0 <= sum(test.p <= 0.1 for test in found) / 60 <= 0.25


def test_rows_that_come_together_are_tested_together() -> None:
    rng = random.Random(3)
    counts = Counter[str]()
    for _ in range(100):  # a hundred items of eight rows each
        counts[rng.choice("ab")] += 8
    alone, together = fit(list(counts.values()), [1, 1]), fit(list(counts.values()), [1, 1], {8: 100})
    assert together.p > alone.p
    assert together.how == "simulated"


def test_rows_where_the_target_has_none_do_not_fit_and_nothing_is_no_evidence() -> None:
    assert fit([5, 1], [1, 0]).how == "nothing to compare" or fit([5, 1], [1, 0]).p == 0.0
    assert fit([5, 5, 1], [1, 1, 0]).p == 0.0
    assert fit([0, 0], [1, 1]).how == "nothing to compare"


def test_a_look_at_a_store_counts_cells_and_values(
    bank_store: Callable[..., Store], bank_example: Callable[..., Example], bank_context: FilterContext
) -> None:
    texts = ["My card has not arrived yet, where is it?", "The post has lost the card that you sent to my house.", "Where?"]
    examples = [bank_example(text, item_id=f"cards/arrival:topic:{n}", dimensions={"tone": "calm"}) for n, text in enumerate(texts)] + [
        bank_example(texts[0] + " Please", item_id="cards/arrival:topic:3", dimensions={"tone": "odd"}, completion="{")
    ]
    store = bank_store(examples)
    store.begin_data_set("bank/1", {("cards/arrival", "topic"): 5, ("cards/lost", "topic"): 2})
    curate(store, bank_context)
    seen: dict[str, Any] = look(store, {"tone": {"calm": 1.0, "cross": 1.0}})
    assert (seen["target"], seen["asked"], seen["accepted"]) == (7, 4, 3)
    (tone,) = seen["dimensions"]
    assert [(row["value"], row["rows"]) for row in tone["values"]] == [("calm", 3), ("cross", 0)]
    assert [(entry["topic"], entry["accepted"]) for entry in seen["short"]] == [("cards/arrival", 3), ("cards/lost", 0)]
    assert seen["short"][0]["reasons"] == [{"reason": "invalid_json", "inputs": 1}]
    assert render(seen, "bank")


def test_very_many_cells_are_tested_with_fewer_draws() -> None:
    assert fit([1] * 50_000, [1.0] * 50_000).how == "simulated"
