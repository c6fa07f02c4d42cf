"""Labels that the texts contradict: planted ones are found, by a classifier that never saw their group."""

import random
from dataclasses import replace

import pytest

from datagen import curate as curation
from datagen.curate import check_settings, curate, curate_new
from datagen.errors import ConfigError
from datagen.filters import label_noise
from datagen.filters.label_noise import given_label

WORDS = {
    "card_arrival": "parcel post letter arrived waiting envelope delivery mailbox weeks address",
    "lost_card": "stolen lost wallet pickpocket vanished mugged missing misplaced thief taken",
    "refund": "refund money back returned shop merchant repay credited purchase owed",
}


@pytest.fixture
def noisy(bank_example):
    """120 messages, of which every twentieth carries another label than its words say; examples and the ids of those."""
    rng = random.Random(1)
    examples, wrong = [], set()
    for number in range(120):
        label = sorted(WORDS)[number % 3]
        text = " ".join(rng.sample(WORDS[label].split(), 5)) + f" {number}"
        said = sorted(WORDS)[(number + 1) % 3] if number % 20 == 0 else label
        examples.append(bank_example(text, label=said, item_id=f"cards/arrival:topic:{number}"))
        if said != label:
            wrong.add(examples[-1].id)
    return examples, wrong


@pytest.fixture
def looking(bank_context):
    return replace(bank_context, settings={"label_noise": {"lead": 0.5}})


def test_planted_wrong_labels_are_found_and_right_ones_left(noisy, looking):
    examples, wrong = noisy
    verdicts = label_noise(examples, looking)
    dropped = {verdict.example_id for verdict in verdicts if not verdict.keep}
    assert wrong <= dropped
    assert len(dropped - wrong) <= 1
    assert all(verdict.score is not None and verdict.score < 0.3 for verdict in verdicts if verdict.example_id in wrong)
    (reason,) = {verdict.reason for verdict in verdicts if verdict.example_id == examples[0].id}
    assert reason is not None
    assert reason.startswith("label_noise: lost_card given at 0.")
    assert "reads as card_arrival at 0." in reason


def test_the_order_of_examples_changes_nothing(noisy, looking):
    examples, _ = noisy
    verdicts = label_noise(examples, looking)
    assert sorted(label_noise(examples[::-1], looking), key=lambda v: v.example_id) == sorted(verdicts, key=lambda v: v.example_id)


def test_it_is_off_unless_the_recipe_asks(noisy, bank_context):
    assert label_noise(noisy[0], bank_context) == []


def test_a_text_is_not_known_by_its_twin(noisy, looking, bank_example):
    examples, _ = noisy
    text = "refund money back returned shop merchant repay credited"
    twins = [bank_example(text, label="lost_card", item_id=f"cards/arrival:topic:{900 + n}") for n in range(6)]
    verdicts = {verdict.example_id: verdict for verdict in label_noise([*examples, *twins], looking)}
    assert not any(verdicts[twin.id].keep for twin in twins)


def test_rare_classes_and_single_classes_get_no_verdict(noisy, looking, bank_example):
    examples, _ = noisy
    rare = bank_example("Something else", label="out_of_scope")
    assert rare.id not in {verdict.example_id for verdict in label_noise([*examples, rare], looking)}
    assert label_noise([bank_example(f"Where is it {n}?") for n in range(20)], looking) == []
    assert label_noise([], looking) == []


def test_the_label_is_the_answers_own(bank_example, bank_context, text_task):
    answered = bank_example("Hello", {"intent": "refund"}, label="lost_card")
    assert given_label(answered, bank_context) == "refund"
    assert given_label(bank_example("Hello", completion="{", answer=None), replace(bank_context)) == "card_arrival"
    free = replace(bank_context, task=text_task)
    assert given_label(bank_example("Hello", completion="refund "), free) == "refund"
    assert given_label(bank_example("Hello", completion="money"), free) == "card_arrival"


def test_new_examples_alone_cannot_be_judged(noisy, looking, bank_store):
    store = bank_store(noisy[0])
    looking = replace(looking, policy=(), settings={**looking.settings, "language": {"min_stop_word_share": 0}})
    curate(store, looking)
    assert store.query("SELECT count(*) AS n FROM verdicts WHERE decided_by = 'filter:label_noise' AND score IS NOT NULL")[0]["n"] > 0
    assert curate_new(store, looking) is None


def test_without_scikit_learn_the_recipe_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(curation, "find_spec", lambda name: None)
    check_settings({"label_noise": {"lead": 1}}, tmp_path)
    with pytest.raises(ConfigError, match=r"label_noise needs scikit-learn\. Install it \(pip install 'retort\[noise\]'\)"):
        check_settings({"label_noise": {"lead": 0.5}}, tmp_path)
    with pytest.raises(ConfigError, match=r"label_noise\.lead is 2; give a lead"):
        check_settings({"label_noise": {"lead": 2}}, tmp_path)
