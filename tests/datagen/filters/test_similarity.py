"""Similarity: the rule, the shingles, the bands, and datasketch's signatures."""

import random

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import example, given
from hypothesis import strategies as st

from datagen.filters.similarity import (
    PERMUTATIONS,
    Lists,
    band_keys,
    bands_for,
    hash_words,
    normalise,
    signatures,
    similarities,
    sketch,
    windows,
    words,
)


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


ODD_TEXTS = [
    "", "a", "...", "\U0001f600  \U0001f600", "\ud800 lone", "nul\0in a text", "\0", "Caf\u00e9 na\u00efve STRASSE stra\u00dfe", "\u6211" * 50,
    "\u6211\u7684card\u4e0d\u89c1\u4e86", "word " * 5000, "x" * 10_000, "under_score O'Brien\u2019s `tick`", "eight888 nine99999 sixteen161616161 seventeen17171717",
    "abcdefgh abcdefghi", "\u0130stanbul \u01c5 \ufb01n", "tabs\tand\nlines\r\n", "12.50 3,000 1_000", "\u00b4 acute \u02bc", "\u03a3\u03c3\u03c2",
]  # fmt: skip


def values(lists: Lists, row: int) -> list[int]:
    return lists.values[lists.starts[row] : lists.starts[row + 1]].tolist()


def test_words_are_hashed_as_they_are_found_one_by_one_whatever_the_text():
    hashed = hash_words(ODD_TEXTS)
    known: dict[int, str] = {}
    for row, text in enumerate(ODD_TEXTS):
        found = values(hashed, row)
        assert len(found) == len(words(text)), text[:40]
        for word, code in zip(words(text), found, strict=True):
            assert known.setdefault(code, word) == word
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_a_text_is_hashed_and_sketched_alike_alone_and_among_others(text):
    row = ODD_TEXTS.index(text)
    assert values(hash_words([text]), 0) == values(hash_words(ODD_TEXTS * 30), row + 20 * len(ODD_TEXTS))
    alone, among = sketch([text]), sketch(ODD_TEXTS * 30)
    assert values(alone.words, 0) == values(among.words, row)
    assert values(alone.chars, 0) == values(among.chars, row)


def test_hashes_are_the_same_on_every_machine():
    assert values(hash_words(["where is my international transfer"]), 0)[0] == 16615558649872887304


def test_normalise_of_plain_text_joins_its_words():
    for text in ODD_TEXTS:
        assert normalise(text) == (" ".join(words(text)) or " ".join(text.split()))


def test_windows_of_equal_runs_are_equal_and_of_others_not():
    hashed = hash_words(["one two three four", "zero one two three", "one two three", "one two", ""])
    runs = windows(hashed, 3)
    assert runs.sizes.tolist() == [2, 2, 1, 0, 0]
    assert set(values(runs, 0)) & set(values(runs, 1)) == set(values(runs, 2))
    assert len(set(values(runs, 0) + values(runs, 1))) == 3


def test_signatures_equal_those_of_datasketch_bit_for_bit():
    rng = random.Random(1)
    sets = [[rng.getrandbits(56) for _ in range(rng.randrange(1, 60))] for _ in range(300)]
    starts = np.cumsum([0, *map(len, sets)])
    ours = signatures(Lists(np.array([value for found in sets for value in found], dtype=np.uint64), starts))
    for shingle_set, ours_row in zip(sets, ours, strict=True):
        theirs = MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32", hashfunc=lambda value: value >> 24)
        theirs.update_batch(shingle_set)
        assert (theirs.hashvalues == ours_row).all()


@pytest.mark.parametrize(("threshold", "expected"), [(0.9, (14, 8)), (0.8, (22, 5)), (0.7, (28, 4)), (0.5, (56, 2)), (0.1, (112, 1))])
def test_bands_are_the_fewest_of_which_two_agree_in_99_of_100_pairs_at_the_threshold(threshold, expected):
    bands, rows = bands_for(threshold)
    assert (bands, rows) == expected
    p = threshold**rows
    assert 1 - (1 - p) ** bands - bands * p * (1 - p) ** (bands - 1) >= 0.99


def test_equal_rows_in_two_bands_or_two_spaces_have_different_keys():
    same = np.ones((1, PERMUTATIONS), dtype=np.uint32)
    keys = [key for space in (0, 1) for rows in (4, 5) for key in band_keys(same, PERMUTATIONS // rows, rows, space)[0].tolist()]
    assert len(set(keys)) == len(keys) == 100


def pair(one: str, other: str) -> float:
    both = sketch([one, other])
    return float(similarities(both, np.array([0]), both, np.array([1]))[0])


def test_similarity_is_the_exact_jaccard_of_word_3_grams_for_long_texts():
    one = "I ordered a new debit card two weeks ago and it has still not come to my house"
    other = one + " yet"
    assert pair(one, other) == jaccard(shingles(one), shingles(other))
    repeated = one + " " + one + " " + other
    assert pair(one, repeated) == jaccard(shingles(one), shingles(repeated))


def test_a_short_text_is_compared_by_characters_also_with_a_longer_one():
    seven, eight = "please tell me where my card is", "please tell me where my card is now"
    chars = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (seven, eight)]
    assert len(words(seven)) < 8 <= len(words(eight))
    assert pair(seven, eight) == jaccard(*chars) >= 0.8


def test_similarity_of_many_pairs_equals_that_of_plain_sets():
    rng = random.Random(5)
    vocabulary = [f"{a}{b}" for a in ("ba", "ko", "li") for b in ("n", "r", "tle", "ve")]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(8, 90))) for _ in range(700)]
    rows, columns = (np.array([rng.randrange(700) for _ in range(2000)]) for _ in range(2))
    both = sketch(texts)
    expected = [jaccard(shingles(texts[a]), shingles(texts[b])) for a, b in zip(rows, columns, strict=True)]
    assert similarities(both, rows, both, columns).tolist() == expected
    assert similarities(both, columns, both, rows).tolist() == expected


@given(st.text(max_size=30))
@example("don\u2019t e\u0301te\u0301 \ufb01ne \u6211\u7684ab \uff21\uff22 \u00bd")
def test_the_words_of_many_texts_are_those_of_each(text: str) -> None:
    assert hash_words([text, "one"]).values.tolist() == hash_words([" ".join(words(text)), "one"]).values.tolist()
    assert len(hash_words([text]).values) == len(words(text))
