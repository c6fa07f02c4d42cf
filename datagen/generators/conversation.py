"""Multi-turn: the teacher plays a user with a persona and a goal, and answers as the assistant (UltraChat, arXiv 2305.14233)."""

from typing import Any, NamedTuple

from datagen.errors import ParseError
from datagen.generators._example import ask_task, completion_text, make_example
from datagen.parse import Answer, Ask, parse_object
from datagen.records import Example, Message, PlanItem, transcript

_TURN = {
    "type": "object",
    "properties": {"done": {"type": "boolean"}, "message": {"type": "string"}},
    "required": ["done", "message"],
    "additionalProperties": False,
}


class _Turn(NamedTuple):
    """What the user wrote, and the answer; neither where the user is done."""

    written: Answer
    answer: Answer | None


async def conversation(item: PlanItem, ask: Ask) -> list[Example]:
    """One conversation of at most `item.count` turns, as one example for each answer: its prompt is all that was said before.

    So every answer is learned from and judged by itself. A turn that fails ends the conversation; the turns before it stand.
    """
    said: list[Message] = []
    calls: tuple[str, ...] = ()
    examples: list[Example] = []

    async def turn(_: int, name: str) -> _Turn:
        parse = _parse_turn if said else _parse_first
        written = await ask("write_turn", parse, draw=f"{name}/user", schema=_TURN, transcript=transcript(said))
        if written.value is None:
            return _Turn(written, None)
        return _Turn(written, await ask_task(ask, written.value, draw=f"{name}/assistant", history=said))

    for number in range(item.count):
        made = await ask.each([str(number)], turn)
        if not made:
            if rest := item.count - number - 1:
                ask.short(rest, "the conversation broke off", f"the conversation broke off at turn {number + 1} of {item.count}")
            break
        written, answer = made[0]
        if answer is None:
            break
        calls = (*calls, written.call_id, answer.call_id)
        examples.append(make_example(item, ask, written.value, answer.value, calls, earlier=said, family=item.id))
        said += [
            Message(role="user", content=written.value),
            Message(role="assistant", content=completion_text(answer.value, ask.output_schema)),
        ]
    return examples


def _parse_turn(text: str) -> str | None:
    """The user's next message; None where the user is done."""
    value: dict[str, Any] = parse_object(text)
    message = value.get("message")
    if value.get("done") is True:
        return None
    if not isinstance(message, str) or not message.strip():
        raise ParseError(f"`message` is {message!r}, and `done` is not true", "the simulated user wrote nothing")
    return message.strip()


def _parse_first(text: str) -> str:
    message = _parse_turn(text)
    if message is None:
        raise ParseError("`done` is true before anything was said", "the simulated user wrote nothing")
    return message
