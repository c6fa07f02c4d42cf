"""Slices find what was planted, and are honest about how many were looked at."""

import json
import random
from typing import Any

from train.dataset import Row
from train.metrics import Answer, TaskSpec, read_answer
from train.slices import partitions, slices

TASK = TaskSpec(label_field="intent", labels=("a", "b"))


def rows_of(count: int, topics: int = 8) -> list[Row]:
    return [
        Row(
            id=f"r{i:04d}",
            prompt=[{"role": "user", "content": f"m {i}"}],
            completion=json.dumps({"intent": "ab"[i % 2]}),
            label="ab"[i % 2],
            kind="injection" if i % 5 == 0 else None,
            topic=f"t{i // 2 % topics}",
            group_id=None,
            generator="topic" if i % 3 else "seed",
            dimensions=(("difficulty", ("easy", "hard")[i % 7 == 0]),),
        )
        for i in range(count)
    ]


def answered(rows: list[Row], right: Any) -> list[Answer]:
    texts = [row.completion if right(row) else json.dumps({"intent": "ba"["ab".index(str(row.label))]}) for row in rows]
    return [read_answer(TASK, "m", str(text), row.completion, row.label) for row, text in zip(rows, texts, strict=True)]


def test_rows_are_divided_by_each_property_that_differs() -> None:
    found = list(partitions(rows_of(80)))
    assert {part.by for part in found} == {"topic", "generator", "kind", "label", "difficulty"}
    assert sum(len(part.rows) for part in found if part.by == "topic") == 80


def test_a_property_that_divides_as_an_earlier_one_did_is_left_out() -> None:
    rows = [row._replace(label=row.topic) for row in rows_of(80)]
    assert "label" not in {part.by for part in partitions(rows)}


def test_a_planted_weak_topic_is_the_only_one_that_survives() -> None:
    rng = random.Random(0)
    rows = rows_of(400)
    answers = {"dpo": answered(rows, lambda row: rng.random() < (0.4 if row.topic == "t3" else 0.9))}
    found = slices("test", rows, answers, model="dpo")
    assert found is not None
    assert [line["slice"] for line in found["slices"] if line["weak"]] == ["t3"]
    assert found["tests"] == len(found["slices"]) > 10
    assert found["metric"] == "label_accuracy"


def test_without_a_difference_slices_are_called_weak_in_one_of_twenty_tables_at_most() -> None:
    alarms = 0
    rows = rows_of(200)
    for seed in range(60):
        rng = random.Random(seed)
        found = slices("test", rows, {"dpo": answered(rows, lambda row, rng=rng: rng.random() < 0.8)}, model="dpo")
        assert found is not None
        alarms += any(line["weak"] for line in found["slices"])
    assert alarms <= 7, "5 % of 60 are 3"


def test_a_slice_that_training_hurt_is_told_from_one_that_it_helped() -> None:
    rng = random.Random(1)
    rows = rows_of(400)
    answers = {
        "base": answered(rows, lambda row: rng.random() < 0.5),
        "dpo": answered(rows, lambda row: rng.random() < (0.1 if row.topic == "t1" else 0.9)),
    }
    found = slices("test", rows, answers, model="dpo", rivals=("few_shot", "base"))
    assert found is not None
    assert found["rival"] == "base"
    hurt = [line["slice"] for line in found["slices"] if line["change"] < 0 and line["p_change_holm"] <= 0.05]
    assert hurt == ["t1"]
    assert all(line["p_change"] <= line["p_change_holm"] for line in found["slices"])


def test_small_slices_are_counted_and_not_scored() -> None:
    rows = [*rows_of(40), *[row._replace(topic="rare", id=f"x{row.id}") for row in rows_of(2)]]
    found = slices("test", rows, {"dpo": answered(rows, lambda row: True)}, model="dpo")
    assert found is not None
    assert "rare" not in {line["slice"] for line in found["slices"]}
    assert found["left_out"] >= 1


def test_free_text_that_is_never_exactly_right_is_compared_by_its_overlap() -> None:
    rng = random.Random(2)
    task = TaskSpec(output="text", type="generation")
    rows = [row._replace(label=None, completion="one two three four") for row in rows_of(200)]

    def answers(weak: str) -> list[Answer]:
        near = ("one two three four five", "two three four", "one two three")
        return [read_answer(task, "m", "one" if row.topic == weak else rng.choice(near), row.completion) for row in rows]

    found = slices("test", rows, {"base": answers("t5"), "dpo": answers("t2")}, model="dpo", rivals=("base",))
    assert found is not None
    assert found["metric"] == "rouge_l"
    assert [line["slice"] for line in found["slices"] if line["weak"]] == ["t2"]
    changed = {line["slice"]: line["change"] for line in found["slices"] if line["p_change_holm"] <= 0.05 and line["by"] == "topic"}
    assert changed["t2"] < 0 < changed["t5"] and set(changed) == {"t2", "t5"}


def test_rows_that_nothing_can_be_scored_on_have_no_slices() -> None:
    rows = [row._replace(label=None, completion=None) for row in rows_of(20)]
    blank = [read_answer(TASK, "m", "?", None, None) for _ in rows]
    assert slices("test", rows, {"dpo": blank}, model="dpo") is None
