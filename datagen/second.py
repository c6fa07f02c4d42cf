"""A second teacher's answer to the same input, where nobody knows the truth: how far it agrees is a score of the example.

It measures; the filter `agreement` decides. Two teachers that say the same can both be wrong, and more so when one learned from the other.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from datagen.errors import ParseError
from datagen.parse import Ask, parse_object, parse_text
from datagen.records import Example

ROLE = "second"


async def agree(example: Example, ask: Ask, draw: str) -> Example:
    """The example with `second_agreement` (0 to 1) among its scores, and the second teacher's call first among its calls.

    Without the score where the second teacher gave nothing that can be read: that says nothing of the example. Raises TeacherError.
    """
    schema = ask.output_schema
    earlier = tuple(message for message in example.prompt[:-1] if message.role != "system")
    try:
        second = await ask(
            "answer",
            parse_text if schema is None else parse_object,
            role=ROLE,
            draw=f"second/{draw}",
            schema=schema,
            history=earlier,
            input=example.prompt[-1].content,
        )
    except ParseError:
        return example
    said = example.completion if example.answer is None else example.answer
    scores = {**example.scores, "second_agreement": round(agreement(said, second.value, ask.label_field), 4)}
    return example.model_copy(update={"scores": scores, "calls": (second.call_id, *example.calls)})


def agreement(one: Any, other: Any, label_field: str | None = None) -> float:
    """How far two answers say the same, from 0 to 1.

    Data: 0 when their labels differ, else the share of fields that both have with the same value. Texts: F1 over their words, as in
    SQuAD (Rajpurkar et al. 2016).
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if label_field is not None and _plain(one.get(label_field)) != _plain(other.get(label_field)):
            return 0.0
        fields = one.keys() | other.keys()
        same = [name for name in fields if name in one and name in other and _plain(one[name]) == _plain(other[name])]
        return len(same) / len(fields) if fields else 1.0
    first, second = Counter(_words(str(one))), Counter(_words(str(other)))
    if not first or not second:
        return float(str(one).strip() == str(other).strip())
    return 2 * (first & second).total() / (first.total() + second.total())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _plain(value: Any) -> Any:
    """A value without case, spacing and punctuation of its texts."""
    if isinstance(value, str):
        return " ".join(_words(value)) or value.strip()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
