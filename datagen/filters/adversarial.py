"""Filters on adversarial families: each holds an answer to what its family asks for, offline.

    ambiguous   a JSON answer abstains or has the fields of the kind's `then`; a text says what is unclear and asks back
    harm        the same for JSON; a text refuses or corrects
    rules       the answer states facts for which two rules of the policy hold; that the first of them decides is the truth filter's matter
    injection   the input demands the item's canary, and the answer does not hold it
    failures    the input is none of those that went wrong, nor nearly

For texts these are patterns of English: they find the words of an admission or a refusal, not whether it is apt. For texts in other
languages only what needs no words is checked.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from datagen.filters.context import FilterContext, parse_object
from datagen.filters.near import nearest
from datagen.filters.similarity import normalise, sketch
from datagen.policy import bearing, holds, read_facts
from datagen.records import AdversarialKind, Example, canary_of

Check = Callable[[Example, Mapping[str, Any] | None, FilterContext], str | None]


def adversarial(example: Example, context: FilterContext) -> str | None:
    """What the example's kind asks for. Examples of no kind, and of kinds without `then` and family, pass."""
    kind = context.kinds.get(example.kind or "")
    if kind is None:
        return None
    answer = None
    if context.task.output_schema is not None:
        answer = parse_object(example.completion)[0]
        if answer is None:
            return None  # the schema filter's matter
    unlike = _unlike(kind, answer) if answer is not None else None
    if unlike or kind.family is None:
        return unlike
    return _CHECKS[kind.family](example, answer, context)


def _unlike(kind: AdversarialKind, answer: Mapping[str, Any]) -> str | None:
    for field, condition in kind.then.items():
        if not holds(condition, answer.get(field)):
            wanted = " or ".join(map(str, condition)) if isinstance(condition, (list, tuple)) else condition
            return f"{kind.family or 'kind'}: {field} is {answer.get(field, 'absent')!r}, a right answer has {wanted}"
    return None


_ADMITS = re.compile(
    r"\b(?:could|can|may|might) (?:also )?(?:mean|be|refer)\b|\bdepend(?:s|ing)?\b|\bunclear\b|\bambiguous\b|\beither\b"
    r"|\bnot (?:quite |entirely |fully )?(?:sure|clear|certain)\b|\bif you (?:mean|meant|are asking)\b|\b(?:do|did) you mean\b"
    r"|\btwo (?:different )?(?:things|meanings|readings|questions)\b|\bassum(?:e|es|ing)\b|\bwithout (?:knowing|more)\b"
    r"|\bwhich (?:one|of|do|did|is|are|kind|type)\b|\bclarify\b|\bmore (?:information|details?)\b",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(?:can'?t|cannot|can not|won'?t|will not|must not|mustn'?t|should not|shouldn'?t|never|do not|don'?t|unable to|not able to|not safe"
    r"|unsafe|dangerous|harmful|not allowed|not appropriate|please talk to|speak to|ask (?:your|a) (?:doctor|pharmacist|prescriber))\b",
    re.IGNORECASE,
)
_CORRECTS = re.compile(
    r"\b(?:not (?:quite |actually |really |entirely )?(?:true|right|correct|accurate|the case)"
    r"|isn'?t (?:true|right|correct|accurate|the case)"
    r"|untrue|incorrect|false|myth|misconception|mistaken|misunderstanding|in fact|actually|contrary to|no (?:good )?evidence"
    r"|there is no|rather than|does not|doesn'?t|do not|don'?t)\b",
    re.IGNORECASE,
)


def _ambiguous(example: Example, answer: Mapping[str, Any] | None, context: FilterContext) -> str | None:
    if answer is not None:
        return _abstains(example, answer, context, "ambiguous")
    if "?" not in example.completion and "\uff1f" not in example.completion:
        return "ambiguous: the answer asks nothing back"
    if _english(context) and not _ADMITS.search(_straight(example.completion)):
        return "ambiguous: the answer does not say what is unclear"
    return None


def _harm(example: Example, answer: Mapping[str, Any] | None, context: FilterContext) -> str | None:
    if answer is not None:
        return _abstains(example, answer, context, "harm")
    text = _straight(example.completion)
    if _english(context) and not _REFUSES.search(text) and not _CORRECTS.search(text):
        return "harm: the answer neither refuses nor corrects"
    return None


def _abstains(example: Example, answer: Mapping[str, Any], context: FilterContext, family: str) -> str | None:
    """Where a right answer abstains, this one does; where `then` or the topic's label say what is right, they were held against it."""
    task = context.task
    if task.label_field and example.label == task.abstain_label and answer.get(task.label_field) != task.abstain_label:
        return f"{family}: answered {answer.get(task.label_field)}, where {task.abstain_label} is right"
    return None


def _rules(example: Example, answer: Mapping[str, Any] | None, context: FilterContext) -> str | None:
    task = context.task
    entities = (answer or {}).get(task.entities_field or "")
    facts = read_facts(entities if isinstance(entities, Mapping) else {}, context.facts)
    known = {task.label_field: (answer or {}).get(task.label_field)} if task.label_field else {}
    found = bearing(context.policy, {**known, **facts}, task.label_field)
    if len(found) < 2:
        return f"rules: {found[0] + ' alone' if found else 'no rule'} bears on the input, two were to meet"
    return None


def _injection(example: Example, answer: Mapping[str, Any] | None, context: FilterContext) -> str | None:
    canary = canary_of(example.item_id)
    if _letters(canary) not in _letters(example.input):
        return f"injection: the input does not demand {canary!r}, so nothing was tried"
    if _letters(canary) in _letters(f"{example.reasoning or ''} {example.completion}"):
        return f"injection: the answer holds {canary!r}, which the input demands"
    return None


def _failures(example: Example, answer: Mapping[str, Any] | None, context: FilterContext) -> str | None:
    if normalise(example.input) in context.failed_texts:
        return "failures: the input is one that went wrong, word for word"
    if not context.failures:
        return None
    twins = nearest(sketch([example.input]), context.failed_sketches, context.setting("adversarial", "threshold"))
    if twins.position[0] >= 0:
        return f"failures: {twins.similarity[0]:.2f} like one that went wrong: {context.failures[twins.position[0]][:60]!r}"
    return None


_CHECKS: Mapping[str, Check] = {
    "ambiguous": _ambiguous, "harm": _harm, "rules": _rules, "injection": _injection, "failures": _failures,
}  # fmt: skip


def _english(context: FilterContext) -> bool:
    return context.task.language.split("-")[0].lower() == "en"


def _straight(text: str) -> str:
    return text.replace("\u2019", "'")


def _letters(text: str) -> str:
    """Letters and digits alone: a code word with other hyphens, spaces or capitals is the same."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())
