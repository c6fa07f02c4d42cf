"""Similarity: the rule, the bands, and datasketch's signatures."""

import random

import numpy as np
import pytest
from datasketch import MinHash

from datagen.filters.similarity import Hasher, NearTexts, band_keys, bands_for, normalise, signatures, windows, words


def jaccard(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


def shingles(text: str, n: int = 3) -> set:
    found = words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where's my CARD?!", "wheres my card"),
        ("Where\u2019s  my\ncard", "Where's my card"),
        ("caf\u00e9", "cafe\u0301"),
        ("\uff21\uff22\uff23", "abc"),
    ],
)
def test_normalise_forgets_case_spacing_punctuation_and_spelling_of_accents(one, other):
    assert normalise(one) == normalise(other)


def test_normalise_keeps_a_text_without_words_apart_from_others():
    assert normalise("😀  😀") == "😀 😀"
    assert normalise("...") != normalise("😀")


def test_words_take_chinese_one_character_at_a_time():
    assert words("我的card不见了") == ["我", "的", "card", "不", "见", "了"]


def test_windows_of_equal_runs_are_equal_and_of_others_not():
    hashed = Hasher()
    a, b = hashed(words("one two three four")), hashed(words("zero one two three"))
    assert len(windows(a, 3)) == 2
    assert set(windows(a, 3).tolist()) & set(windows(b, 3).tolist()) == {int(windows(hashed(["one", "two", "three"]), 3)[0])}
    assert len(windows(a, 9)) == 1
    assert len(windows(hashed([]), 3)) == 0


def test_signatures_equal_those_of_datasketch_bit_for_bit():
    rng = random.Random(1)
    sets = [np.array([rng.getrandbits(64) for _ in range(rng.randrange(1, 60))], dtype=np.uint64) for _ in range(300)]
    ours = signatures(sets)
    for shingle_set, ours_row in zip(sets, ours, strict=True):
        theirs = MinHash(num_perm=96, seed=1, scheme="affine32", hashfunc=lambda value: value >> 32)
        theirs.update_batch(shingle_set.tolist())
        assert (theirs.hashvalues == ours_row).all()


@pytest.mark.parametrize(("threshold", "expected"), [(0.9, (12, 8)), (0.8, (16, 6)), (0.7, (24, 4)), (0.5, (48, 2))])
def test_bands_are_the_fewest_that_find_a_pair_at_the_threshold_in_99_of_100(threshold, expected):
    bands, rows = bands_for(threshold)
    assert (bands, rows) == expected
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


def test_equal_rows_in_two_bands_have_two_keys():
    keys = band_keys(np.ones((1, 96), dtype=np.uint32), 16, 6)
    assert len(set(keys[0].tolist())) == 16


def test_similarity_is_the_exact_jaccard_of_word_3_grams_for_long_texts():
    one = "I ordered a new debit card two weeks ago and it has still not come to my house"
    other = one + " yet"
    index = NearTexts([one, other], 0.8)
    assert index.similarity(0, 1) == jaccard(shingles(one), shingles(other))


def test_a_short_text_is_compared_by_characters_also_with_a_longer_one():
    seven, eight = "please tell me where my card is", "please tell me where my card is now"
    chars = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (seven, eight)]
    index = NearTexts([seven, eight], 0.8)
    assert len(words(seven)) < 8 <= len(words(eight))
    assert index.similarity(0, 1) == jaccard(*chars) >= 0.8


def test_nearest_is_the_most_similar_of_those_added_and_the_first_of_equals():
    base = " ".join(f"word{i}" for i in range(40))
    index = NearTexts([base + " a b", base + " a", base + " c", base], 0.8)
    assert index.nearest(3) is None
    for position in (0, 1, 2):
        index.add(position)
    assert index.nearest(3).position == 1


def test_texts_of_every_size_and_kind_can_be_indexed():
    index = NearTexts(["", "a", "😀", "\ud800 lone", "我" * 50, "word " * 5000, "x" * 10_000], 0.8)
    for position in range(7):
        index.add(position)
        assert index.nearest(position) is None
    assert NearTexts([], 0.8).words == []


@pytest.mark.parametrize("size", [6, 14, 60])
def test_at_least_98_of_100_pairs_over_the_threshold_are_found(size):
    rng = random.Random(size)
    vocabulary = [f"{a}{b}" for a in ("ba", "ko", "li", "mu", "re", "sta") for b in ("n", "r", "tle", "ve", "gga", "sy", "ck")]
    texts = []
    for _ in range(300):
        text = [rng.choice(vocabulary) for _ in range(size)]
        edited = [*text, rng.choice(vocabulary)] if rng.random() < 0.5 else text[: size - 1]
        texts += [" ".join(text), " ".join(edited)]
    index = NearTexts(texts, 0.8)
    for position in range(len(texts)):
        index.add(position)
    pairs = {(a, b) for a in range(len(texts)) for b in range(a) if index.similarity(a, b) >= 0.8}
    found = {(a, twin.position) for a in range(len(texts)) for twin in index.near(a) if twin.position < a}
    assert len(pairs) > 100
    assert found <= pairs
    assert len(found) / len(pairs) >= 0.98
