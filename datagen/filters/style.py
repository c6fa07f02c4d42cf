"""The set filter on style: texts far from what their generator writes for their label, in length, length of sentence or tone.

Off unless the recipe sets `style.max_z`. A text is judged by how far it lies from the median of its generator and label, in units of
the median absolute deviation times 1.4826 (the standard deviation, were they normal; Iglewicz and Hoaglin 1993 advise 3.5). The
unit has a floor, so that a generator that always writes alike does not turn the smallest difference into an outlier.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datagen.filters.context import FilterContext
from datagen.records import Example, Verdict

_SENTENCE = re.compile(r"[.!?…]+(?:\s|$)|[。！？]|\n")
_CASUAL = re.compile(
    r"[!]|\b(?:\w+'(?:s|re|ve|ll|d|m|t)|gonna|wanna|yeah|yep|nope|hey|hi|ok|okay|lol|pls|plz|thx|u|ur|cool|awesome|btw)\b"
    r"|[\U0001F300-\U0001FAFF\u2600-\u27BF]",
    re.IGNORECASE,
)
# the features, and the least that counts as one unit of spread: a quarter more words, or three casual signs in a hundred words
_FEATURES: Mapping[str, float] = {"length": 0.22, "length of sentence": 0.22, "casual tone": 0.17}


def style(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Verdicts on the inputs, and on the completions of free text; none where `max_z` is 0 or a group has fewer than `least` texts."""
    most, least = context.setting("style", "max_z"), int(context.setting("style", "least"))
    if not most:
        return []
    reasons: dict[str, str] = {}
    fields = ("input",) if context.task.output_schema is not None else ("input", "completion")
    groups: dict[tuple[str, str | None], list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.id):
        groups.setdefault((example.generator, example.label), []).append(example)
    for (generator, label), members in groups.items():
        if len(members) < least:
            continue
        for field in fields:
            measured = np.array([_features(getattr(example, field)) for example in members])
            medians = np.median(measured, axis=0)
            scores = _robust_z(measured, medians)
            for row in np.flatnonzero((np.abs(scores) > most).any(axis=1)).tolist():
                column = int(np.abs(scores[row]).argmax())
                name = list(_FEATURES)[column]
                value, usual = _shown(name, measured[row, column]), _shown(name, float(medians[column]))
                whose = f"{generator}{f' and {label}' if label else ''}"
                reasons.setdefault(
                    members[row].id,
                    f"style: the {field}'s {name} is {value}, {usual} is usual for {whose} "
                    f"(robust z {scores[row, column]:.1f}, at most {most:g})",
                )
    return [
        Verdict(example_id=example.id, by="filter:style", keep=example.id not in reasons, reason=reasons.get(example.id))
        for example in examples
    ]


def _features(text: str) -> tuple[float, float, float]:
    """Logarithms of the words and of the words a sentence; the square root of the share of casual signs, whose spread is even then."""
    count = max(1, len(text.split()))
    sentences = max(1, len(_SENTENCE.findall(text)))
    return math.log(count), math.log(max(1.0, count / sentences)), math.sqrt(len(_CASUAL.findall(text)) / count)


def _robust_z(measured: NDArray[np.float64], medians: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = 1.4826 * np.median(np.abs(measured - medians), axis=0)
    return np.asarray((measured - medians) / np.maximum(spread, list(_FEATURES.values())), dtype=np.float64)


def _shown(name: str, value: float) -> str:
    return f"{value**2:.0%} of its words" if name == "casual tone" else f"{math.exp(value):.0f} words"
