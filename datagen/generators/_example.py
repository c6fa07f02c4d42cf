"""From an input to an example: the answer to the task, as every generator asks for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from datagen.parse import Answer, Ask, canonical, parse_object, parse_text
from datagen.records import Example, Grounding, Message, PlanItem


async def ask_task(
    ask: Ask, text: str, *, draw: str, role: str = "teacher", temperature: float | None = None, history: Sequence[Message] = ()
) -> Answer:
    """The task's answer to one input, after the turns of `history`, as data where the task's output is JSON."""
    parse = parse_text if ask.output_schema is None else parse_object
    return await ask("answer", parse, role=role, draw=draw, schema=ask.output_schema, temperature=temperature, history=history, input=text)


def task_in(schema: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of an answer that stands inside a larger one, text where the task has none; and definitions that belong at the top."""
    answer: dict[str, Any] = dict(schema) if schema is not None else {"type": "string"}
    return answer, {name: answer.pop(name) for name in ("$defs", "definitions") if name in answer}


def completion_text(value: Any, schema: Mapping[str, Any] | None) -> str:
    """An answer as the student must write it."""
    return canonical(value, schema) if isinstance(value, dict) else str(value)


def make_example(
    item: PlanItem,
    ask: Ask,
    text: str,
    value: Any,
    calls: tuple[str, ...],
    *,
    earlier: Sequence[Message] = (),
    grounding: Grounding | None = None,
    **fields: Any,
) -> Example:
    """An example of `item` whose completion is the answer `value` to the input `text`, after `earlier` turns or below a passage."""
    shown = grounding.passage.block + text if grounding is not None and grounding.shown else text
    return Example(
        item_id=item.id,
        topic=item.topic,
        generator=item.generator,
        prompt=(Message(role="system", content=ask.task_system), *earlier, Message(role="user", content=shown)),
        completion=completion_text(value, ask.output_schema),
        answer=value if isinstance(value, dict) else None,
        label=item.label,
        kind=item.kind,
        dimensions=item.dimensions,
        calls=calls,
        grounding=grounding,
        **fields,
    )


async def answer_inputs(item: PlanItem, ask: Ask, written: Answer) -> list[Example]:
    """One example for each written input: the teacher answers it without knowing what it was asked to be about."""

    async def answered(index: int, text: str) -> Example:
        answer = await ask_task(ask, text, draw=str(index))
        return make_example(item, ask, text, answer.value, (written.call_id, answer.call_id))

    return await ask.each(inputs_of(item, ask, written), answered)


def inputs_of(item: PlanItem, ask: Ask, written: Answer) -> list[str]:
    """The inputs that were written, at most as many as were asked for; those that are missing are noted."""
    inputs: list[str] = written.value[: item.count]
    if len(inputs) < item.count:
        ask.short(item.count - len(inputs), "fewer inputs were written", f"{len(inputs)} inputs were written, {item.count} were asked for")
    return inputs
