"""The search: what is proposed, what is kept first, which texts are one family."""

import random
import time

import numpy as np
import pytest

from datagen.filters.near import Bands, Twins, families, keep_first, nearest
from datagen.filters.similarity import similarities, sketch

VOCABULARY = [f"{a}{b}" for a in ("ba", "ko", "li", "mu", "re", "sta") for b in ("n", "r", "tle", "ve", "gga", "sy", "ck")]
BASE = " ".join(f"word{i}" for i in range(40))
ODD_TEXTS = ["", "a", "\U0001f600", "\ud800 lone", "\u6211" * 50, "word " * 5000, "x" * 10_000]


def first_kept(texts: list[str], threshold: float = 0.8) -> Twins:
    sketches = sketch(texts)
    return keep_first(sketches, Bands.of(sketches, threshold), threshold, np.zeros(len(texts), dtype=bool)).twins


def family_of(texts: list[str]) -> list[int]:
    sketches = sketch(texts)
    return families(sketches, Bands.of(sketches, 0.7), 0.7).tolist()


def edited_texts(count: int, size: int, seed: int) -> list[str]:
    """Every second text is the one before it with a word more or less; some are edited again and again."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    while len(texts) < count:
        text = rng.choice(texts) if texts and rng.random() < 0.2 else [rng.choice(VOCABULARY) for _ in range(size)]
        texts += [text, [*text, rng.choice(VOCABULARY)] if rng.random() < 0.5 else text[:-1]]
    rng.shuffle(texts)
    return [" ".join(text) for text in texts]


def all_similarities(texts: list[str]) -> np.ndarray:
    sketches = sketch(texts)
    rows, columns = (index.ravel() for index in np.indices((len(texts), len(texts))))
    return similarities(sketches, rows, sketches, columns).reshape(len(texts), len(texts))


def greedy(matrix: np.ndarray, threshold: float) -> list[tuple[int, float]]:
    """Text by text, against those kept before."""
    kept: list[int] = []
    found = []
    for text in range(len(matrix)):
        twin = max(kept, key=lambda k: (matrix[text, k], -k), default=-1)
        if twin >= 0 and matrix[text, twin] >= threshold:
            found.append((twin, matrix[text, twin]))
        else:
            found.append((-1, 0.0))
            kept.append(text)
    return found


@pytest.mark.parametrize("size", [5, 9, 14, 60])
def test_keeping_the_first_equals_comparing_text_by_text(size):
    texts = edited_texts(300, size, seed=size)
    twins = first_kept(texts)
    expected = greedy(all_similarities(texts), 0.8)
    same = sum(pair == found for pair, found in zip(zip(twins.position, twins.similarity, strict=True), expected, strict=True))
    assert sum(twin >= 0 for twin, _ in expected) > 50
    assert same >= 0.99 * len(texts)


@pytest.mark.parametrize("size", [5, 14, 60])
def test_at_least_98_of_100_pairs_over_the_threshold_are_found(size):
    texts = edited_texts(400, size, seed=size + 1)
    matrix = all_similarities(texts)
    known = sketch(texts[:200])
    twins = nearest(sketch(texts[200:]), known, 0.8)
    best = matrix[200:, :200].max(axis=1)
    assert (twins.similarity[twins.position >= 0] >= 0.8).all()
    assert (best >= 0.8).sum() > 40
    assert ((twins.position >= 0) & (best >= 0.8)).sum() >= 0.98 * (best >= 0.8).sum()


@pytest.mark.parametrize("size", [5, 14, 60])
def test_families_are_the_chains_of_pairs(size):
    texts = edited_texts(300, size, seed=size + 2)
    joined = all_similarities(texts) >= 0.7
    root = np.arange(len(texts))
    for _ in range(len(texts)):
        lower = np.array([root[row].min(initial=own) for row, own in zip(joined, root, strict=True)])
        if (lower == root).all():
            break
        root = lower
    assert (family_of(texts) == root).mean() >= 0.99


def test_the_nearest_twin_is_the_most_similar_and_the_first_of_equals():
    known = sketch([BASE + " a b", BASE + " a", BASE + " c"])
    twins = nearest(sketch([BASE, "nothing like it at all in here"]), known, 0.8)
    assert twins.position.tolist() == [1, -1]


def test_a_dropped_text_is_given_a_twin_and_is_nobodys():
    sketches = sketch([BASE + " a b", BASE + " a", BASE + " a c"])
    twins = keep_first(sketches, Bands.of(sketches, 0.8), 0.8, np.zeros(3, dtype=bool), np.array([True, False, False])).twins
    assert twins.position.tolist() == [-1, -1, 1]


def test_texts_of_two_uses_are_no_twins():
    sketches = sketch([BASE + " a b", BASE + " a", BASE + " a c", BASE])
    twins = keep_first(sketches, Bands.of(sketches, 0.8), 0.8, np.array([True, False, True, False])).twins
    assert twins.position.tolist() == [-1, -1, 0, 1]


def test_texts_of_every_size_and_kind_can_be_searched():
    assert first_kept(ODD_TEXTS).position.tolist() == [-1] * len(ODD_TEXTS)
    assert family_of(ODD_TEXTS) == list(range(len(ODD_TEXTS)))
    assert nearest(sketch(ODD_TEXTS), sketch(ODD_TEXTS), 0.9).position.tolist() == list(range(len(ODD_TEXTS)))
    for texts in ([], ["one text"]):
        assert first_kept(texts).position.tolist() == [-1] * len(texts)
        assert family_of(texts) == list(range(len(texts)))
        assert nearest(sketch(ODD_TEXTS), sketch(texts), 0.8).position.tolist() == [-1] * len(ODD_TEXTS)
        assert nearest(sketch(texts), sketch(ODD_TEXTS), 0.8).position.tolist() == [-1] * len(texts)


def test_three_thousand_texts_from_one_template_take_no_longer_than_others():
    texts = [f"{BASE} {i} {i + 1}" for i in range(3000)]
    started = time.process_time()
    assert first_kept(texts).position.tolist() == [-1, *[0] * 2999]
    assert set(family_of(texts)) == {0}
    assert time.process_time() - started < 10  # about half a second alone; every pair would be four million comparisons


@pytest.mark.parametrize("seed", range(3))
def test_families_are_the_same_whether_compared_pairs_are_known_or_not(seed: int) -> None:
    sketches = sketch(edited_texts(300, 20, seed))
    bands = Bands.of(sketches, 0.7)
    compared = keep_first(sketches, bands, 0.8, np.zeros(300, dtype=np.int64)).compared
    assert len(compared.first)
    assert np.array_equal(families(sketches, bands, 0.7, compared), families(sketches, bands, 0.7))


def test_pairs_are_compared_that_agree_in_as_many_bands_as_all_but_one_in_a_thousand_at_the_threshold() -> None:
    wide = Bands(np.zeros((1, 28), dtype=np.uint32), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.bool_))
    assert [wide.agreeing(threshold) for threshold in (0.7, 0.8, 0.9, 1.0)] == [2, 4, 10, 28]
