"""The kinds of task: what an answer is where the taxonomy does not say, what decides on it, and how many rows are a good number.

The volumes are rules of thumb for tuning a small model with an adapter, not measurements: the learning curve of a run's own report is
the better guide once there is one. They count rows that are trained on, so plan more than that: filters drop some.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datagen.records import PlanItem, Task


class TaskType(NamedTuple):
    """One kind of task.

    answer     the form of an answer where the taxonomy gives no output_schema
    checks     the filters that look at form and truth of such answers, beside those that look at every text
    low, high  rows to train on: in all, or of each label
    per_label  which of the two
    """

    answer: str
    checks: tuple[str, ...]
    low: int
    high: int
    per_label: bool = False


TASK_TYPES: Mapping[str, TaskType] = {
    "classification": TaskType('`{"label": one of the labels}`', ("schema", "truth"), 500, 2_000, per_label=True),
    "extraction": TaskType('`{"entities": {name: words of the input}}`', ("schema", "truth"), 2_000, 5_000),
    "question_answering": TaskType("text", ("length", "refusal", "language", "grounded"), 10_000, 50_000),
    "generation": TaskType("text", ("length", "refusal", "language"), 10_000, 50_000),
    "conversation": TaskType("text after each message", ("length", "refusal", "language"), 10_000, 50_000),
}


def with_defaults(task: Task, labels: Sequence[str]) -> Task:
    """The task with the output schema of its type, and the field that this implies, where the taxonomy gives none."""
    if task.output_schema is not None:
        return task
    if task.type == "classification":
        field = task.label_field or "label"
        return task.model_copy(update={"label_field": field, "output_schema": _object(field, {"enum": list(labels)})})
    if task.type == "extraction":
        field = task.entities_field or "entities"
        spans = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}
        return task.model_copy(update={"entities_field": field, "output_schema": _object(field, spans)})
    return task


def _object(field: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {field: schema}, "required": [field], "additionalProperties": False}


def volume(task: Task, labels: Sequence[str], items: Sequence[PlanItem]) -> str:
    """One line: the rows that are planned against the guide of the task's type."""
    kind = TASK_TYPES[task.type]
    guide = f"the guide says {kind.low:,}-{kind.high:,}"
    if not kind.per_label:
        return f"{task.type}: {sum(item.count for item in items):,} rows planned; {guide}"
    planned = Counter(dict.fromkeys(labels, 0))
    for item in items:
        if item.label is not None:
            planned[item.label] += item.count
    least, most = min(planned.values()), max(planned.values())
    rows = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{task.type}, {len(labels)} labels: {rows} rows a label planned; {guide}"
