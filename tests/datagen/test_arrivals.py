"""New prompts against those that were kept: twins, groups, and what is remembered."""

import random

import numpy as np
import pytest

from datagen.arrivals import Prompt, keep, meet, remember
from datagen.filters.similarity import similarities, sketch
from datagen.records import Verdict

LONG = "I ordered a new debit card two weeks ago and it has still not come to my house in Leeds"
OTHER = "Can you tell me which exchange rate you use when I pay in euros on a Sunday evening abroad"


@pytest.fixture
def store(bank_store):
    return bank_store([])


BROKEN = Verdict(example_id="a", by="filter:x", keep=np.zeros(2), reason=None)


def arrive(store, *rows, threshold=0.8):
    """Meet and keep what has no twin; rows are (id, text) or (id, text, pair)."""
    prompts = [Prompt(row[0], row[2] if len(row) > 2 else False, row[1]) for row in rows]
    with store.seen_texts() as seen:
        found = meet(seen, prompts, threshold)
        kept = [twin is None for twin in found.twins]
        verdicts = [Verdict(example_id=p.example_id, by="filter:near_duplicate", keep=k) for p, k in zip(prompts, kept, strict=True)]
        keep(seen, found, kept, verdicts)
    return found


def groups(store):
    return {row["example_id"]: row["group_id"] for row in store.query("SELECT * FROM groups")}


def test_the_first_stays_and_the_twin_is_named_with_its_similarity(store):
    found = arrive(store, ("b", LONG), ("a", LONG + " yet"), ("c", OTHER))
    assert found.twins[0] is None
    assert found.twins[1] == ("b", pytest.approx(0.947, abs=0.001))
    assert found.twins[2] is None


def test_what_was_kept_before_stays_whatever_its_id(store):
    arrive(store, ("z", LONG))
    found = arrive(store, ("a", LONG + " yet"), ("b", LONG.upper() + "!"))
    assert [twin[0] for twin in found.twins] == ["z", "z"]
    assert found.same == [None, "z"]
    assert [row["example_id"] for row in store.query("SELECT example_id FROM seen_texts")] == ["z"]


def test_the_nearest_twin_is_named_be_it_stored_or_new(store):
    arrive(store, ("stored", LONG + " or has it not"))
    found = arrive(store, ("one", OTHER), ("two", OTHER + " now"), ("three", LONG + " or has it"))
    assert [twin and twin[0] for twin in found.twins] == [None, "one", "stored"]


def test_a_pair_and_a_plain_example_are_no_twins_and_share_a_group(store):
    arrive(store, ("plain", LONG))
    found = arrive(store, ("pair", LONG, True), ("later", LONG + " yet", True))
    assert [twin and twin[0] for twin in found.twins] == [None, "pair"]
    assert found.same == [None, None]
    assert groups(store) == {"pair": "plain", "later": "plain"}


def test_a_new_prompt_that_is_near_two_groups_makes_them_one(store):
    base = LONG.split()
    left, both, right = " ".join(base[:15]), " ".join(base[:17]), " ".join(base[3:17])
    arrive(store, ("m", left), ("k", right), threshold=0.99)
    assert groups(store) == {}
    arrive(store, ("x", both), ("y", both + " in"), threshold=0.99)
    assert groups(store) == {"x": "k", "y": "k", "m": "k"}
    assert store.query("SELECT count(*) AS n FROM seen_texts")[0]["n"] == 4


def test_groups_among_new_prompts_are_named_by_the_lowest_id(store):
    arrive(store, ("b", LONG), ("a", LONG + " yet it"), ("c", LONG + " yet it seems so"), ("d", OTHER))
    assert groups(store) == {"b": "a", "c": "a"}


def test_short_texts_and_texts_without_words_are_met_too(store):
    arrive(store, ("1", "my card is lost, help me"), ("2", "\U0001f600"), ("3", ""), ("4", "nul\0 in it"))
    found = arrive(store, ("5", "My card is lost, help me pls"), ("6", "\U0001f600"), ("7", "change my pin"))
    assert [twin and twin[0] for twin in found.twins] == ["1", "2", None]


def test_what_is_decided_does_not_depend_on_the_size_of_the_batch(bank_store):
    rng = random.Random(4)
    words = [f"{a}{b}" for a in ("ba", "ko", "li", "mu") for b in ("n", "r", "tle", "ve", "gga")]
    texts = [rng.choices(words, k=rng.choice((5, 10, 14, 40))) for _ in range(60)]
    rows = []
    for _ in range(400):
        text = list(rng.choice(texts))
        for _ in range(rng.randint(0, 2)):
            text[rng.randrange(len(text))] = rng.choice(words)
        rows.append((f"{len(rows):04d}", " ".join(text)))
    decided = []
    for size in (400, 130, 50):
        store = bank_store([], name=f"{size}.duckdb")
        twins = [twin for start in range(0, 400, size) for twin in arrive(store, *rows[start : start + size]).twins]
        decided.append(twins)
    assert decided[0] == decided[1] == decided[2]
    kept = [row[1] for row, twin in zip(rows, decided[0], strict=True) if twin is None]
    sketches = sketch(kept)
    one, other = np.triu_indices(len(kept), 1)
    assert (similarities(sketches, one, sketches, other) >= 0.8).sum() <= 1
    assert 40 < len(kept) < 380


def test_remembering_puts_what_is_kept_in_the_place_of_what_was(store):
    arrive(store, ("a", LONG))
    with store.seen_texts() as seen:
        remember(seen, [Prompt("b", False, OTHER)], 0.8)
        assert len(seen) == 1
    assert arrive(store, ("c", LONG), ("d", OTHER)).same == [None, "b"]


def test_nothing_is_stored_when_a_batch_fails(store):
    prompts = [Prompt("a", False, LONG)]
    with pytest.raises(Exception, match="not suitable"), store.seen_texts() as seen:
        bands = meet(seen, prompts, 0.8).bands
        seen.add(prompts, bands.keys, bands.texts, bands.chars, groups={"a": "b"}, verdicts=[BROKEN])
    assert store.query("SELECT count(*) AS n FROM seen_texts")[0]["n"] == 0
