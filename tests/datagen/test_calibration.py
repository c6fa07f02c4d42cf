"""The judge against people: the population, the sample, agreement, criteria and advice."""

import random
import time

import pytest

from datagen.calibration import as_json, draw, judge_agreement, judged_examples, lines
from datagen.curate import curate
from datagen.review import Decision, apply

WORDS = (
    "card", "post", "parcel", "bank", "town", "street", "letter", "clerk", "window", "branch", "office", "counter", "queue", "paper", "stamp",
    "week", "month", "year", "day", "hour",
)  # fmt: skip


@pytest.fixture
def judged(bank_store, bank_example, bank_context):
    """A curated store of 120 examples, half of which the judge scored below its bound, and one that another filter dropped."""
    rng = random.Random(4)
    examples = [
        bank_example(
            f"Where is my {' '.join(rng.sample(WORDS, 9))}?", scores={"judge_answer": 2 + number % 4, "judge_input": 5.0},
            item_id=f"cards/arrival:topic:{number}",
        )
        for number in range(120)
    ]  # fmt: skip
    other = bank_example("Is it lost?", completion="{", scores={"judge_answer": 5, "judge_input": 5}, item_id="cards/arrival:topic:200")
    store = bank_store([*examples, other])
    curate(store, bank_context)
    return store


def review(store, sample, task, keep, reviewer="ana"):
    apply(
        store,
        reviewer,
        [
            Decision(example_id=e.id, action="accept") if keep(e) else Decision(example_id=e.id, action="reject", reason="wrong")
            for e in sample
        ],
        task,
    )


def test_the_population_is_what_the_judge_alone_decides(judged):
    population = judged_examples(judged)
    assert len(population) == len([e for e in judged.current_examples() if e.completion != "{"])
    assert {row.kept for row in population} == {True, False}
    assert all(row.kept == (row.scores["answer"] >= 4) and row.said is None for row in population)


def test_half_of_the_sample_comes_from_what_the_judge_dropped(judged, bank_task):
    sample = draw(judged, reviewer="ana", seed=1, n=20)
    assert sum(e.scores["judge_answer"] < 4 for e in sample) == 10
    assert sample == draw(judged, reviewer="ana", seed=1, n=20)
    review(judged, sample, bank_task, lambda e: True)
    assert not {e.id for e in sample} & {e.id for e in draw(judged, reviewer="ana", seed=1, n=20)}
    assert len(draw(judged, reviewer="ana", seed=1, n=1000)) == 100


def test_nobody_has_reviewed_anything_yet(judged):
    assert judge_agreement(judged) is None
    assert lines(None) == []
    assert as_json(None) is None


def test_agreement_is_weighed_and_has_its_interval(judged, bank_task):
    review(judged, draw(judged, reviewer="ana", seed=1, n=60), bank_task, lambda e: e.scores["judge_answer"] >= 3)
    found = judge_agreement(judged)
    assert (found.reviewed_kept, found.reviewed_dropped, found.kept, found.dropped) == (30, 30, 60, 60)
    assert found.agreement == pytest.approx(0.75, abs=0.06)
    assert found.interval.low < found.kappa < found.interval.high
    told = lines(found)
    assert told[0].startswith("Judge and people: 30 reviewed of 60 that it kept, 30 of 60 that it dropped; they agree on ")
    assert "95 % interval" in told[0]


def test_the_bound_that_fits_people_is_advised_with_how_sure_that_is(judged, bank_task):
    review(judged, draw(judged, reviewer="ana", seed=1, n=60), bank_task, lambda e: e.scores["judge_answer"] >= 3)
    answer, written = judge_agreement(judged).criteria
    assert (answer.criterion, written.criterion) == ("answer", "input")
    best = answer.thresholds[0]
    assert (best.at_least, best.kappa) == (3, pytest.approx(1.0))
    assert best.best_in > 0.95
    assert 0.7 < answer.correlation < 1
    assert written.correlation is None
    told = lines(judge_agreement(judged))
    assert "a bound of 3 fits them best (kappa 1.00; the best in" in told[1]
    assert told[2] == "  input: 60 rows say nothing, its scores or people's words are all the same"


def test_unsure_advice_names_the_other_bounds(judged, bank_task):
    rng = random.Random(1)
    review(judged, draw(judged, reviewer="ana", seed=1, n=16), bank_task, lambda e: rng.random() < 0.5)
    answer = judge_agreement(judged).criteria[0]
    assert len([t for t in answer.thresholds if t.best_in >= 0.05]) > 1
    assert sum(t.best_in for t in answer.thresholds) == pytest.approx(1)


def test_a_review_of_accepted_rows_alone_says_what_is_lacking(judged, bank_task):
    kept = [e for e in judged.current_examples() if e.scores["judge_answer"] >= 4 and e.completion != "{"]
    review(judged, kept[:10], bank_task, lambda e: e.scores["judge_answer"] == 5)
    found = judge_agreement(judged)
    assert (found.kappa, found.interval, found.agreement) == (None, None, None)
    assert lines(found)[0].endswith("both have to be reviewed before their agreement is known: python -m datagen review --calibrate")
    assert found.criteria[0].thresholds == ()
    assert found.criteria[0].correlation == pytest.approx(1)


def test_a_judge_that_drops_nothing_has_no_kappa(bank_store, bank_example, bank_context, bank_task):
    examples = [bank_example(f"Where is my {word} today?", scores={"judge_answer": 5, "judge_input": 5}) for word in WORDS[:6]]
    store = bank_store(examples)
    curate(store, bank_context)
    review(store, examples[:4], bank_task, lambda e: True)
    assert lines(judge_agreement(store))[0].endswith("kappa is not defined, it drops nothing")


def test_people_who_accept_everything_agree_as_chance_does(judged, bank_task):
    review(judged, draw(judged, reviewer="ana", seed=1, n=20), bank_task, lambda e: True)
    found = judge_agreement(judged)
    assert found.kappa == pytest.approx(0)
    time.sleep(0.002)
    assert as_json(found)["criteria"][0]["thresholds"] == []
