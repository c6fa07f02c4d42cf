"""Reasoning: inputs that state facts, answered in steps that lead to the answer (chain-of-thought distillation, arXiv 2305.02301)."""

from collections.abc import Mapping
from typing import Any

from datagen.errors import ParseError
from datagen.generators._example import inputs_of, make_example, task_in
from datagen.parse import Ask, Steps, parse_steps, parse_strings
from datagen.records import Example, PlanItem


async def reasoning(item: PlanItem, ask: Ask) -> list[Example]:
    """Steps and answer apart: how they are rendered into the completion is the export's choice."""
    written = await ask("write_inputs", parse_strings)

    def parse(text: str) -> Steps:
        steps = parse_steps(text)
        if (ask.output_schema is None) != isinstance(steps.answer, str):
            raise ParseError(f"`answer` is a {type(steps.answer).__name__}, not what the task's output is")
        return steps

    schema = _steps_schema(ask.output_schema)

    async def answered(index: int, text: str) -> Example:
        answer = await ask("reason", parse, draw=str(index), schema=schema, input=text)
        steps: Steps = answer.value
        return make_example(item, ask, text, steps.answer, (written.call_id, answer.call_id), reasoning="\n".join(steps.steps))

    return await ask.each(inputs_of(item, ask, written), answered)


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
