"""Reasoning: inputs that state facts, answered in steps that lead to the answer (chain-of-thought distillation, arXiv 2305.02301).

Of several samples one is taken: of the largest group whose answers agree (self-consistency, arXiv 2203.11171), or the first that known
truth does not contradict (rejection sampling, arXiv 2308.01825). How large the group was is a score; the filter `reasoning` decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datagen.errors import ParseError
from datagen.generators._example import inputs_of, make_example, task_in
from datagen.parse import Answer, Ask, Steps, parse_steps, parse_strings
from datagen.records import Draw, Example, PlanItem, Task, canonical_json

_ONCE = (Draw(prompt="reason", role="teacher"),)


async def reasoning(item: PlanItem, ask: Ask) -> list[Example]:
    """Steps and answer apart: how they are rendered into the completion is the export's choice.

    With several samples, `agreement` is the share of those asked for that agree with the one taken; one that could not be read agrees
    with none. `verified` is 1 where known truth contradicts nothing in it.
    """
    written = await ask(item.writes, parse_strings)

    def parse(text: str) -> Steps:
        steps = parse_steps(text)
        if (ask.output_schema is None) != isinstance(steps.answer, str):
            raise ParseError(f"`answer` is a {type(steps.answer).__name__}, not what the task's output is")
        return steps

    schema = _steps_schema(ask.output_schema)
    draws = item.draws or _ONCE

    async def sample(draw: Draw, name: str, text: str) -> Answer | ParseError:
        try:
            return await ask(draw.prompt, parse, draw=name, schema=schema, temperature=draw.temperature, input=text)
        except ParseError as error:
            return error  # it costs the other samples nothing

    async def answered(index: int, text: str) -> Example:
        names = [str(index), *(f"{index}/sample {number}" for number in range(2, len(draws) + 1))]
        outcomes = await ask.together(*(sample(draw, name, text) for draw, name in zip(draws, names, strict=True)))
        samples = [outcome for outcome in outcomes if not isinstance(outcome, ParseError)]
        if not samples:
            raise next(outcome for outcome in outcomes if isinstance(outcome, ParseError))
        taken = _first_right(samples, text, ask) if item.take == "verified" else _of_the_majority(samples, ask.task)
        scores = {} if len(draws) == 1 else {"samples": float(len(draws)), "agreement": taken.agree / len(draws)}
        if item.take == "verified":
            scores["verified"] = float(taken.right)
        steps: Steps = taken.sample.value
        others = [sample.call_id for sample in samples if sample is not taken.sample]
        calls = (written.call_id, *others, taken.sample.call_id)
        return make_example(item, ask, text, steps.answer, calls, reasoning="\n".join(steps.steps), scores=scores)

    return await ask.each(inputs_of(item, ask, written), answered)


class _Taken(NamedTuple):
    """The sample that becomes the example, how many say what it says, and whether known truth was asked and contradicts nothing."""

    sample: Answer
    agree: int
    right: bool = False


def _of_the_majority(samples: Sequence[Answer], task: Task) -> _Taken:
    """The first sample of the largest group; of equal groups, of the one that was there first."""
    groups: dict[str, list[Answer]] = {}
    for sample in samples:
        groups.setdefault(said(sample.value.answer, task), []).append(sample)
    largest = max(groups.values(), key=len)
    return _Taken(largest[0], len(largest))


def _first_right(samples: Sequence[Answer], text: str, ask: Ask) -> _Taken:
    """The first sample that known truth does not contradict; where it contradicts all, the majority's, for the filters to refuse."""
    right = next((sample for sample in samples if ask.wrong(sample.value.answer, text) is None), None)
    if right is None:
        return _of_the_majority(samples, ask.task)
    same = said(right.value.answer, ask.task)
    return _Taken(right, sum(said(sample.value.answer, ask.task) == same for sample in samples), right=True)


def said(answer: Any, task: Task) -> str:
    """What two answers must share to agree: the task's agreement fields, or a text without case, spacing and full stop, or its number."""
    if not isinstance(answer, Mapping):
        text = " ".join(str(answer).casefold().split()).rstrip(".")
        try:
            return repr(float(text.replace(",", "").strip("$€£%")))
        except ValueError:
            return text
    label = (task.label_field,) if task.label_field else ()
    fields = task.agreement_fields or (*label, *task.decision_fields)
    return canonical_json({name: answer.get(name) for name in fields} if fields else dict(answer))


def _steps_schema(task_schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The JSON schema of steps with an answer."""
    answer, shared = task_in(task_schema)
    steps = {"type": "array", "items": {"type": "string"}}
    return {
        "type": "object",
        "properties": {"steps": steps, "answer": answer},
        "required": ["steps", "answer"],
        "additionalProperties": False,
        **shared,
    }
