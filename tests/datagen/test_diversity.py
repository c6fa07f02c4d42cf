"""Diversity: measures against the field's own library and against counting by hand; the supply's verdict on texts whose fate is known."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.diversity import BLOCK, DRY_BELOW, Text, balance, interleaved, measure, new_shares, said, spreads, supply

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "pe", "ri", "so", "ta", "vu", "ze") for b in ("na", "ro", "sti", "mel", "gu")]


def texts(lines, topic="a/b", generator="topic"):
    return [Text(f"id{number}", topic, generator, line) for number, line in enumerate(lines)]


def drawn(count, words=WORDS, length=12, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=length)) for _ in range(count)]


def one(lines, **options):
    (found,) = spreads({"inputs": texts(lines)}, seed=0, **options)
    return found


def test_distinct_n_counts_distinct_ngrams_among_all() -> None:
    found = one(["the cat sat", "The cat ran."])
    assert found.distinct_1.value == pytest.approx(4 / 6)
    assert found.distinct_2.value == pytest.approx(3 / 4)
    assert found.distinct_3.value == pytest.approx(1)


def test_a_measure_that_no_text_is_long_enough_for_is_none() -> None:
    found = one(["yes", "no", "no"])
    assert found.distinct_1.value == pytest.approx(2 / 3)
    assert (found.distinct_2, found.distinct_3, found.entropy) == (None, None, None)


def test_self_bleu_equals_sacrebleus_sentence_bleu_against_all_others() -> None:
    bleu = pytest.importorskip("sacrebleu.metrics").BLEU(tokenize="none", effective_order=True)
    rng = random.Random(4)
    lines = [" ".join(rng.choices(WORDS[:9], k=rng.randint(1, 14))) for _ in range(60)]
    lines += ["kana kana kana kana lost", lines[3]]
    expected = [bleu.sentence_score(line, lines[:k] + lines[k + 1 :]).score / 100 for k, line in enumerate(lines)]
    assert one(lines).self_bleu.value == pytest.approx(float(np.mean(expected)), abs=1e-9)


def test_self_bleu_of_equal_texts_is_one_and_of_texts_that_share_no_word_zero() -> None:
    assert one(["where is my card now"] * 5).self_bleu.value == pytest.approx(1)
    assert one(["one two three four", "five six seven eight"]).self_bleu.value == 0


def test_repetition_compresses_more_and_has_less_entropy() -> None:
    same, different = one(["where is my new card"] * 100), one(drawn(100))
    assert same.compression.value > 10 > 4 > different.compression.value
    assert same.entropy.value < different.entropy.value < 1


def test_a_measure_does_not_depend_on_how_many_texts_there_are() -> None:
    few, many = one(drawn(5 * BLOCK)), one(drawn(40 * BLOCK, seed=1))
    assert (few.blocks, many.blocks) == (5, 20)
    for name in ("distinct_2", "distinct_3", "self_bleu", "compression"):
        a, b = getattr(few, name), getattr(many, name)
        assert a.low < b.high
        assert b.low < a.high
        assert b.high - b.low < a.high - a.low


def test_intervals_hold_the_mean_over_all_blocks_19_times_in_20() -> None:
    truth = one(drawn(300 * BLOCK, seed=9), most=300).distinct_2.value
    held = [found.low <= truth <= found.high for seed in range(200) for found in [one(drawn(6 * BLOCK, seed=seed)).distinct_2]]
    assert 0.90 <= np.mean(held) <= 0.985


def test_one_block_has_no_interval_and_one_text_no_measures() -> None:
    assert one(drawn(30)).distinct_1.low is None
    assert spreads({"inputs": texts(["one text alone"])}, seed=0) == []


def test_the_same_texts_in_another_order_and_process_measure_the_same() -> None:
    lines = texts(drawn(500))
    shuffled = random.Random(1).sample(lines, len(lines))
    assert spreads({"inputs": lines}, seed=3) == spreads({"inputs": shuffled}, seed=3)
    assert spreads({"inputs": lines}, seed=3) != spreads({"inputs": lines}, seed=4)


def test_new_shares_are_those_of_counting_with_a_set() -> None:
    lines = [*drawn(200, WORDS[:6], length=7), "short one", "", "kana kana kana kana", "卡片丢了怎么办"]
    seen: set[tuple[str, ...]] = set()
    for line, found in zip(lines[:-1], new_shares(lines), strict=False):
        own = {tuple(line.split()[k : k + 3]) for k in range(len(line.split()) - 2)}
        assert np.isnan(found) if not own else found == pytest.approx(len(own - seen) / len(own))
        seen |= own
    assert new_shares(lines)[-1] == 1  # characters are its words


def test_a_plan_that_is_worked_off_topic_by_topic_is_lined_up_by_progress() -> None:
    cells = [("a", "g")] * 4 + [("b", "g")] * 2
    assert interleaved(cells) == [0, 4, 1, 2, 5, 3]


def test_a_generator_with_many_words_is_producing() -> None:
    found = supply("topic", new_shares(drawn(1000)))
    assert found.standing == "producing"
    assert said(found).startswith("Still producing new text: ")


def test_a_generator_that_falls_back_on_its_old_texts_runs_dry_since_then() -> None:
    fresh = drawn(1000)
    found = supply("topic", new_shares([*fresh, *random.Random(2).choices(fresh, k=1000)]))
    assert found.standing == "running dry"
    assert 1000 <= found.dry_since <= 1100
    assert said(found).startswith(f"Running dry since {found.dry_since:,} texts: 0% of the trigrams")


def test_a_small_grammar_dries_up_and_the_trend_says_how_fast() -> None:
    found = supply("seed", new_shares(drawn(6000, WORDS[:20], length=6)))
    assert found.standing == "running dry"
    assert found.late.high < DRY_BELOW
    assert found.per_doubling.high < -0.3


def test_few_texts_and_a_share_at_the_limit_cannot_be_told() -> None:
    assert supply("seed", new_shares(drawn(12))).standing == "cannot be told"
    assert "too few" in said(supply("seed", new_shares(drawn(12))))
    limit = np.tile([0.0, 0.2], 200)
    assert supply("seed", limit).standing == "cannot be told"
    assert "about the 10%" in said(supply("seed", limit))


def test_balance_says_how_many_rows_lie_in_the_wrong_topic() -> None:
    even = balance({"a": 50, "b": 50}, {"a": 20, "b": 20})
    assert (even.entropy, even.planned_entropy, even.misplaced) == (1, 1, 0)
    skewed = balance({"a": 75, "b": 25}, {"a": 20, "b": 20})
    assert skewed.misplaced == pytest.approx(0.25)
    assert skewed.entropy == pytest.approx(0.811, abs=1e-3)
    assert balance({}, {"a": 3}) is None
    assert balance({"a": 3}, {"a": 9}).entropy == 1


def test_topics_are_measured_where_they_have_enough_texts_and_the_others_are_counted() -> None:
    made = [*texts(drawn(60), "a/many"), *texts(drawn(5, seed=1), "a/few")]
    found = measure(made, made, answers=made, target={"a/many": 60, "a/few": 60, "a/none": 60}, seed=0)
    assert [row.name for row in found.topics] == ["a/many"]
    assert (found.topics[0].size, found.topics[0].blocks, found.topics_left_out) == (20, 3, 2)
    assert found.answers.texts == 65
    assert [one.name for one in found.generators] == ["topic"]


def test_nothing_at_all_has_no_measures() -> None:
    found = measure([], [], target={}, seed=0)
    assert (found.inputs, found.answers, found.balance, found.topics) == (None, None, None, ())
    assert found.supply.standing == "cannot be told"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), max_size=40))
def test_any_text_can_be_measured(lines) -> None:
    made = texts(lines)
    found = measure(made, made, answers=made, target={}, seed=0)
    for kind in (found.inputs, found.answers):
        for name in ("distinct_1", "distinct_2", "distinct_3", "self_bleu", "entropy"):
            if kind and getattr(kind, name):
                assert 0 <= getattr(kind, name).value <= 1 + 1e-9
