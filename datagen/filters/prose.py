"""The sentences of an example, wherever they stand: what filters on wording read.

A task with a schema has its sentences in the strings of the answer; one of free text in the completion itself.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from datagen.filters.context import FilterContext
from datagen.filters.turns import answers, inputs
from datagen.records import Example


class Prose(NamedTuple):
    """A text, and where it stands, in words that follow "the": "input", "completion", "completion's reason", "reasoning"."""

    where: str
    text: str


def prose(example: Example, context: FilterContext) -> Iterator[Prose]:
    """The input, the sentences of the answer, and the reasoning. Not the rejected answer: what is wrong with that one is its use."""
    yield from (Prose(*said) for said in inputs(example))
    yield from answered(example, context)
    if example.reasoning:
        yield Prose("reasoning", example.reasoning)


def answered(example: Example, context: FilterContext) -> Iterator[Prose]:
    """The sentences of the answer: the completion, or the strings of more than one word in it where it is data."""
    if context.task.output_schema is None:
        yield from (Prose(*said) for said in answers(example))
    elif example.answer:
        yield from _strings(example.answer, "completion's ")


def _strings(value: object, where: str) -> Iterator[Prose]:
    if isinstance(value, str):
        if " " in value:
            yield Prose(where, value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(inner, f"{where}{name}" if where.endswith(" ") else f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner, where)
