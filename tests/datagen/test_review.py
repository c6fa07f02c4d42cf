"""Review: the sample, the decisions, and the rates with their intervals."""

import json
import random
import time
from collections import Counter

import pytest

from datagen.curate import curate
from datagen.errors import ConfigError
from datagen.review import (
    EVERYONE,
    Decision,
    agreements,
    apply,
    cohen_kappa,
    defect_rates,
    draw_sample,
    exact_interval,
    export_jsonl,
    import_jsonl,
    parse_decision,
    stratified,
)

TEXTS = [
    "Where is the card that I ordered in March?",
    "Two weeks and no post from you, is my card lost in transit?",
    "The tracking page for my debit card says nothing at all",
    "Still no card!",
    "When will the replacement arrive at my new flat",
    "Has the card I asked for left your office",
]


@pytest.fixture
def reviewed(bank_store, bank_example, bank_context):
    """A curated store of six accepted examples."""
    store = bank_store([bank_example(text) for text in TEXTS])
    curate(store, bank_context)
    return store


def decide(example, action="accept", **fields):
    return Decision(example_id=example.id, action=action, **fields)


def examples_of(bank_example, sizes):
    return [bank_example(f"{topic} {i}", item_id=f"{topic}:topic:{i}", topic=topic) for topic, size in sizes.items() for i in range(size)]


def test_a_sample_is_in_proportion_to_its_strata(bank_example):
    sample = stratified(examples_of(bank_example, {"a": 60, "b": 30, "c": 10}), n=20, seed=1)
    assert Counter(e.topic for e in sample) == {"a": 12, "b": 6, "c": 2}


def test_a_small_stratum_gets_one_place_while_there_are_enough(bank_example):
    examples = examples_of(bank_example, {"a": 200, "b": 2, "c": 1})
    assert Counter(e.topic for e in stratified(examples, n=10, seed=1)) == {"a": 8, "b": 1, "c": 1}
    assert Counter(e.topic for e in stratified(examples, n=2, seed=1)) == {"a": 1, "b": 1}


def test_a_sample_depends_on_the_seed_and_not_on_the_order(bank_example):
    examples = examples_of(bank_example, {"a": 40, "b": 40})
    first = stratified(examples, n=10, seed=1)
    random.Random(0).shuffle(examples)
    assert stratified(examples, n=10, seed=1) == first
    assert stratified(examples, n=10, seed=2) != first


def test_a_sample_larger_than_the_set_is_the_set(bank_example):
    assert len(stratified(examples_of(bank_example, {"a": 3, "b": 1}), n=99, seed=1)) == 4
    assert stratified([], n=5, seed=1) == []


def test_what_a_reviewer_judged_is_not_drawn_again_for_them(reviewed, bank_task):
    drawn = draw_sample(reviewed, reviewer="ana", seed=1, n=2)
    apply(reviewed, "ana", [decide(e) for e in drawn], bank_task)
    left = draw_sample(reviewed, reviewer="ana", seed=1, n=99)
    assert {e.id for e in left} | {e.id for e in drawn} == {e.id for e in reviewed.accepted_examples()}
    assert not {e.id for e in left} & {e.id for e in drawn}
    assert len(draw_sample(reviewed, reviewer="bo", seed=1, n=99)) == 6


def test_a_sample_without_a_size_is_5_percent_at_least_one(reviewed):
    assert len(draw_sample(reviewed, reviewer="ana", seed=1)) == 1


def test_a_rejection_takes_a_row_out_and_says_why(reviewed, bank_task):
    (example,) = draw_sample(reviewed, reviewer="ana", seed=1, n=1)
    assert apply(reviewed, "ana", [decide(example, "reject", reason="nobody talks so")], bank_task)[:3] == (0, 1, 0)
    row = reviewed.query("SELECT decided_by, reason FROM rejected WHERE id = ?", [example.id])[0]
    assert row == {"decided_by": "human:ana", "reason": "review: nobody talks so"}


def test_an_edit_makes_a_child_with_the_labels_of_its_answer(reviewed, bank_task):
    (example,) = draw_sample(reviewed, reviewer="ana", seed=1, n=1)
    answer = '{"intent":"out_of_scope","urgency":"normal","entities":{}}'
    applied = apply(reviewed, "ana", [decide(example, "edit", new_completion=answer)], bank_task)
    child = next(e for e in reviewed.accepted_examples() if e.id == applied.new_ids[0])
    assert (child.parent, child.completion, child.label) == (example.id, answer, "out_of_scope")
    assert child.item_id == f"{example.item_id}:edit:{example.id[:8]}"
    assert example.id not in {e.id for e in reviewed.accepted_examples()}
    assert reviewed.query("SELECT reason FROM rejected WHERE id = ?", [example.id]) == [{"reason": f"edited: into {child.id}"}]


def test_an_edited_input_replaces_the_last_user_message(reviewed, bank_task, bank_context):
    (example,) = draw_sample(reviewed, reviewer="ana", seed=1, n=1)
    applied = apply(reviewed, "ana", [decide(example, "edit", new_input="My card?")], bank_task)
    curate(reviewed, bank_context)
    child = next(e for e in reviewed.accepted_examples() if e.id == applied.new_ids[0])
    assert child.input == "My card?"
    assert child.prompt[0] == example.prompt[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"new_completion": "{"}, "is not JSON"),
        ({"new_completion": "[1]"}, "the task wants a JSON object"),
        ({"new_input": "   "}, "leaves nothing"),
        ({}, "changes nothing"),
    ],
)
def test_an_edit_that_makes_no_example_is_refused_and_nothing_stored(fields, message, reviewed, bank_task):
    first, second = draw_sample(reviewed, reviewer="ana", seed=1, n=2)
    with pytest.raises(ConfigError, match=message):
        apply(reviewed, "ana", [decide(first), decide(second, "edit", **fields)], bank_task)
    assert defect_rates(reviewed) == []


def test_an_unknown_example_and_an_odd_name_are_refused(reviewed, bank_task):
    with pytest.raises(ConfigError, match="not among the store's current examples"):
        apply(reviewed, "ana", [Decision(example_id="nope", action="accept")], bank_task)
    with pytest.raises(ConfigError, match="the reviewer's name is 'a b'"):
        apply(reviewed, "a b", [], bank_task)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", {"action": "accept"}),
        ("ACCEPT", {"action": "accept"}),
        ("r wrong label", {"action": "reject", "reason": "wrong label"}),
        ('e {"intent": "x"}', {"action": "edit", "new_completion": '{"intent": "x"}'}),
        ("i Where is it?", {"action": "edit", "new_input": "Where is it?"}),
    ],
)
def test_a_typed_decision_is_read(text, expected, bank_example):
    example = bank_example()
    assert parse_decision(text, example) == Decision(example_id=example.id, **expected)


@pytest.mark.parametrize("text", ["r", "e", "i", "x", ""])
def test_a_typed_decision_that_is_none_is_refused_with_the_forms(text, bank_example):
    with pytest.raises(ConfigError, match=r"r REASON|e TEXT|i TEXT"):
        parse_decision(text, bank_example())


def test_a_filled_in_file_gives_its_decisions_and_leaves_out_empty_rows(tmp_path, bank_example):
    examples = [bank_example(text) for text in TEXTS[:4]]
    path = tmp_path / "sample.jsonl"
    assert export_jsonl(examples, path) == 4
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["input"] == TEXTS[0]
    rows[0]["decision"] = "accept"
    rows[1] |= {"decision": "Reject", "reason": "odd"}
    rows[2] |= {"decision": "edit", "new_completion": "{}"}
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert import_jsonl(path) == [
        decide(examples[0]),
        decide(examples[1], "reject", reason="odd"),
        decide(examples[2], "edit", new_completion="{}"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":1: not valid JSON"),
        ("[]", ":1: holds a list"),
        ('{"id": "1", "desicion": ""}', ":1: 'desicion' is not a field. Did you mean 'decision'?"),
        ('{"id": "1", "decision": "", "zzz": 1}', ":1: 'zzz' is not a field. Remove it."),
        ('{"decision": "accept"}', ":1: 'id' is None; give text."),
        ('{"id": "1", "decision": "acept"}', ":1: decision is 'acept'. Did you mean 'accept'?"),
        ('{"id": "1", "decision": "42"}', ":1: decision is '42'. Write accept, reject or edit."),
        ('{"id": "1", "decision": "reject"}', ":1: a rejection needs a `reason`."),
        ('{"id": "1", "decision": "edit"}', ":1: decision is 'edit', and new_completion"),
        ('{"id": "1", "decision": "accept", "new_input": "x"}', ":1: decision is 'accept', and new_completion"),
        ('{"id": "1", "decision": "", "reason": "x"}', ":1: `decision` is empty, but a reason"),
        ('{"id": "1", "decision": "reject", "reason": 3}', ":1: 'reason' is 3; give text."),
        ('{"id": "1", "decision": "accept"}\n{"id": "1", "decision": "accept"}', ":2: id '1' was judged on an earlier line"),
    ],
)
def test_a_broken_file_is_refused_with_line_and_field(line, message, tmp_path):
    path = tmp_path / "sample.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError) as raised:
        import_jsonl(path)
    assert str(raised.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        import_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        import_jsonl(tmp_path / "bytes.jsonl")


def test_the_defect_rate_counts_rejected_and_edited_and_not_the_edits(reviewed, bank_task):
    sample = draw_sample(reviewed, reviewer="ana", seed=1, n=4)
    edit = decide(sample[1], "edit", new_input="My card?")
    apply(reviewed, "ana", [decide(sample[0], "reject", reason="odd"), edit, *map(decide, sample[2:])], bank_task)
    rates = {rate.stratum: rate for rate in defect_rates(reviewed)}
    assert set(rates) == {"all", "generator topic", "topic cards/arrival"}
    overall = rates["all"]
    assert (overall.reviewer, overall.reviewed, overall.defects, overall.rate) == ("ana", 4, 2, 0.5)
    assert (round(overall.low, 4), round(overall.high, 4)) == (0.0676, 0.9324)


def test_two_reviewers_have_a_rate_each_one_together_and_a_kappa(reviewed, bank_task):
    sample = draw_sample(reviewed, reviewer="ana", seed=1, n=4)
    bad = {"action": "reject", "reason": "odd"}
    apply(reviewed, "ana", [decide(sample[0], **bad), decide(sample[1], **bad), decide(sample[2]), decide(sample[3])], bank_task)
    time.sleep(0.002)
    apply(reviewed, "bo", [decide(sample[0], **bad), decide(sample[1]), decide(sample[2]), decide(sample[3])], bank_task)
    overall = {rate.reviewer: rate.defects for rate in defect_rates(reviewed) if rate.stratum == "all"}
    assert overall == {"ana": 2, "bo": 1, EVERYONE: 1}
    assert [found[:4] for found in agreements(reviewed)] == [("ana", "bo", 4, 0.75)]
    (found,) = agreements(reviewed)
    assert found.kappa == pytest.approx(0.5)
    assert -0.5 < found.low < 0.1 < 0.85 < found.high < 1


def test_the_interval_is_clopper_and_pearsons():
    assert exact_interval(3, 200) == pytest.approx((0.0031, 0.0432), abs=1e-4)
    assert exact_interval(0, 20) == pytest.approx((0.0, 0.1684), abs=1e-4)
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_kappa_is_none_where_chance_would_always_agree():
    assert cohen_kappa([(True, True)] * 3) == (1.0, None)
    assert cohen_kappa([(True, False), (False, True)]) == (0.0, -1.0)
