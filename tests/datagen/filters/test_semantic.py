"""Repetition in other words: exact search by cosine, the first stays, people's choices come first."""

from dataclasses import replace

import numpy as np
import pytest

from datagen.filters import semantic_duplicate
from datagen.filters.semantic import keep_first_by_cosine
from datagen.records import Vectors, embedding_id


@pytest.fixture
def seen(bank_context):
    """A context that knows the vectors of these texts."""

    def make(vectors, **fields):
        places = {embedding_id("space", text): row for row, text in enumerate(vectors)}
        matrix = np.array(list(vectors.values()), dtype=np.float32)
        return replace(bank_context, embedding="space", vectors=Vectors(places, matrix), **fields)

    return make


def test_the_lowest_id_stays_and_the_verdict_names_twin_and_likeness(bank_example, seen):
    examples = [bank_example("Where is my card?"), bank_example("My card never came"), bank_example("Refund me")]
    context = seen({"Where is my card?": [1, 0.1], "My card never came": [2, 0.1], "Refund me": [0, 1]})
    low, high = sorted(examples[:2], key=lambda example: example.id)
    verdicts = {verdict.example_id: verdict for verdict in semantic_duplicate(examples, context)}
    assert verdicts[low.id].keep
    assert verdicts[examples[2].id].keep
    assert verdicts[high.id].reason == f"semantic_duplicate: 1.00 like {low.id}"
    assert verdicts[high.id].score == pytest.approx(0.9988, abs=1e-3)
    pinned = {verdict.example_id: verdict for verdict in semantic_duplicate(examples, replace(context, pinned=frozenset({high.id})))}
    assert (pinned[high.id].keep, pinned[low.id].keep) == (True, False)
    assert semantic_duplicate(examples[::-1], context) == semantic_duplicate(examples, context)


def test_the_threshold_is_the_recipes(bank_example, seen):
    examples = [bank_example("one"), bank_example("two")]
    vectors = {"one": [1, 0], "two": [1, 1]}
    assert all(verdict.keep for verdict in semantic_duplicate(examples, seen(vectors)))
    loose = seen(vectors, settings={"semantic_duplicate": {"threshold": 0.7}})
    assert [verdict.keep for verdict in semantic_duplicate(examples, loose)].count(False) == 1


def test_a_pair_and_a_plain_example_are_no_twins_and_a_text_without_a_vector_stays(bank_example, seen):
    examples = [bank_example("one"), bank_example("one", rejected="{}"), bank_example("unknown")]
    verdicts = semantic_duplicate(examples, seen({"one": [1, 0]}))
    assert all(verdict.keep for verdict in verdicts)
    assert sum(verdict.reason is not None and verdict.reason.startswith("not compared: it has no embedding") for verdict in verdicts) == 1


def test_without_a_model_there_is_no_verdict(bank_example, bank_context):
    assert semantic_duplicate([bank_example("one")], bank_context) == []


@pytest.mark.parametrize("dimensions", [3, 200])
def test_the_search_decides_as_comparing_one_by_one_does(dimensions):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((5000, dimensions)).astype(np.float32) * (1 / np.arange(1, dimensions + 1)).astype(np.float32)
    vectors[17] = 0
    vectors[4000:4500] = vectors[rng.integers(0, 4000, 500)] * 3 + 0.01
    found = keep_first_by_cosine(vectors, 0.98)
    whole = vectors.astype(np.float64) / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    kept: list[int] = []
    for row in range(len(whole)):
        cosine = whole[kept] @ whole[row] if kept else np.zeros(0)
        clear = not len(cosine) or abs(cosine.max() - 0.98) > 1e-5
        if clear:
            assert (found.position[row] >= 0) == bool(len(cosine) and cosine.max() >= 0.98)
        if found.position[row] < 0:
            kept.append(row)
        else:
            assert whole[found.position[row]] @ whole[row] == pytest.approx(found.similarity[row], abs=1e-4)
    assert found.position[17] == -1


def test_a_crowd_of_one_text_leaves_one():
    found = keep_first_by_cosine(np.ones((6000, 70), dtype=np.float32), 0.95)
    assert found.position.tolist() == [-1] + [0] * 5999
    assert len(keep_first_by_cosine(np.zeros((0, 0), dtype=np.float32), 0.95).position) == 0
