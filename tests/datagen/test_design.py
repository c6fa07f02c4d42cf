"""Designs: pairs come before triples repeat, weights hold in the long run, a longer sequence begins with the shorter."""

import random
from collections import Counter
from itertools import combinations

import pytest

from datagen.design import Covering, Coverings, Design, Independent

DIMENSIONS = {
    "channel": {"chat": 8.0, "email": 1.0, "voice": 1.0},
    "persona": {"ordinary": 6.0, "new": 1.0, "angry": 1.0, "never": 0.0},
    "difficulty": {"plain": 3.0, "indirect": 1.0},
    "length": {"short": 1.0, "long": 1.0},
}


def sequence(seed: str, count: int, dimensions: dict[str, dict[str, float]] = DIMENSIONS) -> list[dict[str, str]]:
    covering = Covering(Design(dimensions), seed)
    return [covering.values(index) for index in range(count)]


def subsets(row: dict[str, str], size: int) -> set[tuple[tuple[str, str], ...]]:
    return set(combinations(sorted(row.items()), size))


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_every_pair_comes_before_a_triple_comes_twice(seed: str) -> None:
    pairs = {pair for row in sequence(seed, 500) for pair in subsets(row, 2)}
    assert len(pairs) == 3 * 3 + 3 * 2 + 3 * 2 + 3 * 2 + 3 * 2 + 2 * 2
    seen: set[object] = set()
    triples: set[object] = set()
    for row in sequence(seed, 500):
        if triples & subsets(row, 3):
            break
        seen |= subsets(row, 2)
        triples |= subsets(row, 3)
    assert seen == pairs


def test_weights_hold_in_the_long_run_and_a_value_of_weight_0_never_comes() -> None:
    rows = sequence("1", 400)
    for name, weights in DIMENSIONS.items():
        counts, whole = Counter(row[name] for row in rows), sum(weights.values())
        assert {value: pytest.approx(400 * weight / whole, abs=4) for value, weight in weights.items() if weight} == counts


def test_a_longer_sequence_begins_with_the_shorter_and_another_seed_gives_another() -> None:
    assert sequence("1", 60)[:25] == sequence("1", 25)
    assert sequence("1", 25) != sequence("2", 25)


def test_without_dimensions_there_is_nothing_to_choose() -> None:
    assert sequence("1", 2, {}) == [{}, {}]


def test_one_and_two_dimensions_are_gone_through_before_anything_repeats() -> None:
    one = {"channel": DIMENSIONS["channel"]}
    assert {row["channel"] for row in sequence("1", 3, one)} == {"chat", "email", "voice"}
    two = {**one, "length": DIMENSIONS["length"]}
    assert len({tuple(row.items()) for row in sequence("1", 6, two)}) == 6


def test_many_dimensions_are_covered_too() -> None:
    large = {f"d{n}": {f"v{m}": 1.0 for m in range(5)} for n in range(8)}  # 390,625 combinations
    pairs = {pair for row in sequence("1", 90, large) for pair in subsets(row, 2)}
    assert len(pairs) == 28 * 25


def test_independent_draws_are_the_items_own() -> None:
    independent = Independent(DIMENSIONS)
    assert independent.values(random.Random(3)) == independent.values(random.Random(3))


def test_a_cells_sequence_depends_on_its_name_alone() -> None:
    one, other = Coverings(DIMENSIONS, "1"), Coverings(DIMENSIONS, "1")
    other.of("another cell").values(30)
    assert [one.of("cell").values(index) for index in range(20)] == [other.of("cell").values(index) for index in range(20)]
