"""The filter on reasoning: steps of a fair length, that lead to their own answer, which enough samples share.

Whether the answer is right is the truth filter's matter; here the steps are held against the answer they end in. It reads what is
stated (names of rules, labels, numbers, words), not whether a step follows from the one before.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datagen.filters.context import FilterContext, parse_object
from datagen.policy import decide, read_facts
from datagen.records import Example

_LAST = 3  # steps in which the answer must be in sight
_TAG = re.compile(r"</?think>", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[^\W_]+")
_BRIEF_WORDS = 8  # an answer of so many words is a name or a choice: the steps must have said it
_SHARED = 0.2  # of a longer text's words of four letters and more


def reasoning(example: Example, context: FilterContext) -> str | None:
    """The reasoning is within its length, agreed upon where it was sampled, and ends where its answer is."""
    if example.reasoning is None:
        return None
    chars = len(example.reasoning)
    if chars > context.setting("reasoning", "max_chars"):
        return f"reasoning_long: {chars} characters, at most {context.setting('reasoning', 'max_chars'):g}"
    if _TAG.search(example.reasoning) or _TAG.search(example.completion):
        return "think_tag: a <think> tag in the text itself, which no reader could take apart again"
    agreement, least = example.scores.get("agreement"), context.setting("reasoning", "min_agreement")
    if agreement is not None and not agreement > least and not example.scores.get("verified"):
        of = int(example.scores.get("samples", 1))
        return f"agreement: {round(agreement * of)} of {of} samples give this answer, more than {least:.0%} must"
    steps = [step for step in example.reasoning.split("\n") if step.strip()]
    if context.task.output_schema is None:
        return _text_unsupported(example.completion, steps)
    answer = parse_object(example.completion)[0]
    return None if answer is None else _data_unsupported(answer, steps, context)  # what does not parse is the schema filter's matter


def _data_unsupported(answer: Mapping[str, Any], steps: Sequence[str], context: FilterContext) -> str | None:
    """Why the steps do not lead to the answer: another rule is named than decides, or a value comes from nowhere."""
    task = context.task
    followed: set[str] = set()
    if context.policy:
        entities = answer.get(task.entities_field) if task.entities_field else None
        known = {task.label_field: answer.get(task.label_field)} if task.label_field else {}
        facts = read_facts(entities, context.facts) if isinstance(entities, Mapping) else {}
        _, deciding = decide(context.policy, {**known, **facts})
        rules = {rule.id: rule for rule in context.policy}
        named = [[word for word in _WORD.findall(step) if word in rules] for step in steps]
        last: list[str] = next((names for names in reversed(named) if names), [])
        if deciding and not last:
            return f"rule: the steps name no rule, {deciding[0]} decides"
        if deciding and not set(last) & set(deciding):
            return f"rule: the steps end at {', '.join(last)}, {', '.join(deciding)} decides"
        followed = {str(value) for names in named for name in names for value in rules[name].then.values()}
    for field in dict.fromkeys([*([task.label_field] if task.label_field else []), *task.decision_fields]):
        value = answer.get(field)
        # a rule's id was looked for above: it stands in the answer under whatever name
        if isinstance(value, str) and value not in followed and not _stated(value, steps):
            return f"answer: no step states {field} {value!r}"
    shown = {_plain(number) for step in steps for number in _NUMBER.findall(step)}
    for number in _numbers(answer):
        if _plain(str(number)) not in shown:
            return f"answer: no step states the number {number}"
    return None


def _stated(value: str, steps: Sequence[str]) -> bool:
    """Whether the words of a value (`card_arrival`) are among those of the steps; of a long one, most of them."""
    wanted = [word.casefold() for word in _WORD.findall(value)]
    said = {word.casefold() for step in steps for word in _WORD.findall(step)}
    found = sum(any(_alike(word, other) for other in said) for word in wanted)
    return 2 * found > len(wanted) if len(wanted) > 1 else found == len(wanted)


def _alike(word: str, other: str) -> bool:
    """The same word, or one of five letters and more with another ending."""
    return word == other or (min(len(word), len(other)) >= 5 and word[:5] == other[:5])


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)


def _plain(number: str) -> str:
    return f"{float(number.replace(',', '')):g}"


def _text_unsupported(completion: str, steps: Sequence[str]) -> str | None:
    """A text's last number must be in the last steps; a brief answer must have been said there; a long one must share words with them."""
    last = steps[-_LAST:]
    numbers = _NUMBER.findall(completion)
    words = [word.casefold() for word in _WORD.findall(completion)]
    brief = len(words) <= _BRIEF_WORDS
    if brief and numbers:
        shown = {_plain(number) for step in last for number in _NUMBER.findall(step)}
        return None if _plain(numbers[-1]) in shown else f"answer: the last steps do not state {numbers[-1]}"
    if brief:
        return None if not words or _stated(completion, last) else f"answer: the last steps do not state {completion[:60]!r}"
    said = {word.casefold() for step in steps for word in _WORD.findall(step)}
    telling = [word for word in dict.fromkeys(words) if len(word) >= 4]
    shared = sum(any(_alike(word, other) for other in said) for word in telling)
    if telling and shared < _SHARED * len(telling):
        return f"answer: {shared} of its {len(telling)} words are in the steps"
    return None
