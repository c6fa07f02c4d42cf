"""Reasoning: inputs that state facts, answered in steps that lead to the answer (chain-of-thought distillation, arXiv 2305.02301)."""

from datagen.errors import ParseError
from datagen.generators._example import make_example
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

    async def answered(index: int, text: str) -> Example:
        answer = await ask("reason", parse, draw=str(index), input=text)
        steps: Steps = answer.value
        return make_example(item, ask, text, steps.answer, (written.call_id, answer.call_id), reasoning="\n".join(steps.steps))

    return await ask.each(written.value[: item.count], answered)
