"""The gate against exams: one test per kind of match, and what passes."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.filters.decontaminate import checked_against, decontaminate
from datagen.records import Message

LONG = "I ordered a new debit card two weeks ago and it has still not come to my house in Leeds"
MEDIUM = "the cash machine kept my card after midnight yesterday"
SHORT = "how do I change my PIN"


@pytest.fixture
def reason(bank_example, bank_context, exam):
    """The gate's reason for one text against an exam of the given texts; None when it passes."""

    def ask(text, *texts, **fields):
        context = replace(bank_context, evaluation_sets=(exam("What is the capital of France", *texts),))
        verdict = decontaminate([bank_example(text, **fields)], context)[0]
        return None if verdict.keep else verdict.reason

    return ask


def test_an_equal_text_is_refused_with_set_and_row(reason):
    assert reason("How do I change my pin?!", SHORT) == "decontaminate: the same as exam row 2"


def test_13_words_in_a_row_of_a_long_row_are_refused(reason):
    assert reason("Hello bank, " + " ".join(LONG.split()[2:16]) + ", so tell me", LONG) == "decontaminate: 13 words in a row of exam row 2"
    assert reason("Hello bank, " + " ".join(LONG.split()[2:14]) + ", so tell me", LONG) is None


def test_8_words_in_a_row_of_a_medium_row_are_refused(reason):
    said = " ".join(MEDIUM.split()[:8]) + " so what should I do now to get another one"
    assert reason(said, MEDIUM) == "decontaminate: 8 words in a row of exam row 2"
    assert reason(said.replace("kept", "swallowed"), MEDIUM) is None


def test_a_short_row_is_refused_where_it_is_held_whole(reason):
    said = "Good morning, I am new here: how do I change my PIN when I am abroad on holiday"
    assert reason(said, SHORT) == "decontaminate: 6 words in a row of exam row 2"
    assert reason(said.replace("my PIN", "the PIN"), SHORT) is None


def test_a_row_of_three_words_counts_only_as_a_whole_text(reason):
    assert reason("I lost my card in the park, what can I do about it", "lost my card") is None
    assert reason("Lost my card!", "lost my card") == "decontaminate: the same as exam row 2"


def test_a_near_copy_is_refused_with_its_similarity(reason):
    assert reason("how do I chnge my PIN", "how do I change my PIN") is None
    assert reason("how can I report a lost cards", "how can I report a lost card").startswith("decontaminate: 0.9")


def test_a_row_without_words_matches_itself_only(reason):
    assert reason("😀", "😀") == "decontaminate: the same as exam row 2"
    assert reason("...", "😀", "") is None


def test_completions_are_checked_and_json_ones_by_the_texts_in_them(bank_example, bank_context, text_task, exam):
    context = replace(bank_context, evaluation_sets=(exam(LONG, "refund"),))
    free = bank_example("Tell me something", completion=LONG)
    assert not decontaminate([free], replace(context, task=text_task))[0].keep
    quoting = bank_example("Tell me something", {"intent": "refund", "entities": {"what": ["it", LONG]}})
    assert not decontaminate([quoting], context)[0].keep
    assert decontaminate([bank_example("Tell me something", label="refund")], context)[0].keep  # a label is the task's own word


@pytest.mark.parametrize("where", ["rejected", "reasoning"])
def test_rejected_answers_and_reasoning_are_checked(bank_example, bank_context, exam, where):
    context = replace(bank_context, evaluation_sets=(exam(LONG),))
    assert not decontaminate([bank_example("Tell me something", **{where: f"Well: {LONG}"})], context)[0].keep


def test_every_turn_of_a_conversation_is_checked(bank_example, bank_context, exam):
    turns = (("system", LONG), ("user", "Is it lost?"), ("assistant", "Where is it now?"), ("user", "At home I think"))
    prompt = tuple(Message(role=role, content=text) for role, text in turns)
    for text, kept in (("is it lost", False), ("where is it now", False), ("At home, I think.", False), (LONG, True)):
        context = replace(bank_context, evaluation_sets=(exam(text),))
        assert decontaminate([bank_example(prompt=prompt)], context)[0].keep is kept


def test_a_set_has_a_threshold_and_a_run_of_its_own(bank_example, bank_context, exam):
    near = exam("My card still has not arrived yet, where is it?", name="near")
    example = bank_example("My card has not arrived yet, where is it?")
    found = decontaminate([example], replace(bank_context, evaluation_sets=(exam("Other words altogether, none of them known"), near)))
    assert found[0].keep
    loose = near.model_copy(update={"threshold": 0.5})
    (found,) = decontaminate([example], replace(bank_context, evaluation_sets=(near.model_copy(update={"name": "also"}), loose)))
    assert found.reason is not None
    assert re.fullmatch(r"decontaminate: 0\.\d\d like near row 1", found.reason)
    (found,) = decontaminate([example], replace(bank_context, evaluation_sets=(near.model_copy(update={"ngram": 6}),)))
    assert found.reason == "decontaminate: 6 words in a row of near row 1"
    assert checked_against([loose, near.model_copy(update={"name": "b", "ngram": 6})]) == (
        "checked: b@000000000000 (ngram 6), near@000000000000 (threshold 0.5)"
    )


def test_a_kept_example_says_what_it_was_checked_against(bank_example, bank_context, exam):
    sets = (exam("b", "c", name="second"), exam(LONG, name="first"))
    verdict = decontaminate([bank_example()], replace(bank_context, evaluation_sets=sets))[0]
    assert verdict.keep
    assert verdict.reason == "checked: first@000000000000, second@000000000000"
    assert decontaminate([bank_example()], bank_context)[0].reason == "checked: no evaluation set"


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
def test_every_copied_line_of_a_real_exam_is_found_whatever_its_case_and_greeting(bank_example, bank_context, exam):
    path = Path(os.environ["REAL_DATA"]) / "banking77_train_sample.jsonl"
    rows = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    context = replace(bank_context, evaluation_sets=(exam(*rows),))
    copies = [bank_example(row.upper().replace("?", "!!")) for row in rows]
    assert not any(verdict.keep for verdict in decontaminate(copies, context))
    greeted = [bank_example(f"Hello there, {row} Thanks") for row in rows if len(row.split()) >= 5]
    kept = [verdict for verdict in decontaminate(greeted, context) if verdict.keep]
    assert len(kept) <= 0.01 * len(greeted)
