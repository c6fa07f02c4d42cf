"""Curation: who is looked at by what, and whose word counts."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.curate import check_settings, curate, curate_new
from datagen.errors import ConfigError, StoreError
from datagen.filters import EXAMPLE_FILTERS, GATES, SET_FILTERS
from datagen.records import Criterion, Example, Rubric, Verdict
from datagen.store import Store

ASKED_FOR = {
    "verify",
    "semantic_duplicate",
    "label_noise",
    "style",
    "earlier",
    "too_near_seed",
    "quota",
}  # say nothing unless taxonomy or recipe ask
LONG = "I ordered a new debit card two weeks ago and it has still not come to my house in Leeds"


def accepted(store):
    return {row["id"] for row in store.query("SELECT id FROM accepted")}


def test_every_filter_gives_each_example_that_it_saw_one_verdict(bank_store, bank_example, bank_context):
    examples = [bank_example(LONG), bank_example("Where is it?", completion="{")]
    store = bank_store(examples)
    report = curate(store, bank_context)
    verdicts = store.verdicts()
    assert len({(v.example_id, v.by) for v in verdicts}) == len(verdicts)
    seen = {example.id: {v.by.removeprefix("filter:") for v in verdicts if v.example_id == example.id} for example in examples}
    assert seen[examples[0].id] == {*GATES, *EXAMPLE_FILTERS, *SET_FILTERS} - ASKED_FOR
    assert seen[examples[1].id] == {*GATES, *EXAMPLE_FILTERS} - ASKED_FOR
    assert (report.examples, report.accepted) == (2, 1)
    assert [(r.by, r.kind, r.examples) for r in report.reasons] == [("filter:schema", "invalid_json", 1)]
    assert {f.name: (f.checked, f.dropped) for f in report.filters}["schema"] == (2, 1)


def test_curating_twice_changes_nothing(bank_store, bank_example, bank_context):
    store = bank_store([bank_example(LONG), bank_example(LONG + " yet"), bank_example("no", completion="{")])
    first = curate(store, bank_context), store.verdicts(), store.query("SELECT * FROM groups ORDER BY ALL")
    assert (curate(store, bank_context), store.verdicts(), store.query("SELECT * FROM groups ORDER BY ALL")) == first


def test_a_dropped_example_shadows_no_other(bank_store, bank_example, bank_context):
    good = bank_example(LONG)
    bad = [bank_example(LONG, completion="{", item_id=f"cards/arrival:topic:{i}") for i in range(5)]
    store = bank_store([good, *bad])
    curate(store, bank_context)
    assert accepted(store) == {good.id}


def test_what_a_person_rejected_shadows_no_other(bank_store, bank_example, bank_context):
    low, high = sorted([bank_example(LONG), bank_example(LONG + " yet")], key=lambda e: e.id)
    store = bank_store([low, high])
    curate(store, bank_context)
    assert accepted(store) == {low.id}
    store.add_verdicts([Verdict(example_id=low.id, by="human:ana", keep=False, reason="review: odd")])
    curate(store, bank_context)
    assert accepted(store) == {high.id}


def test_what_a_person_accepted_survives_and_drops_its_twin(bank_store, bank_example, bank_context):
    low, high = sorted([bank_example(LONG), bank_example(LONG + " yet")], key=lambda e: e.id)
    store = bank_store([low, high])
    store.add_verdicts([Verdict(example_id=high.id, by="human:ana", keep=True)])
    report = curate(store, bank_context)
    assert accepted(store) == {high.id}
    assert (report.accepted, report.overruled) == (1, 0)


def test_a_person_overrules_a_filter_and_the_last_word_counts(bank_store, bank_example, bank_context):
    odd = bank_example("Kortet mitt kom aldri fram, selv etter fire uker")
    store = bank_store([odd])
    assert curate(store, bank_context).accepted == 0
    store.add_verdicts([Verdict(example_id=odd.id, by="human:ana", keep=True)])
    assert curate(store, bank_context)[:3] == (1, 1, 1)
    time.sleep(0.002)
    store.add_verdicts([Verdict(example_id=odd.id, by="human:bo", keep=False, reason="review: no")])
    assert curate(store, bank_context).accepted == 0
    assert accepted(store) == set()


def test_the_gate_looks_also_at_what_other_filters_drop(bank_store, bank_example, bank_context, exam):
    copied = bank_example(LONG, completion="{")
    store = bank_store([copied])
    report = curate(store, replace(bank_context, evaluation_sets=(exam(LONG),)))
    assert {(r.by, r.kind) for r in report.reasons} == {("filter:decontaminate", "decontaminate"), ("filter:schema", "invalid_json")}


def test_near_duplicates_share_a_group_and_the_largest_is_reported(bank_store, bank_example, bank_context):
    pair = [bank_example(LONG), bank_example(LONG, rejected="{}", item_id="cards/arrival:preference:0")]
    store = bank_store([*pair, bank_example("change my pin")])
    report = curate(store, bank_context)
    assert (report.groups, report.largest_group) == (2, 2)
    rows = store.query("SELECT DISTINCT group_id, split FROM accepted WHERE id IN (?, ?)", [e.id for e in pair])
    assert [row["group_id"] for row in rows] == [min(e.id for e in pair)]


def test_filters_are_named_before_they_run(bank_store, bank_example, bank_context):
    named = []
    curate(bank_store([bank_example()]), bank_context, progress=named.append)
    assert named == [*GATES, *EXAMPLE_FILTERS, *SET_FILTERS, "groups"]


def test_an_empty_store_says_what_to_run(tmp_path, bank_context):
    with pytest.raises(StoreError, match=r"holds no examples\. Run `python -m datagen generate`"):
        curate(Store(tmp_path / "empty.duckdb"), bank_context)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lenght": {}}, "filters.lenght is not a filter. Did you mean 'length'?"),
        ({"length": {"max_chars_input": 3}}, "filters.length.max_chars_input is not a setting. Did you mean 'max_input_chars'?"),
        ({"judge": {"min": "high"}}, "filters.judge.min is 'high'; give a number."),
        ({"near_duplicate": {"threshold": 80}}, "filters.near_duplicate.threshold is 80; give a similarity from 0.5 to 1."),
        ({"schema": {"zzz": 1}}, "filters.schema.zzz is not a setting. Known: none, this filter has no settings."),
    ],
)
def test_settings_that_do_not_exist_are_refused_with_the_near_name(settings, message):
    with pytest.raises(ConfigError) as raised:
        check_settings(settings, Path("recipe.yaml"))
    assert str(raised.value) == f"recipe.yaml: {message}"


def test_settings_that_exist_pass():
    check_settings({"length": {"max_input_chars": 300}, "near_duplicate": {"threshold": 0.9}}, Path("recipe.yaml"))


def test_ten_thousand_short_examples_are_curated_in_seconds(bank_example, bank_context):
    from datagen.curate import judge_all
    from datagen.filters.dedup import group_ids

    words = [f"{a}{b}" for a in ("ba", "ko", "li", "mu", "re", "sta", "ti") for b in ("n", "r", "tle", "ve", "gga", "sy", "ck")]
    template = bank_example()

    def text(i: int) -> str:
        return " ".join(words[(i * step + i // 7) % len(words)] for step in range(1, 9 + i % 9))

    examples = [
        Example.model_construct(**{**dict(template), "prompt": bank_example(text(i)).prompt, "item_id": f"cards/arrival:topic:{i}"})
        for i in range(10_000)
    ]
    started = time.process_time()
    verdicts = judge_all(examples, {}, bank_context)
    group_ids(examples)
    assert time.process_time() - started < 30  # about 5 s alone on one core; room for a busy machine
    assert len({v.example_id for v in verdicts}) == 10_000
    assert json.loads(template.completion)["intent"] == "card_arrival"


def test_new_examples_are_judged_alone_against_what_is_kept(bank_store, bank_example, bank_context):
    first = [bank_example(LONG), bank_example("change my pin", item_id="cards/arrival:topic:1")]
    store = bank_store(first)
    curate(store, bank_context)
    new = [
        bank_example(LONG + " yet", item_id="cards/arrival:topic:2"),
        bank_example(LONG.upper(), item_id="cards/arrival:topic:3"),
        bank_example("Where is the exchange rate of today to be found", item_id="cards/arrival:topic:4"),
        bank_example("Where is the exchange rate of today to be found", completion="{", item_id="cards/arrival:topic:5"),
    ]
    bank_store(new)
    before = {(v.example_id, v.by): v for v in store.verdicts()}
    report = curate_new(store, bank_context)
    after = {(v.example_id, v.by): v for v in store.verdicts()}
    assert (report.examples, report.accepted) == (4, 1)
    assert before.items() <= after.items()
    assert after[new[0].id, "filter:near_duplicate"].reason == f"near_duplicate: 0.95 like {first[0].id}"
    assert after[new[1].id, "filter:duplicate"].reason == f"duplicate: same prompt as {first[0].id}"
    assert (new[1].id, "filter:near_duplicate") not in after
    assert accepted(store) == {first[0].id, first[1].id, new[2].id}
    assert {(r.by, r.kind) for r in report.reasons} == {
        ("filter:duplicate", "duplicate"), ("filter:near_duplicate", "near_duplicate"), ("filter:schema", "invalid_json"),
    }  # fmt: skip
    assert curate_new(store, bank_context).examples == 0
    assert {(v.example_id, v.by) for v in store.verdicts()} == after.keys()


def test_new_examples_get_the_verdicts_that_a_full_curate_gives_where_nothing_came_before(bank_store, bank_example, bank_context):
    store = bank_store([bank_example("change my pin")])
    curate(store, bank_context)
    texts = [LONG, LONG + " yet", LONG.upper(), "Kortet mitt kom aldri fram, selv etter fire uker", "card", "card!"]
    bank_store([bank_example(text, item_id=f"cards/arrival:topic:{i}") for i, text in enumerate(texts, 1)])
    curate_new(store, bank_context)
    alone = sorted((v.example_id, v.by, v.keep, v.reason) for v in store.verdicts())
    groups = store.query("SELECT id, group_id FROM accepted ORDER BY id")
    curate(store, bank_context)
    assert sorted((v.example_id, v.by, v.keep, v.reason) for v in store.verdicts()) == alone
    assert store.query("SELECT id, group_id FROM accepted ORDER BY id") == groups


def test_new_examples_are_not_judged_alone_when_the_ground_has_changed(bank_store, bank_example, bank_context, exam):
    store = bank_store([bank_example(LONG)])
    assert curate_new(store, bank_context) is None
    curate(store, bank_context)
    assert curate_new(store, bank_context) is not None
    assert curate_new(store, replace(bank_context, evaluation_sets=(exam(LONG),))) is None
    assert curate_new(store, replace(bank_context, settings={"near_duplicate": {"threshold": 0.9}})) is None
    store.set_plan([], {})
    assert curate_new(store, bank_context) is None


def test_a_persons_word_makes_a_full_curate_necessary(bank_store, bank_example, bank_context):
    example = bank_example(LONG)
    store = bank_store([example])
    curate(store, bank_context)
    store.add_verdicts([Verdict(example_id=example.id, by="human:ana", keep=False, reason="review: odd")])
    assert curate_new(store, bank_context) is None


def test_an_example_that_was_scored_again_makes_a_full_curate_necessary(bank_store, bank_example, bank_context):
    store = bank_store([bank_example(LONG, scores={"judge_answer": 5.0})])
    curate(store, bank_context)
    bank_store([bank_example(LONG, scores={"judge_answer": 2.0})])
    assert curate_new(store, bank_context) is None
    assert curate(store, bank_context).accepted == 0


def test_new_examples_are_judged_with_all_where_style_compares_all_with_all(bank_store, bank_example, bank_context):
    store = bank_store([bank_example(LONG)])
    context = replace(bank_context, settings={"style": {"max_z": 6}})
    curate(store, context)
    assert curate_new(store, context) is None


def test_a_changed_prompt_or_rubric_makes_all_verdicts_anew(bank_store, bank_example, bank_context):
    store = bank_store([bank_example(LONG)])
    curate(store, bank_context)
    assert curate_new(store, bank_context) is not None
    assert curate_new(store, replace(bank_context, prompts={"answer": ("Answer with one word and nothing else at all.",)})) is None
    rubric = Rubric(criteria={"tone": Criterion(description="warm")})
    assert curate_new(store, replace(bank_context, rubric=rubric)) is None


def test_an_exam_that_was_checked_once_is_checked_for_ever(bank_store, bank_example, bank_context, exam):
    store = bank_store([bank_example(LONG)])
    curate(store, replace(bank_context, evaluation_sets=(exam("Something else entirely", name="kept"),)))
    assert accepted(store)
    curate(store, replace(bank_context, evaluation_sets=(exam("Another thing", LONG, name="dropped"),)))
    assert not accepted(store)
    curate(store, bank_context)
    assert not accepted(store)
    assert store.query("SELECT evaluation_set, row, examples, matches, text FROM evaluation_hits") == [
        {"evaluation_set": "dropped", "row": 2, "examples": 1, "matches": ["the same as"], "text": LONG}
    ]
    assert [found.name for found in store.exams(())] == ["dropped", "kept"]
    curate(store, replace(bank_context, retired=frozenset({"dropped"})))
    assert accepted(store)
    assert curate_new(store, bank_context) is None  # the ground is another


def test_an_exam_that_was_edited_is_checked_as_it_was_too(bank_store, bank_example, bank_context, exam):
    store = bank_store([bank_example(LONG)])
    old = exam(LONG).model_copy(update={"threshold": 0.7})
    new = exam("Quite another question", "and one more")
    curate(store, replace(bank_context, evaluation_sets=(old,)))
    curate(store, replace(bank_context, evaluation_sets=(new,)))
    assert not accepted(store)
    earlier = old.model_copy(update={"name": f"exam@{old.sha256[:8]}"})
    assert store.exams((new,)) == (new, earlier)
    assert store.query("SELECT evaluation_set, text FROM evaluation_hits") == [{"evaluation_set": earlier.name, "text": LONG}]
    curate(store, replace(bank_context, evaluation_sets=(new,), retired=frozenset({"exam"})))
    assert accepted(store)
