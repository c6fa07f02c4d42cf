"""Filters on truth: the answer against what is known (label, spans of the input, policy table, forbidden words), and preference pairs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from datagen.filters.context import FilterContext, parse_object
from datagen.filters.similarity import normalise
from datagen.filters.text import refuses
from datagen.filters.turns import answers, material
from datagen.policy import decide, read_facts
from datagen.records import Example, canonical_json


def truth(example: Example, context: FilterContext) -> str | None:
    """The completion says nothing that is known to be wrong. One that does not parse is the schema filter's matter."""
    if context.task.output_schema is None:
        return next((problem for _, text in answers(example) if (problem := wrong_text(text, context))), None)
    answer, problem = parse_object(example.completion)
    return None if answer is None or problem else wrong(answer, material(example), example.label, context)


def wrong_text(completion: str, context: FilterContext) -> str | None:
    """What is wrong in an answer of free text; None when nothing is known to be."""
    return _forbidden([completion], context)


def wrong(answer: Mapping[str, Any], text: str, label: str | None, context: FilterContext) -> str | None:
    """What is wrong in `answer` to the input `text` whose right label is `label` (None = not known); None when nothing is."""
    task = context.task
    said = answer.get(task.label_field) if task.label_field else None
    if label is not None and task.label_field and said != label:
        return f"label: asked {label}, answered {said}"
    if task.label_field and context.labels and said not in context.labels and said != task.abstain_label:
        return f"label: answered {said}, which is none of the labels"
    entities = answer.get(task.entities_field) if task.entities_field else None
    entities = entities if isinstance(entities, Mapping) else {}
    for name, value in entities.items():
        if not isinstance(value, str) or not value or value not in text:
            return f"entities: {name} {value!r} does not occur in the input"
    if context.policy:
        known = {task.label_field: said} if task.label_field else {}
        demanded, _ = decide(context.policy, {**known, **read_facts(entities, context.facts)})
        for name in dict.fromkeys([*demanded, *task.decision_fields]):
            if answer.get(name) != demanded.get(name) or (name in answer) != (name in demanded):
                return f"policy: {name} is {_shown(answer, name)}, the rules say {_shown(demanded, name)}"
    return _forbidden(strings({name: value for name, value in answer.items() if name != task.label_field}), context)


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "absent"


def strings(value: object) -> Iterator[str]:
    """Every text in an answer that is data, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings(inner)


def _forbidden(texts: Iterator[str] | list[str], context: FilterContext) -> str | None:
    for text in texts:
        for word in context.task.forbidden:
            if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
                return f"forbidden: {word!r} in {text[:60]!r}"
    return None


def preference(example: Example, context: FilterContext) -> str | None:
    """A pair's rejected answer is another text, plausible, and worse: by known truth, and by the judge's margin where there is one.

    Where a weak model wrote the chosen answer, the judge's word is not enough: known truth must say that it is right and the other wrong.
    """
    if example.rejected is None:
        return None
    if not example.rejected.strip():
        return "rejected_empty: the rejected answer is empty"
    if _same(example.rejected, example.completion):
        return "rejected_same: the rejected answer equals the chosen one"
    implausible = _implausible(example, context)
    if implausible is not None:
        return implausible
    margin = example.scores.get("chosen_margin")
    least = context.setting("preference", "min_margin")
    if margin is not None and not margin > least:
        return f"margin: the judge's margin is {margin:g}, must be above {least:g}"
    rejected_is_wrong = _known_wrong(example, context)
    if rejected_is_wrong is False:
        return "rejected_right: the rejected answer is also right"
    if example.scores.get("chosen_is_weak") and not (rejected_is_wrong and _is_known(example, context)):
        return "chosen_is_weak: the judge prefers the weak model's answer, and no known truth agrees"
    if rejected_is_wrong is None and margin is None:
        return "margin: neither a judge nor known truth says which answer is better"
    return None


def _same(one: str, other: str) -> bool:
    """Whether two answers are one: as data where either is JSON (`{"a": 1` reads like `{"a": 1}` and is not), else as texts."""
    data = parse_object(one)[0], parse_object(other)[0]
    if data == (None, None):
        return normalise(one) == normalise(other)
    return canonical_json(data[0]) == canonical_json(data[1])


def _implausible(example: Example, context: FilterContext) -> str | None:
    """Why nobody would take the rejected answer for one, as far as the recipe asks: it teaches how an answer looks, not what is right."""
    rejected = example.rejected or ""
    if context.setting("preference", "rejected_valid") and context.task.output_schema is not None:
        answer, problem = parse_object(rejected)
        broken = problem if answer is None else context.violation(answer)
        if broken:
            return f"rejected_broken: {broken}"
    refusal = refuses(rejected) if context.setting("preference", "rejected_refusal") else None
    if refusal:
        return f"rejected_refusal: the rejected answer begins with {refusal!r}"
    most = context.setting("preference", "max_length_ratio")
    short, long = sorted((len(rejected.strip()), len(example.completion.strip())))
    if most and long > most * max(1, short):
        return f"length_ratio: {long} characters against {short}, at most {most:g} times as many"
    return None


def _is_known(example: Example, context: FilterContext) -> bool:
    """Whether known truth says what a right answer is."""
    return context.task.output_schema is not None and (
        bool(context.policy) or (example.label is not None and bool(context.task.label_field))
    )


def _known_wrong(example: Example, context: FilterContext) -> bool | None:
    """Whether the rejected answer is known to be wrong; None when nothing is known about it."""
    rejected = example.rejected or ""
    if context.task.output_schema is None:
        return True if _forbidden([rejected], context) else None
    answer, _ = parse_object(rejected)
    if answer is None or context.violation(answer):
        return True
    if example.label is None and (context.task.label_field or not context.policy):
        return True if wrong(answer, material(example), None, context) else None
    return wrong(answer, material(example), example.label, context) is not None
